"""Results as Markdown, and their places in docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.peers import Peer
from benchmarks.rows import AnyRow

TEMPLATE = Path(__file__).with_name("template.md")


@dataclass(frozen=True)
class Results:
    """`rates[row name][peer name]`: samples/s, one for each round. `absent[peer name]`: why it has none."""

    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


def markdown(rows: Sequence[AnyRow], peers: Sequence[Peer], results: Results) -> str:
    """One line for each row: median samples/s of every peer, and our first ratio to the best of the others.

    A peer without a number stands in the table all the same, and the reason stands below it.
    """
    header = ["net, batch", *(peer.name for peer in peers), "ratio to the best peer"]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    for row in rows:
        medians = medians_of(row, results)
        cells = [_cell(medians, peer, results.absent.get(peer.name, "")) for peer in peers]
        lines.append([row.label, *cells, _ratio(medians, peers)])
    text = _table(lines)
    if results.absent:
        text += "\n" + "\n".join(f"- **{name}** {why}" for name, why in results.absent.items()) + "\n"
    return text


def medians_of(row: AnyRow, results: Results) -> dict[str, float]:
    """Median samples/s of a row by peer name, of those that have any."""
    return {name: median(values) for name, values in results.rates.get(row.name, {}).items() if values}


def multiples(rows: Sequence[AnyRow], peers: Sequence[Peer], results: Results) -> str:
    """Our first variant's median as a multiple of each other column's."""
    ours, *others = [peer.name for peer in peers]
    lines = [[f"{ours} / ...", *others], ["---"] + ["---:"] * len(others)]
    for row in rows:
        found = medians_of(row, results)
        lines.append(
            [row.label]
            + [f"{found[ours] / found[n]:.2f}" if ours in found and n in found else "-" for n in others]
        )
    return _table(lines)


def spread(rows: Sequence[AnyRow], peers: Sequence[Peer], results: Results) -> str:
    """The same table with the lowest and highest round of each peer in place of the median."""
    header = ["net, batch", *(peer.name for peer in peers)]
    lines = [header, ["---"] + ["---:"] * len(peers)]
    for row in rows:
        rates = results.rates.get(row.name, {})
        lines.append(
            [row.label]
            + [
                f"{_number(min(rates[p.name]))}-{_number(max(rates[p.name]))}" if rates.get(p.name) else "-"
                for p in peers
            ]
        )
    return _table(lines)


def replace_section(path: Path, name: str, text: str) -> None:
    """Puts `text` between the markers of section `name`; a missing file starts as the template."""
    page = (path if path.exists() else TEMPLATE).read_text()
    marker = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    page, count = marker.subn(lambda found: f"{found[1]}{text.strip()}\n{found[2]}", page)
    if count != 1:
        raise SystemExit(
            f"{path}: expected one pair of markers '{name}:begin' and '{name}:end', found {count}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cell(medians: Mapping[str, float], peer: Peer, absent: str) -> str:
    if peer.name not in medians:
        return ("failed" if absent.startswith("failed") else "missing") if absent else "-"
    best = max(medians.values())
    number = _number(medians[peer.name])
    return f"**{number}**" if medians[peer.name] == best else number


def _ratio(medians: Mapping[str, float], peers: Sequence[Peer]) -> str:
    ours = [medians[p.name] for p in peers if p.ours and p.name in medians]
    others = {p.name: medians[p.name] for p in peers if not p.ours and p.name in medians}
    if not ours or not others:
        return "-"
    best = max(others, key=others.__getitem__)
    return f"{ours[0] / others[best]:.2f} ({best})"


def _number(rate: float) -> str:
    digits = 3 if rate < 10_000 else 4
    shown = float(f"{rate:.{digits - 1}e}")
    return f"{shown:,.0f}"
