// One job in the list.

import { h, say } from "../dom.js";
import { ago, count, duration, isNumber, moment, words } from "../format.js";
import { byName, held, measures } from "../metrics.js";
import { badge, ills, setBadge, share } from "../states.js";

const SPLITS = { validation: "validation", train: "training", test: "test", "": "" };

/** The element, `update(job)` with what the list says, `live({metrics, progress})` with what a stream says. */
export function jobRow(job, pick) {
  let known = job;
  let live = {};
  const box = h("input", { type: "checkbox", "aria-label": `Compare ${job.name}` });
  box.addEventListener("change", () => pick(job.id, box.checked));
  const state = badge(job.state);
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const steps = h("span", { class: "steps" });
  const loss = h("span", { class: "value right", data: { label: "Loss" } });
  const measure = h("span", { class: "value right", data: { label: "" } });
  const started = h("span", { class: "when right" });
  const element = h(
    "div",
    { class: "job-row", role: "listitem" },
    h("label", { class: "pick" }, box),
    h("span", { class: "job-title" }, h("a", { class: "job-name", href: `#/jobs/${job.id}` }, job.name), h("span", { class: "id" }, job.id)),
    state,
    h("span", { class: "job-progress" }, bar, steps),
    loss, measure, started,
  );

  function show() {
    setBadge(state, known.state, ills(known, live.metrics));
    const progress = live.progress ?? known.progress;
    const part = share({ ...known, progress });
    bar.value = part ?? 0;
    bar.dataset.known = String(part !== null);
    bar.dataset.state = known.state;
    const step = Math.max(known.step, progress?.step ?? 0);
    const far = step === 0 ? "" : progress?.total_steps ? `${count(step)} of ${count(progress.total_steps)}` : `${count(step)} steps`;
    const left = isNumber(known.eta_s) ? `${duration(known.eta_s)} left` : "";
    const why = known.waiting?.message ?? (step === 0 || known.state === "recovering" ? known.reason : "");
    say(steps, [far, left, why].filter(Boolean).join(" · "));
    steps.title = why ?? "";
    const metrics = known.metrics ?? live.metrics ?? {};
    put(loss, metrics, "loss");
    put(measure, metrics, measures(Object.keys(metrics))[0]);
    const begun = isNumber(known.started_at);
    say(started, begun ? ago(known.started_at) : "");
    started.title = begun ? moment(known.started_at) : "";
  }

  show();
  return {
    element,
    update: (next) => ((known = next), show()),
    live: (next) => ((live = { ...live, ...next }), show()),
  };
}

/** The value of a metric, with its name (the loss has a column of its own) and the set it is of below it. */
function put(place, values, name) {
  const { split, value } = name ? held(values, name) : { split: "", value: null };
  place.dataset.label = name ? words(name) : "";
  say(place, value === null ? "–" : byName(name)(value));
  place.dataset.note = value === null ? "" : name === "loss" ? SPLITS[split] : words(name);
}
