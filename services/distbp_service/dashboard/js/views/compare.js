// Several jobs in one plot. Which, is in the address: it can be sent to a colleague (a token never is).

import { call, poll } from "../api.js";
import { chart } from "../chart.js";
import { SERIES, onThemeChange, seriesColor } from "../colors.js";
import { emptiness, loading, trouble } from "../dialogs.js";
import { fill, h, say } from "../dom.js";
import { count, isNumber, words } from "../format.js";
import { byName, isShare, lessIsBetter } from "../metrics.js";
import { beside, namesIn } from "../rows.js";
import { keys } from "../shortcuts.js";
import { TERMINAL, badge, ills, setBadge } from "../states.js";

const EVERY_MS = 1500;

const modelEpoch = (job) => job.detail?.result?.model_epoch;

export async function compareView(root, { query, signal, go }) {
  const ids = [...new Set((query.get("jobs") ?? "").split(",").filter((id) => /^job_[0-9a-z]+$/.test(id)))].slice(0, SERIES);
  fill(root, loading());
  let recent;
  try {
    recent = (await call("/v1/jobs?limit=50", { signal })).items;
  } catch (error) {
    if (!signal.aborted) fill(root, trouble(error, () => compareView(root, { query, signal, go })));
    return;
  }
  if (signal.aborted) return;
  const jobs = ids.map((id) => ({ id, rows: [], detail: null, fault: null, element: null }));
  const to = (list) => go(`/compare?jobs=${list.join(",")}`);
  keys({ Escape: ["Back to all jobs", () => go("/jobs")] }, signal);

  const adding = h("select", { "aria-label": "Add a job", disabled: ids.length >= SERIES },
    h("option", { value: "" }, ids.length >= SERIES ? `${SERIES} jobs at most` : "Add a job"),
    recent.filter((job) => !ids.includes(job.id)).map((job) => h("option", { value: job.id }, `${job.name} · ${job.id.slice(-6)} · ${job.state}`)));
  adding.addEventListener("change", () => adding.value && to([...ids, adding.value]));
  const head = h("div", { class: "page-head" }, h("h1", {}, "Compare"), h("div", { class: "row" }, adding));
  if (jobs.length === 0) {
    fill(root, head, emptiness("Choose jobs to compare", h("p", { class: "quiet" }, "Add them here, or tick them in the list of jobs.")));
    return;
  }

  let metric = "";
  let over = "epoch";
  const metrics = h("select", { "aria-label": "Curve" });
  const axis = h("select", { "aria-label": "Horizontal axis" }, h("option", { value: "epoch" }, "by epoch"), h("option", { value: "step" }, "by step"));
  metrics.addEventListener("change", () => ((metric = metrics.value), renew()));
  axis.addEventListener("change", () => ((over = axis.value), renew()));
  const place = h("div", { class: "plots one" });
  const table = h("div", { class: "legend", role: "list", "aria-label": "Compared jobs" });
  fill(root, head, h("div", { class: "row tools" }, metrics, axis), place, table);

  const label = (job) => {
    const name = job.detail?.name ?? job.id.slice(-6);
    return jobs.filter((other) => other.detail?.name === job.detail?.name).length > 1 ? `${name} ${job.id.slice(-4)}` : name;
  };
  const lines = jobs.map((job, index) => {
    const dot = h("i", { class: "dot" });
    const name = h("a", { href: `#/jobs/${job.id}` }, job.id);
    const state = badge("queued");
    const value = h("b", {});
    const note = h("span", { class: "quiet" });
    table.append(h("div", { class: "legend-row", role: "listitem" }, dot, name, state, value, note,
      h("button", { type: "button", class: "plain icon", "aria-label": "Take out of the comparison", title: "Take out", onclick: () => to(ids.filter((id) => id !== job.id)) }, "×")));
    return () => {
      dot.style.background = seriesColor(index);
      say(name, job.fault ? job.id : label(job));
      setBadge(state, job.detail?.state ?? "queued", job.detail ? ills(job.detail, job.rows.at(-1)?.data) : {});
      state.hidden = job.detail === null;
      // Of a job that is done, what its model reaches; else the newest value.
      const final = job.detail?.result?.metrics?.[metric];
      const last = job.rows.findLast((row) => isNumber(row.data[metric]))?.data;
      const [found, epoch] = isNumber(final) ? [final, modelEpoch(job)] : [last?.[metric], last?.epoch];
      say(value, isNumber(found) ? byName(metric)(found) : "–");
      const told = [words(metric), isNumber(epoch) && `epoch ${count(epoch)}`, isNumber(final) && "the model"].filter(Boolean).join(", ");
      say(note, job.fault ?? (isNumber(found) ? told : "no values yet"));
    };
  });

  let one = null;
  let draw = new AbortController();
  signal.addEventListener("abort", () => draw.abort());
  function renew() {
    draw.abort();
    draw = new AbortController();
    const share = isShare(metric);
    one = chart({ title: words(metric || "loss"), over, share, log: lessIsBetter(metric) && "auto", toggle: !share }, draw.signal);
    fill(place, one.element);
    show();
  }

  function show() {
    const names = [...new Set(jobs.flatMap((job) => namesIn(job.rows)))];
    if (names.length && !names.includes(metric)) {
      metric = ["validation_loss", "train_loss"].find((name) => names.includes(name)) ?? names[0];
      fill(metrics, names.map((name) => h("option", { value: name }, words(name))));
      metrics.value = metric;
      return renew();
    }
    lines.forEach((line) => line());
    return one?.show(beside(jobs.map((job, index) => ({ label: label(job), color: seriesColor(index), rows: job.rows, epoch: modelEpoch(job) })), metric, over));
  }

  const load = async (job) => {
    if (job.detail && TERMINAL.has(job.detail.state) && job.whole) return;
    try {
      const [detail, range] = await Promise.all([
        call(`/v1/jobs/${job.id}`, { signal }),
        call(`/v1/jobs/${job.id}/metrics?points=1000`, { signal }),
      ]);
      job.whole = job.detail !== null && TERMINAL.has(job.detail.state); // the rows were asked for after its end
      Object.assign(job, { detail, rows: range.items, fault: null });
    } catch (error) {
      if (!signal.aborted) job.fault = error.message;
    }
  };
  onThemeChange(() => show(), signal);
  renew();
  poll(async () => {
    await Promise.all(jobs.map(load));
    if (!signal.aborted) show();
  }, EVERY_MS, signal);
}
