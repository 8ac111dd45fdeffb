// The models that completed jobs left.

import { call } from "../api.js";
import { emptiness, loading, toast, trouble } from "../dialogs.js";
import { fill, h } from "../dom.js";
import { ago, bytes, isNumber, words } from "../format.js";
import { byName, measures } from "../metrics.js";

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
  const values = model.info.metrics ?? {};
  const best = ["test", "validation", "train"].flatMap((split) => [...measures(Object.keys(values)), "loss"].map((name) => `${split}_${name}`));
  const shown = best.filter((name) => isNumber(values[name])).slice(0, 2);
  return h("a", { class: "model-row", role: "listitem", href: `#/models/${model.id}` },
    h("span", {}, h("b", {}, model.name), h("span", { class: "id" }, model.id)),
    shown.map((name) => h("span", { class: "value", data: { label: words(name) } }, byName(name)(values[name]))),
    h("span", { class: "quiet right" }, bytes(model.bytes)),
    h("span", { class: "quiet right" }, ago(model.created_at)));
}
