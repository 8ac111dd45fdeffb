"""Words that several rooms need."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """As "1 row", "2 rows", "1,000 rows"."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
