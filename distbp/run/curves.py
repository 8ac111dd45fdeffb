"""Pictures of training runs: the loss and every other metric by epoch, and comparisons of curves."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from distbp.core.metric_names import measured, spans_decades
from distbp.core.storage import commit_file, explained
from distbp.nn.metrics import less_is_better

# Split -> color and name. The colors differ in lightness too, so that gray prints and color-blind readers can
# tell them apart.
_SPLITS = {"train": ("#0b6e99", "training"), "validation": ("#d9680f", "validation")}
_INK, _FAINT = "#333333", "#d5d5d5"
_MARKED_POINTS = 12  # shorter curves show their points

# In inches: a panel with its margins, the margins, and the title of the picture.
_WIDTH, _HEIGHT = 5.2, 3.9
_LEFT, _RIGHT, _BOTTOM, _TOP, _TITLE = 0.72, 0.78, 0.55, 0.36, 0.26

_SETTINGS: Any = MappingProxyType(
    {
        "svg.hashsalt": "distbp",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.unicode_minus": True,
    }
)

Points = list[tuple[float, float]]


def draw(lines: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> Path:
    """Draws the records of metrics.jsonl into `path` (.svg or .png) and returns it.

    The same records give the same bytes: no dates, no random names. Raises ValueError if the records have no
    loss, StorageError if the file cannot be written.
    """
    figure = picture(lines, title)
    with matplotlib.rc_context(_SETTINGS):
        _write(figure, path)
    return path


class Picture(Figure):
    """A figure that a notebook shows as SVG, without any setting of matplotlib."""

    def _repr_svg_(self) -> str:
        with matplotlib.rc_context(_SETTINGS):
            return _drawn(self, "svg").decode()


def picture(lines: Sequence[Mapping[str, Any]], title: str = "") -> Picture:
    """The records of metrics.jsonl as a figure. Raises ValueError if the records have no loss."""
    names = _panels(lines)
    if not names:
        raise ValueError("there is no loss in the metrics, so there is no curve to draw")
    with matplotlib.rc_context(_SETTINGS):
        across = 2 if len(names) == 4 else min(3, len(names))
        down = -(-len(names) // across)
        figure = Picture(figsize=(_WIDTH * across, _HEIGHT * down), facecolor="white")
        axes = figure.subplots(down, across, squeeze=False, gridspec_kw=_places(down, across)).flat
        for axis, name in zip(axes, names, strict=False):
            _panel(axis, name, lines)
        for axis in [*axes][len(names) :]:
            axis.set_axis_off()
        figure.suptitle(title or _title(lines), x=0.02, ha="left", fontsize=12, color=_INK)
    FigureCanvasAgg(figure)
    return figure


def _places(down: int, across: int) -> dict[str, float]:
    """The places of the panels, for `gridspec_kw`. They are computed, because matplotlib's automatic layout
    measures every text, which takes longer than to draw."""
    width, height = _WIDTH * across, _HEIGHT * down
    beside, between = _LEFT + _RIGHT, _BOTTOM + _TOP
    each, tall = (width - beside * across) / across, (height - _TITLE - between * down) / down
    return {
        "left": _LEFT / width,
        "right": 1 - _RIGHT / width,
        "bottom": _BOTTOM / height,
        "top": 1 - (_TITLE + _TOP) / height,
        "wspace": beside / each,
        "hspace": between / tall,
    }


def _write(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    content = _drawn(figure, path.suffix.lower().removeprefix("."))
    with explained(path):
        commit_file(path, content)


def _drawn(figure: Figure, kind: str) -> bytes:
    metadata = {"Date": None, "Creator": "distbp"} if kind == "svg" else {"Software": "distbp"}
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=144, metadata=metadata)
    return file.getvalue()


def _panels(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics that get a panel, the loss first; none if there is no loss."""
    numbers = [key for line in lines for key, value in line.items() if isinstance(value, int | float)]
    names = measured(key for key in numbers if key.partition("_")[0] in _SPLITS)
    return names if "loss" in names else []


