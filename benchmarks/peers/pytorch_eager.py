"""PyTorch eager in one process: tensors in memory, block-wise gathers, torch.optim.SGD, no DataLoader."""

from __future__ import annotations

from benchmarks.peers.common import Net, main
from benchmarks.rows import Row


def build(row: Row) -> Net:
    """The net of a row with the fastest form of torch.optim.SGD."""
    from benchmarks.peers import torch_net

    return torch_net.build_fastest(row, torch_net.optimizer_forms(row))


if __name__ == "__main__":
    main(build)
