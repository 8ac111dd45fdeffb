// The models that completed jobs left.

import { call } from "../api.js";
import { emptiness, loading, toast, trouble } from "../dialogs.js";
import { fill, h } from "../dom.js";
import { ago, byName, bytes } from "../format.js";

export async function modelsView(root, { signal }) {
  const body = h("div", { class: "models", role: "list" });
  const further = h("button", { type: "button", class: "further", hidden: true }, "Show older models");
  let cursor = null;
  root.append(h("div", { class: "page-head" }, h("h1", {}, "Models")));
  const wait = loading("Loading models");
  root.append(wait);

  async function load() {
    try {
      const page = await call(`/v1/models?limit=50${cursor ? `&cursor=${cursor}` : ""}`, { signal });
      wait.remove();
      cursor = page.cursor;
      further.hidden = cursor === null;
      body.append(...page.items.map(row));
      if (!body.children.length) fill(body, emptiness("No models yet", h("p", { class: "quiet" }, "A job that completes leaves one.")));
      root.append(body, further);
    } catch (error) {
      if (signal.aborted) return;
      if (body.children.length) toast(error.message, "bad");
      else fill(root, trouble(error, () => modelsView(fill(root), { signal })));
    }
  }
  further.addEventListener("click", load);
  await load();
}

function row(model) {
  const shown = Object.entries(model.info.metrics ?? {}).filter(([name]) => /^(test|validation)_(accuracy|loss)$/.test(name)).sort(([a], [b]) => rank(a) - rank(b)).slice(0, 2);
  return h("a", { class: "model-row", role: "listitem", href: `#/models/${model.id}` },
    h("span", {}, h("b", {}, model.name), h("span", { class: "id" }, model.id)),
    shown.map(([name, value]) => h("span", { class: "value", data: { label: name.replaceAll("_", " ") } }, byName(name)(value))),
    h("span", { class: "quiet right" }, bytes(model.bytes)),
    h("span", { class: "quiet right" }, ago(model.created_at)));
}

const rank = (name) => ["test_accuracy", "validation_accuracy", "test_loss", "validation_loss"].indexOf(name);
