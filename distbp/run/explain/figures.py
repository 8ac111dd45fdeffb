"""Compares published figures with ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """`published`: the figure as printed. `tolerance`: the largest difference that agrees. `differs`: the
    published figure is known to be wrong, so ours must not agree with it."""

    name: str
    published: str
    ours: float
    tolerance: float
    differs: bool = False

    @property
    def difference(self) -> float:
        return self.ours - float(self.published)

    @property
    def agrees(self) -> bool:
        """Whether our figure is as expected. False for NaN."""
        near = abs(self.difference) <= self.tolerance
        return self.ours == self.ours and near != self.differs


def printed(name: str, published: str, ours: float, differs: bool = False) -> Figure:
    """A figure whose tolerance is half a unit of its last printed digit."""
    digits = len(published.partition(".")[2])
    return Figure(name, published, ours, 0.5 * 10.0**-digits * (1 + 1e-6), differs)


def table(figures: Sequence[Figure]) -> list[str]:
    """The figures as lines of a table, at most 80 characters wide."""
    lines = [f"{'':<36}{'published':>16}{'ours':>17}{'difference':>11}"]
    for one in figures:
        mark = "" if one.agrees else "  !"
        wrong = " *" if one.differs else ""
        ours = f"{one.ours:.0f}" if float(one.ours).is_integer() and abs(one.ours) > 1 else f"{one.ours:.10g}"
        published = one.published if len(one.published) <= 15 else f"{float(one.published):.10g}"
        lines.append(f"{one.name + wrong:<36}{published:>16}{ours:>17}{one.difference:>11.1e}{mark}")
    if any(one.differs for one in figures):
        lines.append("* known to be wrong where it was published: ours must differ")
    if not all(one.agrees for one in figures):
        lines.append("! not within the tolerance")
    return lines
