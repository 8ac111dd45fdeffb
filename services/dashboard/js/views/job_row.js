// One job in the list.

import { h, say } from "../dom.js";
import { ago, count, moment, number, percent } from "../format.js";
import { badge, setBadge, share } from "../states.js";

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
  const accuracy = h("span", { class: "value right", data: { label: "Accuracy" } });
  const started = h("span", { class: "when right", title: moment(job.started_at ?? job.created_at) });
  const element = h(
    "div",
    { class: "job-row", role: "listitem" },
    h("label", { class: "pick" }, box),
    h("span", { class: "job-title" }, h("a", { class: "job-name", href: `#/jobs/${job.id}` }, job.name), h("span", { class: "id" }, job.id)),
    state,
    h("span", { class: "job-progress" }, bar, steps),
    loss, accuracy, started,
  );

  function show() {
    setBadge(state, known.state);
    const progress = live.progress ?? known.progress;
    const part = share({ ...known, progress });
    bar.value = part ?? 0;
    bar.dataset.known = String(part !== null);
    bar.dataset.state = known.state;
    const step = Math.max(known.step, progress?.step ?? 0);
    say(steps, step === 0 ? (known.reason ?? "") : progress?.total_steps ? `${count(step)} of ${count(progress.total_steps)}` : `${count(step)} steps`);
    const metrics = known.metrics ?? live.metrics ?? {};
    say(loss, number(metrics.validation_loss ?? metrics.train_loss));
    say(accuracy, percent(metrics.validation_accuracy ?? metrics.train_accuracy));
    say(started, ago(known.started_at ?? known.created_at));
  }

  show();
  return {
    element,
    update: (next) => ((known = next), show()),
    live: (next) => ((live = { ...live, ...next }), show()),
  };
}
