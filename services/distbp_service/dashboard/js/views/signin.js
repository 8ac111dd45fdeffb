// Where the token is given. It stays in this tab.

import { call } from "../api.js";
import { h, say } from "../dom.js";
import { signIn } from "../session.js";

export function signInView(root, done) {
  const input = h("input", {
    id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false",
    placeholder: "dbp_…", required: true, "aria-describedby": "token-help token-fault",
  });
  const fault = h("p", { class: "fault", id: "token-fault", role: "alert" });
  const button = h("button", { class: "main" }, "Sign in");
  const form = h(
    "form",
    { class: "sign-in", novalidate: true },
    h("h1", {}, "Sign in"),
    h("label", { for: "token" }, "Token"),
    input,
    h("p", { class: "quiet", id: "token-help" }, "Use a token that the service gave you (distbp token). It stays in this tab and is forgotten when you close it."),
    button,
    fault,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!/^dbp_[\x21-\x7e]+$/.test(text)) {
      say(fault, "A token begins with dbp_ and has no spaces.");
      return input.focus();
    }
    button.disabled = true;
    say(fault, "");
    try {
      signIn(text, await call("/v1/whoami", { key: text }));
      return done();
    } catch (error) {
      say(fault, error.status === 401 ? "This token opens nothing: it is wrong, revoked or expired." : error.message);
      button.disabled = false;
      return input.select();
    }
  });
  root.append(form);
  input.focus();
}
