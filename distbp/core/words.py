"""Words that several rooms need."""

from __future__ import annotations

import re


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 row", "2 rows", "1,000 rows"."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


def snake_case(name: str) -> str:
    """A name in snake case: EpochEnded -> epoch_ended."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
