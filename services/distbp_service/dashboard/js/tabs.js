// Tabs (WAI-ARIA): arrows move, one is in the order of Tab. A panel is made when it is first shown, and told to
// stop when it is left.

import { fill, h } from "./dom.js";

/** tabs: [{id, label, make(panel, signal)}]. Returns the element and `open(id)`. */
export function tabs(list, { label, chosen, onChoose }, signal) {
  let here = null;
  const panel = h("div", { class: "panel", role: "tabpanel", tabindex: "0", id: "panel" });
  const buttons = list.map((tab) =>
    h(
      "button",
      { role: "tab", type: "button", id: `tab-${tab.id}`, "aria-controls": "panel", onclick: () => open(tab.id) },
      tab.label,
    ),
  );
  const bar = h("div", { class: "tabs", role: "tablist", "aria-label": label }, buttons);
  bar.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(event.target);
    const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (next === undefined || at < 0) return;
    event.preventDefault();
    const index = (next + buttons.length) % buttons.length;
    open(list[index].id);
    buttons[index].focus();
  });

  function open(id) {
    const index = Math.max(0, list.findIndex((tab) => tab.id === id));
    here?.abort();
    here = new AbortController();
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === index));
      button.tabIndex = i === index ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `tab-${list[index].id}`);
    fill(panel);
    list[index].make(panel, here.signal);
    onChoose?.(list[index].id);
  }

  signal.addEventListener("abort", () => here?.abort());
  open(chosen);
  return { element: h("section", { class: "tabbed" }, bar, panel), open };
}
