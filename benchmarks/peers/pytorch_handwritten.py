"""PyTorch eager without torch.optim and modules: faster on small nets, and not how PyTorch is written."""

from __future__ import annotations

from functools import partial

from benchmarks.peers.common import Net, main
from benchmarks.rows import Row


def build(row: Row) -> Net:
    """The net of a row with an update written by hand."""
    from benchmarks.peers import torch_net

    return torch_net.build_fastest(row, [partial(torch_net.handwritten_step, row)])


if __name__ == "__main__":
    main(build)
