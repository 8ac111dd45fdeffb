// What a model answered: many rows in a table, one row in full.

import { h } from "../dom.js";
import { count, isNumber, many, number, percent } from "../format.js";

const SHOWN = 100; // rows of a table
const BARS = 10; // classes of one row

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

export const valueText = (value) =>
  isObject(value) ? Object.entries(value).map(([name, one]) => `${name}: ${valueText(one)}`).join(", ") : Array.isArray(value) ? value.map((one) => number(one, 5)).join(", ") : Number.isInteger(value) ? String(value) : isNumber(value) ? number(value, 5) : String(value);

/** [{name, share}] of one row, the likeliest first. chances: one number (of yes), or one for each class. Pure. */
export function sharesOf(chances, classes) {
  const all = Array.isArray(chances) ? chances : [1 - chances, chances];
  const named = all.map((share, index) => ({ name: String(classes?.[index] ?? index), share }));
  return named.sort((a, b) => b.share - a.share);
}

/** The answer for one row, in the words and units of the target. */
export function oneAnswer({ predictions, probabilities }, inputs) {
  const value = predictions[0];
  const chances = probabilities?.[0];
  const head = h("p", { class: "verdict-line" },
    h("span", { class: "quiet" }, inputs.target ?? "Prediction"), h("b", { class: "prediction" }, valueText(value)));
  // Several yes-or-no outputs are not shares of one whole, nor are several outputs.
  if (chances === undefined || isObject(chances) || (inputs.task === "binary" && Array.isArray(chances))) return [head];
  const shares = sharesOf(chances, inputs.classes);
  const rest = shares.length - BARS;
  return [head, h("ul", { class: "shares-of", "aria-label": "Probabilities" }, shares.slice(0, BARS).map(({ name, share }) =>
    h("li", {}, h("span", {}, name), h("meter", { min: 0, max: 1, value: share, "aria-label": name }), h("span", { class: "right" }, percent(share))))),
  rest > 0 ? h("p", { class: "quiet" }, `and ${many(rest, "class").replace(/classs$/, "classes")}`) : null];
}

/** A table of many answers. */
export function manyAnswers({ predictions, probabilities }) {
  const rows = predictions.slice(0, SHOWN).map((value, index) => {
    const given = probabilities?.[index];
    const chances = isObject(given) ? undefined : given;
    const best = Array.isArray(chances) ? Math.max(...chances) : isNumber(chances) ? Math.max(chances, 1 - chances) : undefined;
    const bar = isNumber(best) ? h("meter", { min: 0, max: 1, value: best }) : null;
    return h("tr", {},
      h("td", { class: "right quiet" }, index + 1),
      h("td", {}, h("b", { class: "prediction" }, valueText(value))),
      chances === undefined ? null : h("td", { class: "chance" }, bar, percent(best)));
  });
  const head = h("tr", {}, h("th", { class: "right" }, "Row"), h("th", {}, "Prediction"), probabilities && !isObject(probabilities[0]) ? h("th", {}, "Probability") : null);
  const rest = predictions.length - SHOWN;
  return [h("table", {}, h("thead", {}, head), h("tbody", {}, rows)), rest > 0 ? h("p", { class: "quiet" }, `and ${count(rest)} more rows`) : null];
}

/** What was noticed in the rows, in sentences, after those that are known already. */
export function noticed({ predictions, unseen = {}, ignored = [], ignored_count = 0 }, known = []) {
  const sentences = [...known, ...Object.entries(unseen).map(([name, cells]) =>
    `${name}: ${predictions.length === 1 ? "this level" : `${many(cells, "cell")} with a level that`} has no column of its own in the model (rare in training, or unseen).`)];
  if (ignored_count) {
    const more = ignored_count - 8;
    sentences.push(`Not used by the model: ${ignored.slice(0, 8).join(", ")}${more > 0 ? ` and ${count(more)} more` : ""}.`);
  }
  return sentences.length ? h("ul", { class: "noticed" }, sentences.map((one) => h("li", {}, one))) : null;
}
