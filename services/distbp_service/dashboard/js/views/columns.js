// One field for a column of a table: a number, a level, a date, or yes and no. Left empty, the cell is missing.

import { h } from "../dom.js";
import { isNumber, plain } from "../format.js";

const OTHER = "\0other"; // no level of a table holds this

let made = 0;

/** {element, read(), fill(value)}; `read` gives {value} (null: missing), {note} beside it, or {error}. */
export function columnField(column) {
  const id = `column-${(made += 1)}`;
  const hint = hintOf(column);
  const part = PARTS[column.kind]?.(column, id, hint ? `${id}-hint` : null) ?? textPart(column, id, null);
  const element = h("div", { class: "field-of" },
    h("label", { for: id }, column.name), part.element, hint ? h("p", { class: "hint", id: `${id}-hint` }, hint) : null);
  return { name: column.name, element, read: part.read, fill: part.fill, focus: () => part.input.focus() };
}

/** What training saw of a column of numbers. */
export function rangeOf({ low, high, deviation, missing }) {
  if (isNumber(low) && isNumber(high)) return `${plain(low)} to ${plain(high)}`;
  return isNumber(deviation) ? `${plain(missing)} ± ${plain(deviation)}` : "";
}

function hintOf(column) {
  const { kind, levels, missing } = column;
  const range = rangeOf(column);
  if (kind === "number") return [range && `${range} in training`, isNumber(missing) && `empty counts as ${plain(missing)}`].filter(Boolean).join("; ");
  if (kind === "category" && !levels) return "any text";
  return "";
}

function numberPart(column, id, hint) {
  const input = h("input", { type: "number", step: "any", id, "aria-describedby": hint });
  const outside = (value) => isNumber(column.low) && isNumber(column.high) && (value < column.low || value > column.high);
  return {
    element: input, input,
    fill: (value) => (input.value = value ?? ""),
    read: () => {
      if (input.validity.badInput) return { error: `${column.name}: this is not a number.` };
      if (input.value === "") return { value: null };
      const value = Number(input.value);
      return outside(value) ? { value, note: `${column.name}: training saw ${plain(column.low)} to ${plain(column.high)} only.` } : { value };
    },
  };
}

function datePart(column, id, hint) {
  const input = h("input", { type: column.timed ? "datetime-local" : "date", id, "aria-describedby": hint });
  return {
    element: input, input,
    fill: (value) => (input.value = (value ?? "").replace(" ", "T")),
    read: () => (input.validity.badInput ? { error: `${column.name}: this is not a whole date.` } : { value: input.value.replace("T", " ") || null }),
  };
}

function textPart(column, id, hint) {
  const input = h("input", { type: "text", id, "aria-describedby": hint });
  return { element: input, input, fill: (value) => (input.value = value ?? ""), read: () => ({ value: input.value || null }) };
}

function levelPart(column, id, hint) {
  if (!column.levels) return textPart(column, id, hint);
  const yesNo = column.kind === "boolean";
  const input = h("select", { id, "aria-describedby": hint },
    column.levels.map((level) => h("option", { value: level }, level)),
    h("option", { value: "" }, "missing"),
    yesNo ? null : h("option", { value: OTHER }, "another …"));
  const other = h("input", { type: "text", "aria-label": `${column.name}, another level`, hidden: true });
  const show = () => (other.hidden = input.value !== OTHER);
  input.addEventListener("change", () => {
    show();
    if (!other.hidden) other.focus();
  });
  return {
    element: yesNo ? input : h("div", { class: "level" }, input, other), input,
    fill: (value) => {
      input.value = value ?? "";
      show();
    },
    read: () => ({ value: (input.value === OTHER ? other.value : input.value) || null }),
  };
}

const PARTS = { number: numberPart, date: datePart, category: levelPart, boolean: levelPart };
