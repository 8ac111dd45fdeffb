"""The contract of reproductions of published results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distbp.run.explain.figures import Figure

Tell = Callable[[str], None]  # called with texts about the progress


@dataclass(frozen=True)
class Curve:
    """Points (x, y) of one panel of the picture. `dots`: the published points have no line."""

    title: str
    x_name: str
    published: Sequence[tuple[float, float]]
    ours: Sequence[tuple[float, float]]
    dots: bool = False
    logarithmic: bool = False


@dataclass(frozen=True)
class Reproduction:
    """`title`, `source`: the published result, and where it was published. `notes`: remarks on the
    figures."""

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
    """The folders of the published curves and of MNIST. `epochs`: the most epochs to train; None: all."""

    golden: Path | None = None
    mnist: Path | None = None
    epochs: int | None = None


@dataclass(frozen=True)
class Published:
    """One row of the table. `takes`: its duration in words. `run`: (folders, tell) -> Reproduction. `needs`:
    data that the user must supply."""

    title: str
    takes: str
    run: Callable[[Folders, Tell], Reproduction]
    needs: tuple[str, ...] = field(default=())
