"""The pictures of docs/learn.md."""

from __future__ import annotations

from tools.learn_pictures import charts, equations, one_step, shards, unrolled, window

PICTURES = {
    "one-step": one_step.draw,
    "four-equations": equations.draw,
    "shards": shards.draw,
    "slow-unit": charts.slow_unit,
    "vanishing": charts.vanishing,
    "window": window.draw,
    "unrolled": unrolled.draw,
}
