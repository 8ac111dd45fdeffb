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

/** The room to the right that labels need, in CSS pixels; at most `most`. */
export function labelRoom(series, context, font, most) {
  context.font = font;
  return Math.min(most, Math.ceil(Math.max(0, ...series.map((one) => context.measureText(one.label).width))) + 14);
}

/** As much of a text as has room, with "…" where some was cut. */
function cut(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let length = text.length;
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
  return `${text.slice(0, length)}…`;
}

export function endLabels(font) {
  return {
    hooks: {
      draw: (u) => {
        const ends = [];
        const rings = [];
        for (let i = 1; i < u.series.length; i += 1) {
          const values = u.data[i];
          let last = values.length - 1;
          while (last >= 0 && values[last] === null) last -= 1;
          if (last < 0 || !u.series[i].show) continue;
          const place = (index) => ({ series: u.series[i], x: u.valToPos(u.data[0][index], "x", true), y: u.valToPos(values[index], "y", true) });
          ends.push(place(last));
          const mark = u.series[i].mark ?? -1;
          if (mark >= 0 && values[mark] !== null) rings.push(place(mark));
        }
        const ratio = devicePixelRatio;
        const { ctx: context, bbox } = u;
        const rows = spread(ends.map((end) => end.y), bbox.top + 6 * ratio, bbox.top + bbox.height - 4 * ratio, GAP * ratio);
        context.save();
        context.font = font.replace(/(\d+)px/, (_, size) => `${size * ratio}px`);
        context.textAlign = "left";
        context.textBaseline = "middle";
        const room = u.width * ratio - (bbox.left + bbox.width) - 8 * ratio;
        for (const ring of rings) {
          context.strokeStyle = ring.series._stroke ?? ring.series.stroke(u);
          context.lineWidth = 1.75 * ratio;
          context.beginPath();
          context.arc(ring.x, ring.y, 5 * ratio, 0, 2 * Math.PI);
          context.stroke();
        }
        ends.forEach((end, index) => {
          context.fillStyle = end.series._stroke ?? end.series.stroke(u);
          context.beginPath();
          context.arc(end.x, end.y, 2.5 * ratio, 0, 2 * Math.PI);
          context.fill();
          context.fillText(cut(context, end.series.label, room), bbox.left + bbox.width + 8 * ratio, rows[index]);
        });
        context.restore();
      },
    },
  };
}
