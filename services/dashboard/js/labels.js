// Names of curves at their ends, instead of a legend to look up: a uPlot plugin.

const GAP = 14;

/** Moves labels apart: rising places at least GAP from each other, within [low, high]. Pure. */
export function spread(places, low, high, gap = GAP) {
  const order = places.map((y, index) => ({ y, index })).sort((a, b) => a.y - b.y);
  let floor = low;
  for (const one of order) {
    one.y = Math.max(one.y, floor);
    floor = one.y + gap;
  }
  let ceiling = high;
  for (const one of [...order].reverse()) {
    one.y = Math.min(one.y, ceiling);
    ceiling = one.y - gap;
  }
  const found = new Array(places.length);
  for (const one of order) found[one.index] = one.y;
  return found;
}

/** The room to the right that labels need, in CSS pixels. */
export function labelRoom(series, context, font) {
  context.font = font;
  return Math.ceil(Math.max(0, ...series.map((one) => context.measureText(one.label).width))) + 14;
}

export function endLabels(font) {
  return {
    hooks: {
      draw: (u) => {
        const ends = [];
        for (let i = 1; i < u.series.length; i += 1) {
          const values = u.data[i];
          let last = values.length - 1;
          while (last >= 0 && values[last] === null) last -= 1;
          if (last < 0 || !u.series[i].show) continue;
          ends.push({ series: u.series[i], x: u.valToPos(u.data[0][last], "x", true), y: u.valToPos(values[last], "y", true) });
        }
        const ratio = devicePixelRatio;
        const { ctx: context, bbox } = u;
        const rows = spread(ends.map((end) => end.y), bbox.top + 6 * ratio, bbox.top + bbox.height - 4 * ratio, GAP * ratio);
        context.save();
        context.font = font.replace(/(\d+)px/, (_, size) => `${size * ratio}px`);
        context.textAlign = "left";
        context.textBaseline = "middle";
        ends.forEach((end, index) => {
          context.fillStyle = end.series._stroke ?? end.series.stroke(u);
          context.beginPath();
          context.arc(end.x, end.y, 2.5 * ratio, 0, 2 * Math.PI);
          context.fill();
          context.fillText(end.series.label, bbox.left + bbox.width + 8 * ratio, rows[index]);
        });
        context.restore();
      },
    },
  };
}
