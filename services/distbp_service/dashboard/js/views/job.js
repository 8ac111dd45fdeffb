// One job, live: its state and buttons, its numbers, its curves, and all the rest in tabs.

import { call, poll } from "../api.js";
import { chart } from "../chart.js";
import { loading, trouble } from "../dialogs.js";
import { eachFrame, fill, h, say } from "../dom.js";
import { count, duration, isNumber, many, words } from "../format.js";
import { best, byName, held, isShare, lessIsBetter, measures } from "../metrics.js";
import { curves, namesIn, takeRow } from "../rows.js";
import { keys } from "../shortcuts.js";
import { follow } from "../sse.js";
import { LIVING, TERMINAL, badge, ills, setBadge, share, trained } from "../states.js";
import { tabs } from "../tabs.js";
import { actions } from "./job_actions.js";
import { panels } from "./job_panels.js";

const EVERY_MS = 5000;
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
  // at: when `job` was asked for, in seconds
  const known = { job, at: Date.now() / 1000, rows: [], events: [], progress: job.progress, listeners: new Set() };
  let asked_at = Date.now();
  const tell = eachFrame(() => !signal.aborted && known.listeners.forEach((call) => call()));

  async function refresh() {
    asked_at = Date.now();
    try {
      known.job = await call(`/v1/jobs/${id}`, { signal });
      known.at = Date.now() / 1000;
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
  poll(async () => {
    if (!LIVING.has(known.job.state) && !TERMINAL.has(known.job.state)) await refresh();
  }, EVERY_MS, signal);

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
    // What waits for room hears of it in the answer alone; so does the time that is left. Epochs may be many a second.
    const matters = event === "event" && data.kind !== "epoch_ended";
    if (event === "end" || matters || Date.now() - asked_at > EVERY_MS) soon ??= setTimeout(() => ((soon = null), refresh()), 80);
    tell();
  }, signal);
}

