// What the names of metrics say: which comes first, which is a share of one, of which less is better.

import { isNumber, number, percent } from "./format.js";
import { joined } from "./rows.js";

const FIRST = ["accuracy", "class_accuracy", "r2", "f1", "auc"]; // as in curves.svg
const SPLIT = /^(train|validation|test)_/;
const WIDE = 30; // times the smallest value: a straight axis would show the start alone

export const measureOf = (name) => name.replace(SPLIT, "");
export const lessIsBetter = (name) => /(loss|mae|rmse|mse)$/.test(name);
export const isShare = (name) => /accuracy|saturated|precision|recall|f1|^(.*_)?top_\d+$/.test(name);

/** How a value with this name is written: shares of one as percent. */
export const byName = (name) => (isShare(name) ? percent : number);

/** What was measured besides the loss, by the names of values; what says most comes first. */
export function measures(names) {
  const found = [...new Set(names.filter((name) => SPLIT.test(name)).map(measureOf))].filter((name) => name !== "loss");
  const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  return found.sort((a, b) => rank(a) - rank(b));
}

/** The value of a metric and the set it was measured on: the validation set where there is one. */
export function held(values, name) {
  const split = ["validation", "train", "test"].find((one) => isNumber(values[`${one}_${name}`]));
  return split ? { split, value: values[`${split}_${name}`] } : { split: "", value: null };
}

/** Whether curves of values above 0 span decades, and need a logarithmic axis. */
export function spansDecades(series) {
  const values = series.flatMap((one) => one.values).filter(isNumber);
  let low = Infinity;
  let high = 0;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low > 0 && high > WIDE * low;
}

/** The best row of `name`: {value, epoch}, or null. */
export function best(rows, name) {
  let found = null;
  for (const { data } of joined(rows)) {
    const value = data[name];
    if (!isNumber(value)) continue;
    if (!found || (lessIsBetter(name) ? value < found.value : value > found.value)) found = { value, epoch: data.epoch };
  }
  return found;
}
