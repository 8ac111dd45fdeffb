// One model: what is known of it, and a form that predicts.

import { call, post } from "../api.js";
import { loading, trouble } from "../dialogs.js";
import { fill, h, say } from "../dom.js";
import { bytes, count, isNumber, moment, number, percent, words } from "../format.js";
import { byName } from "../metrics.js";
import { readRows } from "../read_rows.js";
import { save } from "../save.js";
import { keys } from "../shortcuts.js";

const SHOWN = 100; // rows of the answer

export async function modelView(root, { id, signal, go }) {
  fill(root, loading("Loading the model"));
  let model;
  try {
    model = await call(`/v1/models/${id}`, { signal });
  } catch (error) {
    if (!signal.aborted) fill(root, trouble(error, null, ["#/models", "All models"]));
    return;
  }
  document.title = `${model.name} · distbp`;
  keys({ Escape: ["Back to all models", () => go("/models")] }, signal);
  fill(
    root,
    h("div", { class: "page-head" },
      h("div", {}, h("h1", {}, model.name), h("p", { class: "under" }, h("span", { class: "id" }, model.id))),
      h("div", { class: "row actions" },
        h("a", { class: "button", href: `#/jobs/${model.job_id}` }, "Its job"),
        h("button", { type: "button", onclick: () => save(`/v1/models/${id}/download`, `${model.name}.tar`) }, "Download"))),
    h("dl", { class: "tiles" },
      Object.entries(model.info.metrics ?? {}).filter(([, value]) => isNumber(value)).map(([name, value]) => h("div", { class: "tile" }, h("dt", {}, words(name)), h("dd", {}, byName(name)(value))))),
    h("div", { class: "model-columns" }, form(model, signal), facts(model)),
  );
}

const facts = (model) =>
  h("section", { class: "card" }, h("h2", {}, "About"),
    h("dl", { class: "facts" },
      [["Made", moment(model.created_at)], ["Size", bytes(model.bytes)], ["Parameters, SHA-256", model.info.params_sha256], ["Job, digest", model.info.job_digest]]
        .filter(([, value]) => value)
        .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: /SHA|digest/.test(name) ? "id" : null }, value)))));

function form(model, signal) {
  const input = h("textarea", { id: "rows", rows: 6, spellcheck: "false", required: true, "aria-describedby": "rows-help rows-fault", placeholder: "0, 0, 5, 13, 9, 1, …" });
  const file = h("input", { type: "file", accept: ".csv,.json,.txt", "aria-label": "Rows from a file", class: "unseen", tabindex: "-1" });
  const pick = h("button", { type: "button", onclick: () => file.click() }, "From a file");
  const likely = h("input", { type: "checkbox", checked: true });
  const fault = h("p", { class: "fault", id: "rows-fault", role: "alert" });
  const go = h("button", { class: "main" }, "Predict");
  const answer = h("div", { class: "answer", role: "status", "aria-live": "polite" });
  const element = h("form", { class: "card predict", novalidate: true },
    h("h2", {}, "Predict"),
    h("label", { for: "rows" }, "Rows of inputs"),
    input,
    h("p", { class: "quiet", id: "rows-help" }, "One row a line, numbers between commas or spaces; or JSON. As they were before training scaled them."),
    h("div", { class: "row" }, go, pick, file, h("label", { class: "check" }, likely, "Probabilities")),
    fault, answer);
  file.addEventListener("change", async () => {
    if (file.files[0]) input.value = await file.files[0].text();
    file.value = "";
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element.requestSubmit();
  });
  element.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { rows, error } = readRows(input.value);
    say(fault, error ?? "");
    if (error) return input.focus();
    go.disabled = true;
    try {
      const found = await ask(model.id, rows, likely.checked);
      if (!signal.aborted) fill(answer, results(found));
    } catch (problem) {
      if (!signal.aborted) say(fault, problem.message);
    }
    go.disabled = false;
    return undefined;
  });
  return element;
}

/** A model of values has no probabilities and says so: then they are left out. */
async function ask(id, inputs, probabilities) {
  const path = `/v1/models/${id}:predict`;
  try {
    return await post(path, { inputs, probabilities });
  } catch (error) {
    if (!probabilities || ![409, 422].includes(error.status)) throw error;
    return post(path, { inputs, probabilities: false });
  }
}

function results({ predictions, probabilities }) {
  const rows = predictions.slice(0, SHOWN).map((value, index) => {
    const chances = probabilities?.[index];
    const best = Array.isArray(chances) ? Math.max(...chances) : chances;
    const bar = isNumber(best) ? h("meter", { min: 0, max: 1, value: best }) : null;
    return h("tr", {},
      h("td", { class: "right quiet" }, index + 1),
      h("td", {}, h("b", { class: "prediction" }, Array.isArray(value) ? value.map(number).join(", ") : Number.isInteger(value) ? String(value) : isNumber(value) ? number(value) : String(value))),
      chances === undefined ? null : h("td", { class: "chance" }, bar, percent(best)));
  });
  const head = h("tr", {}, h("th", { class: "right" }, "Row"), h("th", {}, "Prediction"), probabilities ? h("th", {}, "Probability") : null);
  const rest = predictions.length - SHOWN;
  return [h("table", {}, h("thead", {}, head), h("tbody", {}, rows)), rest > 0 ? h("p", { class: "quiet" }, `and ${count(rest)} more rows`) : null];
}
