"""The training loop of one rank, for PyTorch DDP and for Ray Train.

Rank 0 reads numbers of seconds from a named pipe and writes measurements to another; between measurements
every rank sleeps in a broadcast. Each rank gathers and trains its half of every batch.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from benchmarks.peers import torch_net
from benchmarks.peers.common import answer
from benchmarks.peers.pipes import ANSWERS, COMMANDS
from benchmarks.rows import Row
from benchmarks.synthetic import orders, samples

STRETCH_STEPS = 200


def rank_loop(row: Row, net: nn.Module, folder: Path) -> None:
    """Warms up, then trains for each number of seconds that rank 0 is sent, until one is not positive."""
    rank, world = distributed.get_rank(), distributed.get_world_size()
    inputs, labels = map(torch.from_numpy, samples(row))
    share = row.batch // world
    # Many short steps take these peers longer than a measurement lasts: look at the clock more often.
    stretches = orders(row, steps=min(row.steps_per_epoch, STRETCH_STEPS))
    step = torch_net.optimizer_step(row, net, fused=True)

    def stretch() -> int:
        order = next(stretches)
        mine = order[:, rank * share : (rank + 1) * share]
        torch_net.train(step, inputs, labels, mine.copy())
        return len(order)

    stretch()
    pipes = _Pipes(folder) if rank == 0 else None
    message = torch.zeros(1, dtype=torch.float64)
    while True:
        if pipes:
            message[0] = pipes.receive()
        distributed.broadcast(message, src=0)
        seconds = message.item()
        if seconds <= 0:
            return
        before = torch_net.mean_loss(row, net, inputs, labels)
        distributed.barrier()
        steps, start, passed = 0, time.perf_counter(), 0.0
        # All ranks must stop after the same stretch: rank 0 decides and says so.
        while message.item() > 0:
            steps += stretch()
            passed = time.perf_counter() - start
            message[0] = float(passed < seconds)
            distributed.broadcast(message, src=0)
        after = torch_net.mean_loss(row, net, inputs, labels)
        if pipes:
            pipes.send(answer(row, steps, passed, before, after))


class _Pipes:
    """Rank 0's ends of the two named pipes."""

    def __init__(self, folder: Path) -> None:
        self._commands = open(folder / COMMANDS)  # noqa: SIM115 - as long as the process
        self._answers = open(folder / ANSWERS, "w")  # noqa: SIM115

    def receive(self) -> float:
        """Seconds to train for; 0 when the other side has gone."""
        return float(self._commands.readline() or 0)

    def send(self, measurement: dict[str, Any]) -> None:
        """Writes one measurement."""
        print(json.dumps(measurement), file=self._answers, flush=True)