def _by_member(lines: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The lines of each network of a job with several networks; of other jobs one list with all lines."""
    members: dict[Any, list[Mapping[str, Any]]] = {}
    for line in lines:
        members.setdefault(line.get("member"), []).append(line)
    return list(members.values())


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> Points:
    """(epoch, value) for each line in which the value is a finite number."""
    points = []
    for number, line in enumerate(lines, start=1):
        value = line.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            points.append((float(line.get("epoch", number)), float(value)))
    return points


def _panel(axis: Axes, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
    members = _by_member(lines)
    series = {split: _points(lines, f"{split}_{name}") for split in _SPLITS}
    _style(axis, name, series)
    ends = []
    for split, (color, words) in _SPLITS.items():
        drawn = [points for points in (_points(member, f"{split}_{name}") for member in members) if points]
        for points in drawn:
            epochs, values = zip(*points, strict=True)
            few, width = len(points) <= _MARKED_POINTS, 2 if len(members) == 1 else 1
            axis.plot(epochs, values, color=color, lw=width, marker="o" if few else None, ms=3.5, zorder=3)
        if drawn:  # the longest curve bears the name
            epoch, value = max((points[-1] for points in drawn), key=lambda end: end[0])
            ends.append((value, epoch, words, color))
    _label_ends(axis, ends)
    watched = series["validation"] or series["train"]
    if watched:
        _mark_best(axis, watched, name, _SPLITS["validation" if series["validation"] else "train"][0])


def _style(axis: Axes, name: str, series: Mapping[str, Points]) -> None:
    values = [value for points in series.values() for _, value in points]
    epochs = [epoch for points in series.values() for epoch, _ in points]
    wide = less_is_better(name) and spans_decades(values)
    if wide:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _frame(axis, name.replace("_", " "), "epoch", wide)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axis.set_axisbelow(True)
    axis.margins(x=0.02, y=0.12)
    if epochs and min(epochs) == max(epochs):
        axis.set_xlim(epochs[0] - 1, epochs[0] + 1)


def _frame(axis: Axes, name: str, x_name: str, logarithmic: bool) -> None:
    """Sets the title of a panel and the name of its x axis. Faint lines behind the curves replace the box."""
    axis.set_title(f"{name}{' (logarithmic)' if logarithmic else ''}", loc="left", fontsize=10, color=_INK)
    axis.set_xlabel(x_name, color=_INK)
    axis.grid(axis="y", color=_FAINT, lw=0.8)
    axis.tick_params(which="both", colors=_INK, length=0)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(_FAINT)


def _label_ends(axis: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Writes each curve's name at its right end, in its color, and moves two names apart if they are
    close."""
    axis.autoscale_view()
    low, high = sorted(axis.transData.transform([(0, y) for y in axis.get_ylim()])[:, 1])
    places = [axis.transData.transform((x, y))[1] for y, x, _, _ in ends]
    shift = [0.0] * len(ends)
    if len(ends) == 2:
        needed = 0.065 * (high - low)
        missing = needed - abs(places[0] - places[1])
        if missing > 0:
            upper = 0 if places[0] >= places[1] else 1
            shift[upper], shift[1 - upper] = missing / 2, -missing / 2
    points_per_pixel = 72 / axis.figure.dpi
    for (value, epoch, words, color), pixels in zip(ends, shift, strict=True):
        axis.annotate(
            words,
            (epoch, value),
            xytext=(7, pixels * points_per_pixel),
            textcoords="offset points",
            color=color,
            va="center",
            fontsize=9,
            annotation_clip=False,
        )


def _mark_best(axis: Axes, points: Points, name: str, color: str) -> None:
    """A ring around the best point; its value stands above the panel, where no line can cross it."""
    less = less_is_better(name)
    epoch, value = min(points, key=lambda point: (point[1] if less else -point[1], point[0]))
    axis.plot([epoch], [value], "o", ms=9, mfc="none", mec=color, mew=1.6, zorder=4)
    axis.set_title(f"best: {value:.4g} (epoch {epoch:g})", loc="right", fontsize=9, color=color)


def _title(lines: Sequence[Mapping[str, Any]]) -> str:
    last = lines[-1]
    parts = [f"{last[unit]:,} {unit}s" for unit in ("epoch", "step") if isinstance(last.get(unit), int)]
    parts = [p.removesuffix("s") if p.startswith("1 ") else p for p in parts]
    return f"Training, {', '.join(parts)}" if parts else "Training"


def draw_over(panels: Sequence[tuple[str, str, Points, Points, bool, bool]], path: Path, title: str) -> Path:
    """Draws our curves over published ones into `path` (.svg or .png) and returns it. A panel is its title,
    the name of x, published points, our points, whether the published points are drawn without a line, and
    whether y is logarithmic. The same points give the same bytes."""
    with matplotlib.rc_context(_SETTINGS):
        across = 1 if len(panels) == 1 else 2
        down = -(-len(panels) // across)
        figure = Figure(figsize=(5.8 * across, 3.9 * down), facecolor="white")
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
        for axis, panel in zip(figure.subplots(down, across, squeeze=False).flat, panels, strict=False):
            name, x_name, published, ours, dots, wide = panel
            style: dict[str, Any] = {"color": _SPLITS["validation"][0], "zorder": 3}
            style |= (
                {"ls": "", "marker": "o", "ms": 8, "mfc": "none", "mew": 1.8}
                if dots
                else {"lw": 5, "alpha": 0.45}
            )
            axis.plot(*zip(*published, strict=True), label="published", **style)
            few = len(ours) <= _MARKED_POINTS
            axis.plot(
                *zip(*ours, strict=True), color=_SPLITS["train"][0], lw=1.4, label="ours", zorder=4,
                marker="o" if few else None, ms=3.5,
            )  # fmt: skip
            if wide:
                axis.set_yscale("log")
            _frame(axis, name, x_name, wide)
            axis.legend(frameon=False, fontsize=9)
        figure.suptitle(title, x=0.02, ha="left", fontsize=12, color=_INK)
        _write(figure, path)
    return path


def draw_lines(
    lines: Mapping[str, Sequence[tuple[float, float]]], path: Path, title: str, x_name: str
) -> Path:
    """Draws named lines of (x, y) over two logarithmic axes into `path` (.svg or .png) and returns it. The
    same lines give the same bytes."""
    colors = ["#0b6e99", "#d9680f", "#5b8c2a", "#8d4f9e", "#777777"]
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(6.4, 4.2), facecolor="white")
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
        axis = figure.subplots()
        for number, (name, points) in enumerate(lines.items()):
            xs, ys = zip(*points, strict=True)
            dashed = name == "ideal"
            color = "#999999" if dashed else colors[number % len(colors)]
            axis.plot(xs, ys, color=color, lw=1.2 if dashed else 2, ls=":" if dashed else "-", label=name)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        for each in (axis.xaxis, axis.yaxis):
            each.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_xlabel(x_name, color=_INK)
        axis.set_title(title, loc="left", fontsize=11, color=_INK)
        axis.grid(color=_FAINT, lw=0.8)
        axis.tick_params(which="both", colors=_INK, length=0)
        for side in axis.spines.values():
            side.set_visible(False)
        axis.legend(frameon=False, fontsize=9)
        _write(figure, path)
    return path
