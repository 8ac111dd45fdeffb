"""Draws the pictures of docs/learn.md: python -m tools.learn_pictures"""

from __future__ import annotations

from pathlib import Path

from tools.learn_pictures import PICTURES

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (Path(__file__).parents[2] / "docs" / "images" / f"{name}.svg").write_text(draw(), "utf-8")
