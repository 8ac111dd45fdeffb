// A model elsewhere: one file, and the three lines of Python that use it.

import { call } from "../api.js";
import { copyButton } from "../copy.js";
import { h } from "../dom.js";
import { save } from "../save.js";

/** A name for a file, as every system takes it. */
export const fileName = (name) => `${name.replace(/[^\w.-]+/g, "-").replace(/^[-.]+/, "") || "model"}.tar`;

const literal = (value) => (value === null || value === undefined ? "None" : JSON.stringify(value));

/** The lines, for a model's file. inputs: what the model takes. */
export function lines(file, inputs) {
  const row = inputs?.columns?.map(({ name, example }) => `${JSON.stringify(name)}: ${literal(example)}`);
  const named = inputs?.parts?.filter((part) => part.name !== null) ?? [];
  const rows = named.length ? `a mapping of ${named.map((part) => part.name).join(", ")}` : `rows of shape (n, ${inputs?.shape?.join(", ") ?? "..."})`;
  const given = row ? `{${row.join(", ")}}` : "x";
  return [
    "import distbp",
    `model = distbp.load_model("${file}")`,
    `print(model.predict(${given}))${row ? "" : `  # x: ${rows}`}`,
  ].join("\n");
}

export function useModel(model, signal) {
  const file = fileName(model.name);
  const code = h("pre", { class: "source", tabindex: "0", "aria-label": "Python that uses the model" }, lines(file, null));
  call(`/v1/models/${model.id}/inputs`, { signal }).then((inputs) => (code.textContent = lines(file, inputs)), () => {});
  return h("section", { class: "card use", "aria-label": "Use it elsewhere" },
    h("div", { class: "row between" }, h("h2", {}, "Use it elsewhere"),
      h("div", { class: "row" }, copyButton(code),
        h("button", { type: "button", onclick: () => save(`/v1/models/${model.id}/download`, file) }, "Download"))),
    h("p", { class: "quiet" }, "One file; it predicts on the command line, too: ", h("code", {}, `distbp predict ${file} ROWS`)),
    code);
}
