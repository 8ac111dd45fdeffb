"""PyTorch DistributedDataParallel over gloo: two processes, one thread and one core each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.common import Measure, fix_threads, main_session
from benchmarks.peers.pipes import measuring, pipes_folder
from benchmarks.rows import ROWS, Row

PROCESSES = 2


def rank_main(rank: int, row_name: str, cores: list[int], folder: Path) -> None:
    """One of the training processes."""
    fix_threads([cores[rank % len(cores)]], 1)
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    from benchmarks.peers import ddp_loop, torch_net

    torch.set_num_threads(1)
    row = ROWS[row_name]
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=PROCESSES
    )
    net = DistributedDataParallel(
        torch_net.make_net(row), broadcast_buffers=False, gradient_as_bucket_view=True
    )
    ddp_loop.rank_loop(row, net, folder)
    distributed.destroy_process_group()


@contextmanager
def session(options: argparse.Namespace, row: Row) -> Iterator[Measure]:
    """Starts the two processes; they end when the session does."""
    from torch import multiprocessing

    with pipes_folder() as folder:
        ranks = multiprocessing.spawn(
            rank_main, (row.name, options.cores, folder), nprocs=PROCESSES, join=False
        )
        assert ranks is not None
        with measuring(folder, lambda: all(process.is_alive() for process in ranks.processes)) as one:
            yield one
        while not ranks.join():
            pass


if __name__ == "__main__":
    main_session(session)
