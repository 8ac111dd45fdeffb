"""Whether a rule can join and update in one pass over memory. Loads Numba only where it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distbp.nn.arrays import Array
from distbp.optimizers.parts import Part


def one_pass(
    rule: Sequence[Part] | None,
    vector: Array,
    slots: Mapping[str, Array],
    decays: Sequence[tuple[int, int]],
    threads: int,
    parts: Sequence[Sequence[tuple[int, slice]]],
) -> Any:
    """The `JoinedUpdate` of a rule; None for rules that cannot, and for no rule (nothing is compiled)."""
    if rule is None:
        return None
    from distbp.optimizers.compiled import rule_of  # both load Numba
    from distbp.optimizers.joined_update import JoinedUpdate

    compiled = rule_of(rule)
    return None if compiled is None else JoinedUpdate(compiled, vector, slots, decays, threads, parts)
