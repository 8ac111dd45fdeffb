"""Figures that others published, beside ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Tell = Callable[[str], None]  # what is being done, in words


@dataclass(frozen=True)
class Figure:
    """`published`: as it is printed there. `tolerance`: by how much ours may differ. `differs`: the published
    one is known to be wrong, and ours must not agree with it."""

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
        """Whether ours is as it must be. False for NaN."""
        near = abs(self.difference) <= self.tolerance
        return self.ours == self.ours and near != self.differs


def printed(name: str, published: str, ours: float, differs: bool = False) -> Figure:
    """A figure that is rounded to the digits it is printed with."""
    digits = len(published.partition(".")[2])
    return Figure(name, published, ours, 0.5 * 10.0**-digits * (1 + 1e-6), differs)


@dataclass(frozen=True)
class Curve:
    """Points (x, y) of one panel of the picture. `dots`: the published ones stand alone, without a line."""

    title: str
    x_name: str
    published: Sequence[tuple[float, float]]
    ours: Sequence[tuple[float, float]]
    dots: bool = False
    logarithmic: bool = False


@dataclass(frozen=True)
class Reproduction:
    """`title`, `source`: what was published, and where. `notes`: what to know beside the figures."""

    title: str
    source: str
    figures: tuple[Figure, ...]
    curves: tuple[Curve, ...]
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return all(figure.agrees for figure in self.figures)


@dataclass(frozen=True)
class Folders:
    """Where the published curves lie, and MNIST. `epochs`: train no more than so many; None: all."""

    golden: Path | None = None
    mnist: Path | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Published:
    """One row of the table. `run`: (folders, tell) -> Reproduction. `needs`: data that is not here."""

    title: str
    takes: str
    run: Callable[[Folders, Tell], Reproduction]
    needs: tuple[str, ...] = field(default=())


def table(found: Reproduction) -> list[str]:
    """The figures in columns, at most 80 wide."""
    lines = [f"{'':<36}{'published':>16}{'ours':>17}{'difference':>11}"]
    for one in found.figures:
        mark = "" if one.agrees else "  !"
        wrong = " *" if one.differs else ""
        ours = f"{one.ours:.0f}" if float(one.ours).is_integer() and abs(one.ours) > 1 else f"{one.ours:.10g}"
        published = one.published if len(one.published) <= 15 else f"{float(one.published):.10g}"
        lines.append(f"{one.name + wrong:<36}{published:>16}{ours:>17}{one.difference:>11.1e}{mark}")
    if any(one.differs for one in found.figures):
        lines.append("* known to be wrong where it was published: ours must differ")
    if not found.agrees:
        lines.append("! not within the tolerance")
    return lines
