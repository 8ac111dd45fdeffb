// Keys. Those of the page that is shown come before those of the whole. None acts while somebody types, and
// single letters can be turned off (WCAG 2.1.4).

import { dialog } from "./dialogs.js";
import { h } from "./dom.js";

const KEY = "distbp.letters";
const layers = [];

const lettersOff = () => localStorage.getItem(KEY) === "off";

/** Adds {key: [text, call]} for as long as `signal` allows. */
export function keys(table, signal) {
  layers.unshift(table);
  signal?.addEventListener("abort", () => layers.splice(layers.indexOf(table), 1));
}

export function listen() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    const typing = event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (typing) {
      if (event.key === "Escape") typing.blur();
      return;
    }
    if (lettersOff() && event.key !== "Escape") return;
    const found = layers.map((layer) => layer[event.key]).find(Boolean);
    if (!found) return;
    event.preventDefault();
    found[1](event);
  });
}

export async function showKeys() {
  const rows = layers.flatMap((layer) => Object.entries(layer));
  const list = h("dl", { class: "keys" }, rows.map(([key, [text]]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)]));
  const box = h("input", { type: "checkbox", name: "letters", checked: !lettersOff() });
  const values = await dialog({
    title: "Keyboard shortcuts",
    fields: [list, h("label", { class: "check" }, box, "Use single-letter shortcuts")],
    yes: "Done",
    no: null,
  });
  if (values) localStorage.setItem(KEY, values.letters ? "on" : "off");
}
