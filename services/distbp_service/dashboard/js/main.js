// The page: who is signed in, which view is shown, and what the header does.

import { call, post } from "./api.js";
import { themeButton } from "./colors.js";
import { loading, trouble } from "./dialogs.js";
import { fill } from "./dom.js";
import { remember, signIn, signOut, token, whoIsThis } from "./session.js";
import { keys, listen, showKeys } from "./shortcuts.js";
import { compareView } from "./views/compare.js";
import { jobView } from "./views/job.js";
import { jobsView } from "./views/jobs.js";
import { modelView } from "./views/model.js";
import { modelsView } from "./views/models.js";
import { signInView } from "./views/signin.js";

const main = document.getElementById("main");
const ROUTES = [
  [/^\/jobs\/(job_[0-9a-z]+)$/, jobView, "Job"],
  [/^\/jobs$/, jobsView, "Jobs"],
  [/^\/compare$/, compareView, "Compare"],
  [/^\/models\/(mdl_[0-9a-z]+)$/, modelView, "Model"],
  [/^\/models$/, modelsView, "Models"],
];
let here = new AbortController();

const go = (place) => {
  location.hash = place;
};

/** `distbp serve` prints an address with #link=..., which is good once; #token=... holds a token itself. Neither part
 *  is ever sent as an address, and both are taken out of it. Returns why a link does not open anything. */
async function takeToken() {
  const [, kind, handed] = /^#(token|link)=([\w-]+)$/.exec(location.hash) ?? [];
  if (!handed) return null;
  history.replaceState(null, "", "#/jobs");
  try {
    signIn(kind === "token" ? handed : (await post("/v1/sign-in", { code: handed })).secret, null);
  } catch (error) {
    return error;
  }
  return null;
}

async function show() {
  const failed = await takeToken();
  here.abort();
  here = new AbortController();
  const { signal } = here;
  document.getElementById("leave").hidden = !token();
  document.getElementById("nav").hidden = !token();
  if (!token()) {
    document.title = "Sign in · distbp";
    return signInView(fill(main, failed ? trouble(failed) : null), show);
  }
  fill(main, loading());
  try {
    if (!whoIsThis()) remember(await call("/v1/whoami", { signal }));
  } catch (error) {
    if (signal.aborted || error.status === 401) return undefined;
    return fill(main, trouble(error, show));
  }
  const [path, query = ""] = (location.hash.slice(1) || "/jobs").split("?");
  const found = ROUTES.map(([form, view, title]) => ({ match: form.exec(path), view, title })).find((one) => one.match);
  if (!found) return go("/jobs");
  document.title = `${found.title} · distbp`;
  for (const anchor of document.querySelectorAll("#nav a")) {
    const same = path.startsWith(anchor.hash.slice(1));
    if (same) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  fill(main);
  scrollTo(0, 0);
  return found.view(main, { id: found.match[1], query: new URLSearchParams(query), signal, go });
}

keys({
  "?": ["Show these shortcuts", showKeys],
  t: ["Light, dark, or as the system", () => document.getElementById("theme").click()],
  1: ["Jobs", () => go("/jobs")],
  2: ["Compare", () => go("/compare")],
  3: ["Models", () => go("/models")],
});
listen();
themeButton(document.getElementById("theme"));
document.getElementById("help").addEventListener("click", showKeys);
document.getElementById("leave").addEventListener("click", signOut);
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is our route
  main.focus();
});
addEventListener("signed-out", show);
addEventListener("hashchange", show);
show();
