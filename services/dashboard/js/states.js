// The states of a job: how they look, and what a user may ask for in each (services/states.py decides).

import { h } from "./dom.js";

export const TERMINAL = new Set(["completed", "failed", "cancelled"]);
export const ACTIVE = ["starting", "running", "pausing", "cancelling", "recovering", "queued"];

const TONES = { running: "on", starting: "on", completed: "good", failed: "bad", paused: "held", pausing: "held", recovering: "held" };

export const mayCancel = (state) => !TERMINAL.has(state) && state !== "cancelling";
export const mayPause = (state) => !TERMINAL.has(state) && !["cancelling", "pausing", "paused"].includes(state);
export const mayResume = (state) => state === "paused";
export const mayScale = (state) => !TERMINAL.has(state) && state !== "cancelling";

export function badge(state) {
  return h("span", { class: "badge", data: { tone: TONES[state] ?? "", state } }, h("i", { "aria-hidden": "true" }), h("span", {}, state));
}

/** Changes a badge in place; true where it was another state. */
export function setBadge(element, state) {
  if (element.dataset.state === state) return false;
  element.dataset.state = state;
  element.dataset.tone = TONES[state] ?? "";
  element.lastChild.textContent = state;
  return true;
}

/** How far a job is, from 0 to 1; null where nobody knows. */
export function share(job) {
  if (job.state === "completed") return 1;
  const total = job.progress?.total_steps ?? job.total_steps;
  const step = Math.max(job.progress?.step ?? 0, job.step ?? 0);
  return total ? Math.min(1, step / total) : null;
}
