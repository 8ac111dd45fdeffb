"""Published results: the contract of those that are derived again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distbp.run.explain.figures import Figure

Tell = Callable[[str], None]  # what is being done, in words


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
