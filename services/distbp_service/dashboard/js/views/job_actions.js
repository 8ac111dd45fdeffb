// What a user may ask of a job: pause, resume, scale, cancel, delete.

import { call, post } from "../api.js";
import { dialog, toast } from "../dialogs.js";
import { h } from "../dom.js";
import { count, many } from "../format.js";
import { may } from "../session.js";
import { keys } from "../shortcuts.js";
import { TERMINAL, mayCancel, mayPause, mayResume, mayScale } from "../states.js";

export function actions(known, { refresh, go, signal }) {
  const path = `/v1/jobs/${known.job.id}`;

  async function ask(verb, body) {
    try {
      known.job = { ...known.job, ...(await post(`${path}:${verb}`, body)) };
      known.listeners.forEach((listener) => listener());
      await refresh();
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  async function cancel() {
    const sure = await dialog({
      title: `Cancel ${known.job.name}?`,
      text: "It cannot be resumed afterwards. Pause it instead to go on later from its last checkpoint.",
      yes: "Cancel the job",
      no: "Keep it",
      danger: true,
    });
    if (sure) await ask("cancel");
  }

  async function scale() {
    const begun = known.events.findLast((event) => event.kind === "attempt_started")?.data;
    const written = known.job.job.workers;
    const now = known.job.workers ?? known.progress?.workers ?? begun?.workers ?? written?.min ?? (typeof written === "number" ? written : 1);
    const input = h("input", { type: "number", name: "workers", min: 0, max: 4096, step: 1, required: true, value: now, autofocus: true });
    const values = await dialog({
      title: "Scale",
      text: "The number of workers changes how fast the job runs, and nothing else: it ends with the same bits.",
      fields: [h("label", { class: "field" }, "Workers", input)],
      yes: "Scale",
      no: "Leave it",
    });
    if (!values) return;
    const workers = Number(values.workers);
    if (workers <= now / 2 && workers < now) {
      const sure = await dialog({
        title: `Go from ${many(now, "worker")} down to ${workers === 0 ? "none" : count(workers)}?`,
        text: workers === 0
          ? "The job goes on in the runner's own process, at the speed that this machine gives it. It ends with the same bits."
          : `The job may take about ${count(now / workers)} times as long as now. It ends with the same bits.`,
        yes: "Scale down",
        no: `Keep ${count(now)}`,
        danger: true,
      });
      if (!sure) return;
    }
    await ask("scale", { workers });
  }

  async function remove() {
    const sure = await dialog({
      title: `Delete ${known.job.name}?`,
      text: "Its checkpoints, metrics, events and log go with it. Its model stays.",
      yes: "Delete the job",
      no: "Keep it",
      danger: true,
    });
    if (!sure) return;
    try {
      await call(path, { method: "DELETE" });
      go("/jobs");
    } catch (error) {
      toast(error.message, "bad");
    }
  }

  const pause = h("button", { type: "button", onclick: () => ask(mayResume(known.job.state) ? "resume" : "pause") }, "Pause");
  const resize = h("button", { type: "button", onclick: scale }, "Scale");
  const stop = h("button", { type: "button", class: "danger", onclick: cancel }, "Cancel");
  const erase = h("button", { type: "button", onclick: remove }, "Delete");
  const model = h("a", { class: "button main", hidden: true }, "Model");
  const element = h("div", { class: "row actions", role: "group", "aria-label": "Actions" }, model, pause, resize, stop, erase);
  keys({
    p: ["Pause or resume the job", () => !pause.disabled && pause.click()],
    s: ["Scale the job", () => !resize.disabled && resize.click()],
  }, signal);

  function show() {
    const { state, model_id: made } = known.job;
    const allowed = may("manage");
    const over = TERMINAL.has(state);
    pause.textContent = mayResume(state) ? "Resume" : "Pause";
    pause.disabled = !allowed || !(mayPause(state) || mayResume(state));
    resize.disabled = !allowed || !mayScale(state);
    stop.disabled = !allowed || !mayCancel(state);
    erase.disabled = !allowed;
    for (const button of [pause, resize, stop]) button.hidden = over;
    erase.hidden = !over;
    model.hidden = !made;
    if (made) model.href = `#/models/${made}`;
    for (const button of [pause, resize, stop, erase]) button.title = allowed ? "" : "This token may not: it needs the scope 'manage'";
  }

  show();
  return { element, show };
}
