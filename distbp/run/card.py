"""A job as a small piece of HTML, with its curves as inline SVG. No scripts, and nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from distbp.core.metric_names import measured, spans_decades
from distbp.nn.metrics import less_is_better
from distbp.run.epoch_table import number
from distbp.run.measured import Metrics, is_number

WIDTH, HEIGHT, MARGIN = 360, 120, 6
_MOST_POINTS = 200  # of a curve: one for two pixels
_COLORS = {"train": "#2a78d6", "validation": "#eb6834"}
_STATES = {"completed": "#008300", "failed": "#d03b3b", "cancelled": "#898781", "running": "#2a78d6"}


def card(status: Mapping[str, Any], metrics: Metrics) -> str:
    """A job as HTML: state, progress, last values, curves. status: as `JobHandle.status` returns it."""
    progress = status.get("progress") or {}
    step, total = progress.get("step") or status.get("step") or 0, progress.get("total_steps")
    color = _STATES.get(status["state"], "#898781")
    head = (
        f'<b>{escape(str(status["name"]))}</b> <code style="opacity:.7">{escape(str(status["id"]))}</code>'
        f' <span style="color:{color};font-weight:600">{escape(str(status["state"]))}</span>'
    )
    lines = [f"<div>{head}</div>"]
    if total:
        share = 100.0 * min(step / total, 1.0)
        lines.append(
            '<div style="height:4px;background:#8883;border-radius:2px;margin:6px 0">'
            f'<div style="height:4px;width:{share:.1f}%;background:{color};border-radius:2px"></div></div>'
            f"<div>step {step:,} of {total:,}, attempt {status['attempt']}</div>"
        )
    error = (status.get("error") or {}).get("message") or status.get("reason")
    if error and status["state"] != "completed":
        lines.append(f'<div style="white-space:pre-wrap">{escape(str(error))}</div>')
    unhealthy = (status.get("result") or {}).get("unhealthy") or {}
    lines += [f'<div style="color:#b07000">{escape(str(sentence))}</div>' for sentence in unhealthy.values()]
    curves = [
        picture(metrics, [(f"{split}_{name}", color) for split, color in _COLORS.items()])
        for name in measured(metrics)
    ]
    lines.append(f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(curves)}</div>')
    final = {name: value for name, value in (status.get("metrics") or {}).items() if is_number(value)}
    if final:
        lines.append(
            "<div>"
            + " · ".join(f"{escape(n.replace('_', ' '))} {number(v)}" for n, v in final.items())
            + "</div>"
        )
    style = "font:13px/1.5 system-ui,sans-serif;border:1px solid #8884;border-radius:8px;padding:10px 12px"
    return f'<div style="{style};max-width:780px">{"".join(lines)}</div>'


def picture(metrics: Metrics, curves: Sequence[tuple[str, str]]) -> str:
    """An SVG of some columns, each (name, color), over the steps; "" if none has a value. The axis is
    logarithmic if losses span decades; the label says so."""
    found = [(name, color, _points(metrics, name)) for name, color in curves]
    found = [(name, color, points) for name, color, points in found if points]
    if not found:
        return ""
    values = [y for _, _, points in found for _, y in points]
    bent = all(less_is_better(name) for name, _, _ in found) and spans_decades(values)
    scale = math.log if bent else float
    low, high = scale(min(values)), scale(max(values))
    first = min(points[0][0] for _, _, points in found)
    last = max(points[-1][0] for _, _, points in found)

    def at(x: float, y: float) -> str:
        across = (x - first) / (last - first) if last > first else 0.5
        up = (scale(y) - low) / (high - low) if high > low else 0.5
        return (
            f"{MARGIN + across * (WIDTH - 2 * MARGIN):.1f},{HEIGHT - MARGIN - up * (HEIGHT - 2 * MARGIN):.1f}"
        )

    lines = []
    for _, color, points in found:
        joined = " ".join(at(x, y) for x, y in points)
        if len(points) == 1:
            x, y = at(*points[0]).split(",")
            lines.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{color}"/>')
        else:
            lines.append(f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    axes = "".join(
        f'<text x="{x}" y="{y}" font-size="9" fill="currentColor" opacity=".7" text-anchor="{anchor}">'
        f"{text}</text>"
        for x, y, anchor, text in (
            (MARGIN, MARGIN + 6, "start", number(max(values))),
            (MARGIN, HEIGHT - MARGIN - 8, "start", number(min(values))),
            (MARGIN, HEIGHT + 9, "start", f"step {first:,.0f}"),
            (WIDTH - MARGIN, HEIGHT + 9, "end", f"{last:,.0f}"),
        )
    )
    legend = " ".join(
        f'<span style="color:{color}">&#9644;</span> {escape(name.replace("_", " "))} {number(points[-1][1])}'
        for name, color, points in found
    )
    label = escape(", ".join(name.replace("_", " ") for name, _, _ in found)) + bent * " (logarithmic)"
    return (
        f'<div><svg width="{WIDTH}" height="{HEIGHT + 12}" viewBox="0 0 {WIDTH} {HEIGHT + 12}" role="img"'
        f' aria-label="{label} by step"><rect width="{WIDTH}" height="{HEIGHT}" rx="4" fill="#8881"/>'
        f'{"".join(lines)}{axes}</svg><div style="font-size:12px">{legend}</div></div>'
    )


def _points(metrics: Metrics, name: str) -> list[tuple[float, float]]:
    """(step, value) of each measurement of a column, thinned to about _MOST_POINTS."""
    if name not in metrics or "step" not in metrics:
        return []
    rows = zip(metrics["step"].tolist(), metrics[name].tolist(), strict=True)
    found = [(float(x), float(y)) for x, y in rows if math.isfinite(y)]
    every = max(1, math.ceil(len(found) / _MOST_POINTS))
    return [*found[:-1:every], *found[-1:]]
