"""Injected faults: an exchange that drops, repeats, delays and reorders messages, under a seed.

Only the announcement of a finished slot is wrapped; the rest is the real exchange. Training ends with the
same bits, because a worker repeats a push that had no effect, and the server drops a push that comes twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distbp.core.reduction import Block
from distbp.team.exchange.segment import Slot
from distbp.team.exchange.worker_port import post


@dataclass(frozen=True)
class FaultPlan:
    """The probability of each fault for one push, 0 to 1, and the longest delay in seconds.

    flip: one bit of the gradient sums is inverted. No exchange can repair that; an audit finds it."""

    seed: int
    drop: float = 0.0
    repeat: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    delay_s: float = 0.02
    flip: float = 0.0


def faulty_post(plan: FaultPlan, worker: int) -> Callable[[Slot, int, int, Block], None]:
    """A `post` with the faults of `plan`. A dropped push arrives when the worker repeats it."""
    random = np.random.default_rng([plan.seed, worker])
    flips = np.random.default_rng([plan.seed, worker, 1])
    held: list[tuple[Slot, int, int, Block]] = []
    turn = threading.Lock()  # a slot has one writer

    def deliver(slot: Slot, attempt: int, step: int, block: Block) -> None:
        with turn:
            post(slot, attempt, step, block)

    def faulty(slot: Slot, attempt: int, step: int, block: Block) -> None:
        if plan.flip and slot.posted(attempt, step) is None and flips.random() < plan.flip:
            bits = slot.gradient.view(np.uint8)
            bits[flips.integers(len(bits))] ^= 1 << int(flips.integers(8))
        dice = random.random(4)
        if dice[0] < plan.drop:
            return
        if dice[1] < plan.reorder and not held:
            held.append((slot, attempt, step, block))  # until after the next push
            return
        if dice[2] < plan.delay:
            late = threading.Timer(plan.delay_s * random.random(), deliver, (slot, attempt, step, block))
            late.daemon = True
            late.start()
            return
        deliver(slot, attempt, step, block)
        if dice[3] < plan.repeat:
            deliver(slot, attempt, step, block)
        while held:
            deliver(*held.pop())

    return faulty
