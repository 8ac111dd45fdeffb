"""The style of the page of one step, and the script that shows formulas at the pointer."""

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #26251f; --faint: #6f6b60;
  --line: #dedacf; --a: #0b5f85; --d: #b8500a; --plus: #2f7fa6; --minus: #c2452d; --down: #7a4fa3; }
@media (prefers-color-scheme: dark) { :root { --paper: #17181a; --card: #202225; --ink: #e8e6e1;
  --faint: #a09c92; --line: #3a3c40; --a: #6fc3e8; --d: #f2a15f; --plus: #5aaed6; --minus: #e5755d;
  --down: #b48be0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 32px 28px 64px; max-width: 1180px; background: var(--paper);
  color: var(--ink);  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 25px; margin: 0 0 2px; } h2 { font-size: 17px; margin: 34px 0 8px; }
h3 { font-size: 15px; margin: 20px 0 4px; } p { margin: 4px 0; max-width: 100ch; }
.faint { color: var(--faint); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 18px; }
.picture { overflow-x: auto; margin-top: 18px; padding: 8px; }
.picture svg { display: block; margin: 0 auto; max-width: 100%; height: auto; }
.keys { display: flex; flex-wrap: wrap; gap: 6px 22px; margin: 10px 2px; font-size: 13px;
  color: var(--faint); }
.keys b { color: var(--a); } .keys b.d { color: var(--d); } .keys i { font-style: normal; font-weight: 600; }
.keys i.up { color: var(--d); } .keys i.down { color: var(--down); }
.keys i.plus { color: var(--plus); } .keys i.minus { color: var(--minus); }
svg text { font: 13px system-ui, sans-serif; fill: var(--ink); }
svg .head { font-weight: 650; font-size: 14px; } svg .note { fill: var(--faint); font-size: 12px; }
svg .a { fill: var(--a); font-weight: 600; } svg .d, svg .g { fill: var(--d); }
svg .w { font-size: 12px; paint-order: stroke; stroke: var(--card); stroke-width: 5px; }
svg .w, svg .edge text { pointer-events: none; }
svg circle { fill: var(--card); stroke: var(--ink); stroke-width: 1.4; }
svg .weight { stroke-opacity: .55; } svg .weight.plus { stroke: var(--plus); }
svg .weight.minus { stroke: var(--minus); } svg .near { stroke: transparent; stroke-width: 12; }
svg .edge:hover .weight, svg .edge:focus .weight { stroke-opacity: 1; }
svg .unit:hover circle, svg .unit:focus circle { stroke-width: 2.8; } svg g:focus { outline: none; }
svg .cell.plus { fill: var(--plus); } svg .cell.minus { fill: var(--minus); }
svg .deltas .cell.plus { fill: var(--d); } svg .deltas .cell.minus { fill: var(--down); }
svg .cell:hover { stroke: var(--ink); stroke-width: 1.5; }
svg .frame { fill: none; stroke: var(--line); pointer-events: none; }
svg .flow { fill: none; stroke-width: 2; } svg .flow.forward { stroke: var(--a); marker-end: url(#forth); }
svg .flow.backward { stroke: var(--d); marker-end: url(#back); }
svg path.forth { fill: var(--a); } svg path.back { fill: var(--d); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 4px 0; font-size: 14px; }
td, th { padding: 2px 14px 2px 0; text-align: right; white-space: nowrap; }
th { color: var(--faint); font-weight: 500; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; }
.words td { text-align: left; white-space: normal; vertical-align: top; } .wide { overflow-x: auto; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
.formula { color: var(--faint); overflow-wrap: anywhere; }
#tip { position: fixed; display: none; max-width: 560px; padding: 8px 12px; border-radius: 7px; z-index: 2;
  background: var(--ink); color: var(--paper); font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; pointer-events: none; box-shadow: 0 4px 18px #0004; }
"""

# Without the script browsers show the titles themselves, later and smaller.
SCRIPT = """
const tip = document.getElementById("tip"), words = new Map();
for (const title of document.querySelectorAll("svg title")) {
  words.set(title.parentNode, title.textContent); title.remove();
}
function show(target, x, y) {
  const owner = target.closest && target.closest("svg g[tabindex]");
  if (!owner || !words.has(owner)) { tip.style.display = "none"; return; }
  tip.textContent = words.get(owner); tip.style.display = "block";
  tip.style.left = Math.max(8, Math.min(x + 16, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = Math.max(8, Math.min(y + 16, innerHeight - tip.offsetHeight - 8)) + "px";
}
document.addEventListener("mousemove", e => show(e.target, e.clientX, e.clientY));
document.addEventListener("focusin", e => { const b = e.target.getBoundingClientRect();
  show(e.target, b.left + b.width / 2, b.top + b.height / 2); });
"""
