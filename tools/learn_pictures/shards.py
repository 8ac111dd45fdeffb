"""A batch of ten rows in four shards, whose sums are joined in a fixed tree, and who computes them."""

from __future__ import annotations

from tools.learn_pictures.shapes import BLUE, ORANGE, box, line, svg, word

SIZES = (3, 3, 2, 2)
LEFT, CELL, GAP = 70, 30, 40


def draw() -> str:
    parts, middles, x = [], [], float(LEFT)
    parts.append(word(14, 60, "rows", "gray left small"))
    parts.append(word(14, 128, "sums", "gray left small"))
    for number, size in enumerate(SIZES):
        for row in range(size):
            parts.append(box(x + CELL * row, 42, CELL - 4, 28, "unit", 3))
        middle = x + (CELL * size - 4) / 2
        middles.append(middle)
        parts.append(word(middle, 30, f"shard {number}", "small"))
        parts.append(line(middle, 72, middle, 104))
        parts.append(box(middle - 34, 106, 68, 32, "warm") + word(middle, 127, f"Σ of {size}", "small"))
        x += CELL * size + GAP
    pairs = [(middles[0] + middles[1]) / 2, (middles[2] + middles[3]) / 2]
    for place, pair in enumerate(pairs):
        for child in middles[2 * place : 2 * place + 2]:
            parts.append(line(child, 138, pair + (child - pair) * 0.3, 172))
        parts.append(box(pair - 18, 174, 36, 30, "warm") + word(pair, 195, "+"))
    root = sum(pairs) / 2
    for pair in pairs:
        parts.append(line(pair, 204, root + (pair - root) * 0.15, 236))
    parts.append(box(root - 18, 238, 36, 30, "warm") + word(root, 259, "+"))
    parts.append(line(root, 268, root, 294))
    parts.append(box(root - 110, 296, 220, 34) + word(root, 318, "÷ 10 rows, then one update"))
    groups = (("2 workers", (2, 2), BLUE, 352), ("3 workers", (1, 2, 1), ORANGE, 384))
    for name, counts, color, y in groups:
        parts.append(word(14, y + 5, name, "gray left small"))
        first = 0
        for count in counts:
            begin, end = middles[first] - 32, middles[first + count - 1] + 32
            parts.append(
                f'<line x1="{begin:g}" y1="{y}" x2="{end:g}" y2="{y}" stroke-width="6"'
                f' stroke-linecap="round" style="stroke:{color};stroke-width:6"/>'
            )
            first += count
    title = "Ten rows in four shards: their sums are joined pair by pair, then divided by ten"
    return svg(x - GAP + 40, 408, title, parts)
