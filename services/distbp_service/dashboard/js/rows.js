// The rows of a job's metrics, and the curves in them. A step at or below one that is known means that a new
// attempt began there: it replaces that row and all later ones. Of a job that trains several networks each has rows
// of its own, with its number as `member`.

import { isNumber } from "./format.js";

export function takeRow(rows, row) {
  const { member } = row.data;
  for (let at = rows.length - 1; at >= 0 && (rows[at].data.member !== member || rows[at].step >= row.step); at -= 1) {
    if (rows[at].data.member === member) rows.splice(at, 1);
  }
  rows.push(row);
}

/** Whether the rows are those of several networks. */
export const areSeveral = (rows) => rows.some((row) => row.data.member > 0);

/** One row for each epoch: of several networks with the means of all, as their model gives the mean of what they say. */
export function joined(rows) {
  if (!areSeveral(rows)) return rows;
  const epochs = new Map();
  for (const row of rows) epochs.set(row.data.epoch, [...(epochs.get(row.data.epoch) ?? []), row]);
  return [...epochs].sort(([a], [b]) => a - b).map(([epoch, found]) => {
    const mean = (name) => {
      const values = found.map((row) => row.data[name]).filter(isNumber);
      return values.reduce((sum, value) => sum + value, 0) / values.length;
    };
    return { step: found[0].step, data: { epoch, ...Object.fromEntries(namesIn(found).map((name) => [name, mean(name)])) } };
  });
}

/** Names of plain numbers in the rows, in the order of their first coming. */
export function namesIn(rows) {
  const names = new Set();
  for (const row of rows) {
    for (const [name, value] of Object.entries(row.data)) if (isNumber(value)) names.add(name);
  }
  names.delete("step");
  names.delete("epoch");
  names.delete("member");
  return [...names];
}

/** x of a row: its epoch where it has one, or its step. */
export const place = (row, over) => (over === "epoch" && isNumber(row.data.epoch) ? row.data.epoch : row.step);

export const column = (rows, pick) => rows.map((row) => pick(row.data) ?? null);

/** The index of the row that a model is of; undefined where nobody knows. */
export function markOf(rows, epoch) {
  const found = isNumber(epoch) ? rows.findIndex((row) => row.data.epoch === epoch) : -1;
  return found < 0 ? undefined : found;
}

/** {x, series} of the curves with these names. epoch: that the model is of, where it is known. */
export function curves(given, names, epoch) {
  const rows = joined(given);
  const mean = areSeveral(given) ? ", mean" : "";
  const mark = markOf(rows, epoch);
  return {
    x: rows.map((row) => place(row, "epoch")),
    series: names.map((name) => ({ label: name.split("_")[0] + mean, values: column(rows, (data) => data[name]), mark })),
  };
}

/** Jobs side by side: one curve of each over the union of their x. jobs: [{label, color, rows, epoch}]. */
export function beside(jobs, name, over) {
  const tables = jobs.map((job) => {
    const rows = joined(job.rows).filter((row) => isNumber(row.data[name]));
    return [rows.map((row) => place(row, over)), rows.map((row) => row.data[name])];
  });
  const filled = tables.map((table) => (table[0].length ? table : [[0], [null]]));
  if (!tables.some((table) => table[0].length)) return { x: [], series: [] };
  const [x, ...columns] = globalThis.uPlot.join(filled);
  const series = jobs.map((job, index) => {
    const at = markOf(job.rows, job.epoch);
    const mark = at === undefined ? undefined : x.indexOf(place(job.rows[at], over));
    return { label: job.label, color: job.color, values: columns[index].map((v) => v ?? null), mark: mark < 0 ? undefined : mark };
  });
  return { x, series };
}
