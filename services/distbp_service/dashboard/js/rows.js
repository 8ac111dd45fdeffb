// The rows of a job's metrics, and the curves in them. A step at or below one that is known means that a new
// attempt began there: it replaces that row and all later ones.

import { isNumber } from "./format.js";

export function takeRow(rows, row) {
  while (rows.length && rows.at(-1).step >= row.step) rows.pop();
  rows.push(row);
}

/** Names of plain numbers in the rows, in the order of their first coming. */
export function namesIn(rows) {
  const names = new Set();
  for (const row of rows) {
    for (const [name, value] of Object.entries(row.data)) if (isNumber(value)) names.add(name);
  }
  names.delete("step");
  names.delete("epoch");
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
export function curves(rows, names, epoch) {
  const mark = markOf(rows, epoch);
  return {
    x: rows.map((row) => place(row, "epoch")),
    series: names.map((name) => ({ label: name.split("_")[0], values: column(rows, (data) => data[name]), mark })),
  };
}

/** Jobs side by side: one curve of each over the union of their x. jobs: [{label, color, rows, epoch}]. */
export function beside(jobs, name, over) {
  const tables = jobs.map((job) => {
    const rows = job.rows.filter((row) => isNumber(row.data[name]));
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
