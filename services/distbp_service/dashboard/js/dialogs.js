// Small windows and passing notes.

import { h } from "./dom.js";

/** Asks; answers with the form's values, or null. Focus goes back to where it was. */
export function dialog({ title, text, fields = [], yes, no = "Keep as it is", danger = false }) {
  return new Promise((done) => {
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      text ? h("p", { class: "quiet" }, text) : null,
      fields,
      h(
        "div",
        { class: "row end" },
        no ? h("button", { type: "button", onclick: () => element.close("") }, no) : null,
        h("button", { class: danger ? "danger" : "main", value: "yes", autofocus: fields.length === 0 }, yes),
      ),
    );
    const element = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    element.addEventListener("close", () => {
      const values = element.returnValue === "yes" ? Object.fromEntries(new FormData(form)) : null;
      element.remove();
      done(values);
    });
    element.addEventListener("click", (event) => event.target === element && element.close(""));
    document.body.append(element);
    element.showModal();
  });
}

export function toast(text, tone = "") {
  const note = h("div", { class: "toast", data: { tone } }, text);
  document.getElementById("toasts").append(note);
  setTimeout(() => note.remove(), 6000);
}

/** A page's or part's empty state. */
export const emptiness = (title, ...more) => h("div", { class: "empty" }, h("h2", {}, title), ...more);

/** What went wrong, and a way to try again; from what is not there, a way back. */
export function trouble(error, again, back = ["#/jobs", "All jobs"]) {
  const parts = [h("p", { class: "quiet" }, error.message)];
  if (error.status === 404) parts.push(h("a", { class: "button", href: back[0] }, back[1]));
  if (again) parts.push(h("button", { type: "button", onclick: again }, "Try again"));
  const title = error.status === 404 ? "There is no such thing here" : "That did not work";
  return h("div", { class: "empty", role: "alert" }, h("h2", {}, title), parts);
}

export const loading = (label = "Loading") =>
  h("div", { class: "loading", role: "status" }, h("span", { class: "unseen" }, label), h("i"), h("i"), h("i"));
