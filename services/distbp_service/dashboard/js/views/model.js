// One model: what is known of it, and a form that predicts.

import { call } from "../api.js";
import { loading, trouble } from "../dialogs.js";
import { fill, h } from "../dom.js";
import { bytes, isNumber, moment, words } from "../format.js";
import { byName } from "../metrics.js";
import { save } from "../save.js";
import { keys } from "../shortcuts.js";
import { predictForm } from "./predict.js";
import { fileName, useModel } from "./use_model.js";

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
        h("button", { type: "button", onclick: () => save(`/v1/models/${id}/download`, fileName(model.name)) }, "Download"))),
    h("dl", { class: "tiles" },
      Object.entries(model.info.metrics ?? {}).filter(([, value]) => isNumber(value)).map(([name, value]) => h("div", { class: "tile" }, h("dt", {}, words(name)), h("dd", {}, byName(name)(value))))),
    h("div", { class: "model-columns" }, predictForm(id, signal), facts(model)),
    useModel(model, signal),
  );
}

const facts = (model) =>
  h("section", { class: "card" }, h("h2", {}, "About"),
    h("dl", { class: "facts" },
      [["Made", moment(model.created_at)], ["Size", bytes(model.bytes)], ["Parameters, SHA-256", model.info.params_sha256], ["Job, digest", model.info.job_digest]]
        .filter(([, value]) => value)
        .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: /SHA|digest/.test(name) ? "id" : null }, value)))));
