// One chart: a title, what the curves say at the cursor (or at their end), and the curves, each with its name
// at its end. Its height is set by the style sheet and never changes.

import { color, onThemeChange, seriesColor } from "./colors.js";
import { eachFrame, fill, h } from "./dom.js";
import { isNumber, number, percent } from "./format.js";
import { endLabels, labelRoom } from "./labels.js";
import { spansDecades } from "./metrics.js";

// Steps and epochs are whole numbers.
const WHOLE = Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((one) => one * 10 ** power)).flat();
const FONT = "12px system-ui, sans-serif";

/**
 * A chart's element and `show({x, series})`. x: rising numbers; series: [{label, values, color?, dash?, mark?}] with
 * null where there is no value; mark: the index that the model is of, with a ring. options: title, unit of x (`over`),
 * `share` (values are shares of one), `log` ("auto": where values span decades), `toggle` (a button for it), `digits`
 * of values, `empty` (what to say when there is nothing).
 */
export function chart({ title, over = "epoch", share = false, log = false, toggle = false, digits = 4, empty = "No values yet." }, signal) {
  const value = (one) => (share ? percent : number)(one, digits);
  const readout = h("div", { class: "readout" });
  const plot = h("div", { class: "plot", tabindex: "0", role: "img" });
  const none = h("p", { class: "plot-empty" }, empty);
  const scale = h("button", { class: "plain small", type: "button", title: "Logarithmic axis" }, "log");
  let chosen = null; // by whoever looks
  const element = h(
    "figure",
    { class: "chart" },
    h("figcaption", {}, h("h3", {}, title), toggle ? scale : null, readout),
    h("div", { class: "plot-box" }, plot, none),
  );
  let made = null;
  let kind = "";
  let now = { x: [], series: [] };

  const isLog = () => chosen ?? (log === "auto" ? spansDecades(now.series) : log);
  const has = () => now.x.length > 0 && now.series.length > 0;
  const build = () => {
    made?.destroy();
    made = null;
    if (!has() || plot.clientWidth === 0) return;
    made = new globalThis.uPlot(options(), data(), plot);
    read();
  };
  const data = () => [now.x, ...now.series.map((one) => (isLog() ? one.values.map((v) => (v > 0 ? v : null)) : one.values))];

  function options() {
    const bent = isLog();
    const context = document.createElement("canvas").getContext("2d");
    const grid = { stroke: color("grid"), width: 1 };
    const axis = { stroke: color("muted"), font: FONT, grid, ticks: { show: false } };
    return {
      width: plot.clientWidth,
      height: plot.clientHeight,
      padding: [8, labelRoom(now.series, context, FONT, 0.34 * plot.clientWidth), 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false }, points: { size: 7 } },
      scales: { x: { time: false }, y: bent ? { distr: 3, range: (u, low, high) => (isNumber(low) ? [low / 1.25, high * 1.25] : [0.1, 1]) } : { range: near(share) } },
      axes: [
        { ...axis, size: 24, label: over, labelSize: 16, labelFont: FONT, labelGap: 0, grid: { show: false }, space: 40, incrs: WHOLE, values: (_, ticks) => ticks.map(short) },
        {
          ...axis,
          size: 52,
          space: 28,
          values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : share ? `${+(100 * tick).toFixed(1)} %` : short(tick))),
          ...(bent ? { splits: (u, axis, low, high) => roundTicks(low, high), filter: all, grid: { ...grid, filter: all } } : {}),
        },
      ],
      series: [
        {},
        ...now.series.map((one, index) => ({
          label: one.label,
          stroke: one.color ?? seriesColor(index),
          width: 1.75,
          dash: one.dash,
          mark: one.mark,
          spanGaps: true,
          points: { show: now.x.length < 2 },
        })),
      ],
      plugins: [endLabels(FONT)],
      hooks: { setCursor: [read] },
    };
  }

  function read() {
    const at = made?.cursor.idx ?? null;
    // At rest each curve says the model's value, or its last; where these lie apart, no one place is theirs. What has
    // no room wraps out of sight, the last first.
    const rest = now.series.map((one) => one.mark ?? one.values.findLastIndex(isNumber));
    const index = at ?? (rest.every((one) => one === rest[0]) ? rest[0] : -1);
    const named = now.series.length <= 2 && plot.clientWidth > 340;
    const spots = now.series.map((one, i) => {
      const dot = h("i", { class: "dot" });
      dot.style.background = one.color ?? seriesColor(i);
      return h("span", {}, dot, named ? `${one.label} ` : null, value(one.values[at ?? rest[i]]));
    });
    const model = at === null && now.series.some((one) => one.mark !== undefined) ? ", the model" : "";
    fill(readout, spots, index >= 0 ? h("b", {}, `${over} ${short(now.x[index])}${model}`) : null);
    const told = now.series.map((one, i) => `${one.label} ${value(one.values[rest[i]])}`).join(", ");
    const place = short(index >= 0 ? now.x[index] : now.x.at(-1));
    plot.setAttribute("aria-label", has() ? `${title}, ${over} ${place}${model}: ${told}` : `${title}: ${empty}`);
  }

  const draw = eachFrame(() => {
    if (signal.aborted) return;
    none.hidden = has();
    scale.setAttribute("aria-pressed", String(isLog()));
    const wanted = JSON.stringify([isLog(), now.series.map((one) => [one.label, one.color, one.dash, one.mark]), now.x.length < 2]);
    if (made === null || wanted !== kind) {
      kind = wanted;
      build();
    } else if (has()) {
      made.setData(data());
    } else build();
    read();
  });

  scale.addEventListener("click", () => {
    chosen = !isLog();
    draw();
  });
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || made === null) return;
    event.preventDefault();
    const index = Math.min(now.x.length - 1, Math.max(0, (made.cursor.idx ?? now.x.length) + step));
    made.setCursor({ left: made.valToPos(now.x[index], "x"), top: 10 });
  });
  const sized = new ResizeObserver(() => {
    if (made === null) draw();
    else made.setSize({ width: plot.clientWidth, height: plot.clientHeight });
  });
  sized.observe(plot);
  onThemeChange(() => ((kind = ""), draw()), signal);
  signal.addEventListener("abort", () => (sized.disconnect(), made?.destroy()));
  draw();

  return { element, show: (next) => ((now = next), draw()) };
}

const short = (value) => {
  if (!isNumber(value)) return "";
  const size = Math.abs(value);
  if (size >= 1e9) return value.toExponential(1).replace("e+", "e"); // a run that diverges
  if (size >= 1e6) return `${+(value / 1e6).toFixed(2)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toFixed(1)}k`;
  return size !== 0 && size < 1e-3 ? value.toExponential(0) : String(+value.toPrecision(4));
};

const near = (share) => (u, low, high) => {
  if (!isNumber(low)) return [0, 1];
  const room = Math.max(0.06 * (high - low), share ? 0.005 : 1e-3 * Math.abs(high), 1e-12);
  return [low < 0 ? low - room : Math.max(0, low - room), share ? Math.min(1, high + room) : high + room];
};

const all = (_, ticks) => ticks;

// Of a logarithmic axis: powers of ten, with more between them the fewer it spans. (uPlot's own expects limits
// that are powers of ten, and does not end with others.)
function roundTicks(low, high) {
  const decades = Math.log10(high / low);
  const between = decades < 0.8 ? [1, 2, 3, 4, 5, 7] : decades < 3 ? [1, 2, 5] : [1];
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power += 1) {
    found.push(...between.map((one) => one * 10 ** power).filter((tick) => tick >= low && tick <= high));
  }
  return found;
}
