// The states of a job: how they look, and what a user may ask for in each (distbp_service/states.py decides).

import { h, say } from "./dom.js";
import { words } from "./format.js";

export const TERMINAL = new Set(["completed", "failed", "cancelled"]);
export const ACTIVE = ["starting", "running", "pausing", "cancelling", "recovering", "queued"];
export const LIVING = new Set(["running", "pausing", "cancelling"]); // with processes that train

const TONES = { running: "on", starting: "on", completed: "good", failed: "bad", paused: "held", pausing: "held", recovering: "held" };

export const mayCancel = (state) => !TERMINAL.has(state) && state !== "cancelling";
export const mayPause = (state) => !TERMINAL.has(state) && !["cancelling", "pausing", "paused"].includes(state);
export const mayResume = (state) => state === "paused";
export const mayScale = (state) => !TERMINAL.has(state) && state !== "cancelling";

// What may be wrong with a run that trains all the same (distbp's own verdict), in a word or two.
const ILLS = { diverged: "diverged", no_better: "no better than a constant", saturated: "saturated", unscaled_inputs: "inputs not scaled" };

/** {name: sentence} of what is wrong with a run: its result's, or that of the newest row of its metrics. */
export const ills = (job, row) => job.result?.unhealthy ?? job.unhealthy ?? row?.health?.unhealthy ?? {};

export function badge(state) {
  const element = h("span", { class: "badge" }, h("i", { "aria-hidden": "true" }), h("span", {}, h("span", {}), h("small", {})));
  setBadge(element, state);
  return element;
}

/** Changes a badge in place. found: of `ills`; an unhealthy run does not look like a good one. */
export function setBadge(element, state, found = {}) {
  const [first] = Object.keys(found);
  element.dataset.state = state;
  element.dataset.tone = first && state !== "failed" ? "held" : (TONES[state] ?? "");
  const [word, ill] = element.lastChild.children;
  say(word, state);
  say(ill, first ? (ILLS[first] ?? words(first)) : "");
}

/** How far a job is, from 0 to 1; null where nobody knows. One that stopped early did not go all the way. */
export function share(job) {
  const total = job.progress?.total_steps ?? job.total_steps;
  const step = Math.max(job.progress?.step ?? 0, job.step ?? 0);
  if (!total) return job.state === "completed" ? 1 : null;
  return Math.min(1, step / total);
}

/** Seconds that a job has trained, over all attempts: a paused job's time stands still. */
export function trained(job, now = Date.now() / 1000) {
  const ran = (job.attempts ?? []).map((one) => (one.ended_at ?? job.finished_at ?? now) - one.started_at);
  return ran.length ? ran.reduce((a, b) => a + b) : NaN;
}
