// One job, live: its state and buttons, its numbers, its curves, and all the rest in tabs.

import { call } from "../api.js";
import { chart } from "../chart.js";
import { loading, trouble } from "../dialogs.js";
import { eachFrame, fill, h, say } from "../dom.js";
import { count, duration, isNumber, number, percent } from "../format.js";
import { curves, namesIn, takeRow } from "../rows.js";
import { keys } from "../shortcuts.js";
import { follow } from "../sse.js";
import { TERMINAL, badge, setBadge, share } from "../states.js";
import { tabs } from "../tabs.js";
import { actions } from "./job_actions.js";
import { panels } from "./job_panels.js";

let lastTab = "layers"; // the tab stays as one goes from job to job

export async function jobView(root, { id, signal, go }) {
  fill(root, loading("Loading the job"));
  let job;
  try {
    job = await call(`/v1/jobs/${id}`, { signal });
  } catch (error) {
    if (!signal.aborted) fill(root, trouble(error, error.status === 404 ? null : () => jobView(root, { id, signal, go })));
    return;
  }
  if (signal.aborted) return;
  document.title = `${job.name} · distbp`;
  const known = { job, rows: [], events: [], progress: job.progress, listeners: new Set() };
  const tell = eachFrame(() => !signal.aborted && known.listeners.forEach((call) => call()));

  async function refresh() {
    try {
      known.job = await call(`/v1/jobs/${id}`, { signal });
      if (TERMINAL.has(known.job.state)) known.progress = null;
      tell();
    } catch {
      // the stream says when the service is away; what is shown stays
    }
  }

  fill(root, header(known, { refresh, go, signal }), numbers(known), plots(known, signal));
  const tabbed = tabs(panels(known, signal), { label: "More about this job", chosen: lastTab, onChoose: (tab) => (lastTab = tab) }, signal);
  root.append(tabbed.element);
  keys({ Escape: ["Back to all jobs", () => go("/jobs")] }, signal);
  tell();

  if (TERMINAL.has(job.state)) {
    call(`/v1/jobs/${id}/metrics?points=2000`, { signal }).then((found) => ((known.rows = found.items), tell()), () => {});
  } else {
    follow(`/v1/jobs/${id}/metrics:stream`, (event, data) => {
      if (event !== "metric") return;
      takeRow(known.rows, data);
      tell();
    }, signal);
  }
  let soon = null;
  follow(`/v1/jobs/${id}/events:stream`, (event, data) => {
    if (event === "event") known.events.push(data);
    if (event === "progress") known.progress = data;
    if (event === "end" || event === "event") {
      clearTimeout(soon);
      soon = setTimeout(refresh, 80);
    }
    tell();
  }, signal);
}

function header(known, { refresh, go, signal }) {
  const state = badge(known.job.state);
  const reason = h("span", { class: "quiet" });
  const fault = h("div", { class: "problem", role: "alert", hidden: true });
  const buttons = actions(known, { refresh, go, signal });
  known.listeners.add(() => {
    const { job } = known;
    setBadge(state, job.state);
    say(reason, job.reason === job.error?.message ? "" : (job.reason ?? "")); // the fault below says it
    fault.hidden = !job.error;
    if (job.error) fill(fault, h("b", {}, job.error.code ?? "error"), h("p", {}, job.error.message ?? ""));
    buttons.show();
  });
  return h(
    "header",
    { class: "job-header" },
    h("div", { class: "page-head" },
      h("div", {},
        h("h1", {}, known.job.name),
        h("p", { class: "under" }, state, h("span", { class: "id" }, known.job.id), reason)),
      buttons.element),
    fault,
  );
}

function numbers(known) {
  const tiles = {};
  const tile = (name, label) => {
    tiles[name] = { value: h("dd", {}), note: h("dd", { class: "note" }) };
    return h("div", { class: "tile" }, h("dt", {}, label), tiles[name].value, tiles[name].note);
  };
  const bar = h("progress", { max: 1, class: "wide", "aria-label": "Progress" });
  const set = (name, value, note = "") => {
    say(tiles[name].value, value);
    say(tiles[name].note, note);
  };
  const element = h(
    "section",
    { "aria-label": "Numbers" },
    h("dl", { class: "tiles" },
      tile("loss", "Loss"), tile("accuracy", "Accuracy"), tile("step", "Step"), tile("speed", "Samples / s"), tile("time", "Time"), tile("workers", "Workers")),
    bar,
  );
  known.listeners.add(() => {
    const { job, rows, events, progress } = known;
    const last = rows.at(-1)?.data ?? {};
    const begun = events.findLast((event) => event.kind === "attempt_started")?.data ?? {};
    const total = progress?.total_steps ?? begun.total_steps;
    const ended = events.findLast((event) => event.kind === "epoch_ended")?.data;
    const final = job.metrics ?? {};
    const held = (name) => last[`validation_${name}`] ?? final[`validation_${name}`];
    const train = (name) => last[`train_${name}`] ?? final[`train_${name}`];
    set("loss", number(held("loss") ?? train("loss")), isNumber(held("loss")) && isNumber(train("loss")) ? `train ${number(train("loss"))}` : "");
    set("accuracy", percent(held("accuracy") ?? train("accuracy")), isNumber(final.test_accuracy) ? `test ${percent(final.test_accuracy)}` : "");
    const step = Math.max(job.step, progress?.step ?? 0);
    set("step", count(step), total ? `of ${count(total)}` : "");
    const speed = job.result?.samples_per_second ?? progress?.samples_per_second ?? ended?.samples_per_second;
    set("speed", isNumber(speed) ? count(speed) : "–", isNumber(last.learning_rate) ? `rate ${+last.learning_rate.toPrecision(4)}` : "");
    const until = job.finished_at ?? Date.now() / 1000;
    set("time", duration(job.result?.wall_seconds ?? (job.started_at ? until - job.started_at : NaN)), job.attempt > 1 ? `attempt ${job.attempt}` : "");
    const workers = job.result?.workers ?? progress?.workers ?? job.workers ?? begun.workers;
    set("workers", isNumber(workers) ? (workers === 0 ? "in process" : count(workers)) : String(job.job.workers ?? "–"), begun.shards ? `${begun.shards} shards` : "");
    const part = share({ ...job, progress, total_steps: total });
    bar.value = part ?? 0;
    bar.dataset.state = job.state;
  });
  return element;
}

function plots(known, signal) {
  const loss = chart({ title: "Loss", toggle: true, empty: "The curve begins with the first epoch." }, signal);
  const accuracy = chart({ title: "Accuracy", share: true, empty: "This job measures no accuracy, or not yet." }, signal);
  let seen = "";
  known.listeners.add(() => {
    const { rows } = known;
    const now = `${rows.length} ${rows.at(-1)?.step} ${rows.at(-1)?.attempt}`;
    if (now === seen) return;
    seen = now;
    const names = namesIn(rows);
    loss.show(curves(rows, names.filter((name) => /^(train|validation)_loss$/.test(name)).sort().reverse()));
    accuracy.show(curves(rows, names.filter((name) => /^(train|validation)_accuracy$/.test(name)).sort().reverse()));
  });
  return h("section", { class: "plots two", "aria-label": "Curves" }, loss.element, accuracy.element);
}
