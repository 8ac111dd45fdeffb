// Predicting with a model: a field for each column of a table, or rows of numbers as text, or a picture.

import { call, post } from "../api.js";
import { loading, trouble } from "../dialogs.js";
import { fill, h, say } from "../dom.js";
import { many } from "../format.js";
import { readRows } from "../read_rows.js";
import { manyAnswers, noticed, oneAnswer } from "./answers.js";
import { columnField } from "./columns.js";

const FIELDS = 200; // more columns are rows of a file, and no form

/** An element that becomes the form of a model. */
export function predictForm(id, signal) {
  const element = h("section", { class: "card predict", "aria-label": "Predict" }, loading("Looking at what the model takes"));
  const load = async () => {
    try {
      const inputs = await call(`/v1/models/${id}/inputs`, { signal });
      fill(element, h("h2", {}, "Predict"), inputs.is_table ? tableForm(id, inputs, signal) : rowsForm(id, inputs, signal));
    } catch (error) {
      if (!signal.aborted) fill(element, trouble(error, load));
    }
  };
  load();
  return element;
}

/** A model of values has no probabilities; one that turns out to have none says so: then they are left out. */
async function ask(id, inputs, rows) {
  const path = `/v1/models/${id}:predict`;
  const wanted = inputs.task !== "regression";
  const send = (probabilities) =>
    rows instanceof Blob
      ? call(`${path}?probabilities=${probabilities}`, { method: "POST", body: rows, type: rows.type.startsWith("image/") ? rows.type : "text/csv" })
      : post(path, { inputs: rows, probabilities });
  try {
    return await send(wanted);
  } catch (error) {
    if (!wanted || ![409, 422].includes(error.status)) throw error;
    return send(false);
  }
}

function tableForm(id, inputs, signal) {
  const fields = (inputs.columns?.length ?? Infinity) <= FIELDS ? inputs.columns.map(columnField) : [];
  const examples = new Map((inputs.columns ?? []).map((column) => [column.name, column.example]));
  const refill = () => fields.forEach((field) => field.fill(examples.get(field.name)));
  const parts = answering(id, inputs, signal);
  const file = filePicker(".csv,.tsv,.txt", "Rows of CSV from a file", "Rows from a CSV file", (found) => parts.run(found));
  const form = h("form", { novalidate: true },
    fields.length ? null : h("p", { class: "quiet" }, inputs.rows > 1
      ? `One prediction is of ${inputs.rows} rows that follow each other: give a CSV file with the names of the columns in its first line.`
      : "The table has too many columns for a form: give a CSV file with their names in its first line."),
    h("div", { class: "fields" }, fields.map((field) => field.element)),
    h("div", { class: "row" },
      fields.length ? parts.go : null,
      fields.length ? h("button", { type: "button", onclick: refill }, "Example") : null,
      file),
    parts.fault, parts.answer);
  refill();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const row = {};
    const notes = [];
    for (const field of fields) {
      const { value, note, error } = field.read();
      if (error) {
        say(parts.fault, error);
        return field.focus();
      }
      if (note) notes.push(note);
      row[field.name] = value;
    }
    return parts.run([row], notes);
  });
  return form;
}

const size = (shape) => shape.reduce((a, b) => a * b, 1);

/** What a row of one input holds, in words. */
function held({ shape, steps }) {
  if (steps === "all") return shape.length > 1 ? `${shape.join(" × ")} numbers` : many(size(shape), "number");
  const of = shape.length > 1 ? ` of ${many(size(shape.slice(1)), "number")}` : "";
  return `${steps === "any" ? "any number of steps" : `up to ${many(shape[0], "step")}`}${of}`;
}

/** A row of numbers in the shape that the model takes; what has that shape already, as it is. */
function shaped(row, shape) {
  if (shape.length === 1 || !Array.isArray(row) || row.some(Array.isArray) || row.length !== size(shape)) return row;
  const [first, ...rest] = shape;
  return Array.from({ length: first }, (_, at) => shaped(row.slice(at * size(rest), (at + 1) * size(rest)), rest));
}

/** How rows are written, and an example. */
function asked({ parts, shape }) {
  if (parts[0].name !== null)
    return {
      help: `A row is JSON with a value for each input: ${parts.map((part) => `${part.name} (${held(part)})`).join(", ")}. Several rows are a list.`,
      example: `{${parts.map((part) => `${JSON.stringify(part.name)}: ${"[".repeat(part.shape.length)}…${"]".repeat(part.shape.length)}`).join(", ")}}`,
    };
  if (parts[0].steps === "all")
    return {
      help: `One row a line, ${many(size(shape), "number")} between commas or spaces; or JSON. As they were before training scaled them.`,
      example: "0, 0, 5, 13, 9, 1, …",
    };
  if (shape.length === 1) return { help: `One row a line, or JSON: ${held(parts[0])}.`, example: "3, 14, 15, …" };
  return { help: `JSON, a list of rows. A row is a list of ${held(parts[0])}.`, example: "[[[0, 1], [5, 2], …], …]" };
}

function rowsForm(id, inputs, signal) {
  const { help, example } = asked(inputs);
  const text = h("textarea", { id: "rows", rows: 6, spellcheck: "false", required: true, "aria-describedby": "rows-help", placeholder: example });
  const parts = answering(id, inputs, signal);
  const file = filePicker(".csv,.json,.txt", "Rows from a file", "From a file", async (found) => (text.value = await found.text()));
  const [channels, ...sizes] = inputs.shape;
  const picture = inputs.parts[0].name === null && sizes.length === 2 && [1, 3].includes(channels)
    ? filePicker("image/png,image/jpeg", "A picture from a file", "From a picture", (found) => parts.run(found))
    : null;
  const form = h("form", { novalidate: true },
    h("label", { for: "rows" }, "Rows of inputs"),
    text,
    h("p", { class: "quiet", id: "rows-help" }, help),
    h("div", { class: "row" }, parts.go, file, picture),
    parts.fault, parts.answer);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const { rows, error } = readRows(text.value, inputs.parts[0].steps !== "all");
    say(parts.fault, error ?? "");
    if (error) return text.focus();
    const plain = inputs.parts[0].name === null && inputs.parts[0].steps === "all";
    return parts.run(plain ? rows.map((row) => shaped(row, inputs.shape)) : rows);
  });
  return form;
}

/** The button, the fault, the answer, and `run(rows, notes)`, which asks and shows. rows: mappings, lists of numbers, or
 *  a file of CSV, or a picture. */
function answering(id, inputs, signal) {
  const go = h("button", { class: "main" }, "Predict");
  const fault = h("p", { class: "fault", role: "alert" });
  const answer = h("div", { class: "answer", role: "status", "aria-live": "polite" });
  async function run(rows, notes = []) {
    say(fault, "");
    go.disabled = true;
    try {
      const found = await ask(id, inputs, rows);
      const one = inputs.is_table && found.predictions.length === 1;
      if (!signal.aborted) fill(answer, one ? oneAnswer(found, inputs) : manyAnswers(found), noticed(found, notes));
    } catch (problem) {
      if (!signal.aborted) {
        fill(answer);
        say(fault, problem.message);
      }
    }
    go.disabled = false;
  }
  return { go, fault, answer, run };
}

function filePicker(accept, label, text, take) {
  const file = h("input", { type: "file", accept, "aria-label": label, class: "unseen", tabindex: "-1" });
  file.addEventListener("change", async () => {
    const found = file.files[0];
    if (found) await take(found);
    file.value = "";
  });
  return [h("button", { type: "button", onclick: () => file.click() }, text), file];
}