function header(known, { refresh, go, signal }) {
  const state = badge(known.job.state);
  const reason = h("span", { class: "quiet" });
  const fault = h("div", { class: "problem", role: "alert", hidden: true });
  const verdict = h("ul", { class: "problem verdict", role: "status", "aria-label": "What is wrong with this run", hidden: true });
  const buttons = actions(known, { refresh, go, signal });
  let told = "";
  known.listeners.add(() => {
    const { job } = known;
    const found = ills(job, known.rows.at(-1)?.data);
    setBadge(state, job.state, found);
    const why = job.waiting?.message ?? job.reason ?? "";
    say(reason, why === job.error?.message ? "" : why); // the fault below says it
    fault.hidden = !job.error;
    if (job.error) fill(fault, h("b", {}, job.error.code ?? "error"), h("p", {}, job.error.message ?? ""));
    const now = JSON.stringify(found);
    verdict.hidden = now === "{}";
    if (now !== told) fill(verdict, Object.values(found).map((sentence) => h("li", {}, sentence)));
    told = now;
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
    verdict,
  );
}

function numbers(known) {
  const tiles = {};
  const tile = (name, label) => {
    tiles[name] = { label: h("dt", {}, label), value: h("dd", {}), note: h("dd", { class: "note" }) };
    return h("div", { class: "tile" }, tiles[name].label, tiles[name].value, tiles[name].note);
  };
  const bar = h("progress", { max: 1, class: "wide", "aria-label": "Progress" });
  const set = (name, value, notes = []) => {
    const note = notes.filter(Boolean).join(", ");
    say(tiles[name].value, value);
    say(tiles[name].note, note);
    tiles[name].note.title = note;
  };
  const element = h(
    "section",
    { "aria-label": "Numbers" },
    h("dl", { class: "tiles" },
      tile("loss", "Loss"), tile("measure", "Metric"), tile("step", "Step"), tile("speed", "Samples / s"), tile("time", "Time"), tile("workers", "Workers")),
    bar,
  );

  // A metric's value as the model has it, or the newest; and what to say beside it.
  function measured(name) {
    const { job, rows } = known;
    const final = job.metrics;
    const { split, value } = held(final ?? rows.at(-1)?.data ?? {}, name);
    const write = byName(name);
    const top = best(rows, `${split}_${name}`);
    const others = ["train", "test"].filter((one) => final && one !== split && isNumber(final[`${one}_${name}`]));
    const notes = final
      ? [isNumber(job.result?.model_epoch) && `epoch ${count(job.result.model_epoch)}`, ...others.map((one) => `${one} ${write(final[`${one}_${name}`])}`)]
      : [top && top.value !== value && `best ${write(top.value)} at epoch ${count(top.epoch)}`];
    return [write(value), notes];
  }

  known.listeners.add(() => {
    const { job, rows, events, progress } = known;
    const last = rows.at(-1)?.data ?? {};
    const begun = events.findLast((event) => event.kind === "attempt_started")?.data ?? {};
    const total = progress?.total_steps ?? begun.total_steps;
    const ended = events.findLast((event) => event.kind === "epoch_ended")?.data;
    const alive = LIVING.has(job.state);
    const over = TERMINAL.has(job.state);
    set("loss", ...measured("loss"));
    const [name] = measures([...namesIn(rows), ...Object.keys(job.metrics ?? {})]);
    say(tiles.measure.label, name ? words(name) : "Metric");
    set("measure", ...(name ? measured(name) : ["–"]));
    const step = Math.max(job.step, (progress ?? job.progress)?.step ?? 0);
    set("step", count(step), [total && `of ${count(total)}`]);
    const speed = job.result?.samples_per_second ?? (alive ? progress?.samples_per_second : null) ?? (alive || over ? ended?.samples_per_second : null);
    set("speed", isNumber(speed) ? count(speed) : "–", [isNumber(last.learning_rate) && `learning rate ${+last.learning_rate.toPrecision(4)}`]);
    const now = Date.now() / 1000;
    const left = alive && isNumber(job.eta_s) ? Math.max(0, job.eta_s - (now - known.at)) : NaN;
    set("time", duration(trained(job, now)), [isNumber(left) && `about ${duration(left)} left`, job.attempt > 1 && `attempt ${job.attempt}`]);
    const workers = (over ? job.result?.workers : progress?.workers) ?? job.workers ?? begun.workers ?? job.job.workers;
    const written = typeof workers === "object" ? `${workers.min} to ${workers.max}` : String(workers ?? "–");
    set("workers", isNumber(workers) ? (workers === 0 ? "in process" : count(workers)) : written, [begun.shards && many(begun.shards, "shard")]);
    bar.value = share({ ...job, progress: progress ?? job.progress, total_steps: total }) ?? 0;
    bar.dataset.state = job.state;
  });
  return element;
}

/** A chart of the loss, and one of each other metric that was measured. */
function plots(known, signal) {
  const loss = chart({ title: "Loss", log: "auto", toggle: true, empty: "The curve begins with the first epoch." }, signal);
  const none = h("figure", { class: "chart" }, h("figcaption", {}, h("h3", {}, "Metrics")),
    h("div", { class: "plot-box" }, h("div", { class: "plot" }), h("p", { class: "plot-empty" }, "What is measured besides the loss is drawn here.")));
  const made = new Map([["loss", loss]]);
  const element = h("section", { class: "plots metrics", "aria-label": "Curves" }, loss.element, none);
  let seen = "";
  known.listeners.add(() => {
    const { rows, job } = known;
    const epoch = job.result?.model_epoch;
    const now = `${rows.length} ${rows.at(-1)?.step} ${rows.at(-1)?.attempt} ${epoch}`;
    if (now === seen) return;
    seen = now;
    const names = namesIn(rows);
    for (const name of measures(names)) {
      if (made.has(name)) continue;
      const one = chart({ title: words(name), share: isShare(name), log: lessIsBetter(name) && "auto", toggle: lessIsBetter(name) }, signal);
      made.set(name, one);
      element.append(one.element);
    }
    if (rows.length) none.remove();
    const charts = element.childElementCount;
    element.dataset.columns = String(charts === 4 ? 2 : Math.min(3, charts));
    for (const [name, one] of made) one.show(curves(rows, [`validation_${name}`, `train_${name}`].filter((full) => names.includes(full)), epoch));
  });
  return element;
}
