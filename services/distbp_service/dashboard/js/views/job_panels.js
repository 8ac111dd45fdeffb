// The tabs of a job. Each panel is made when it is opened, and follows what is known of the job while it is open.

import { call } from "../api.js";
import { copyButton } from "../copy.js";
import { trouble } from "../dialogs.js";
import { eachFrame, fill, h } from "../dom.js";
import { bytes, count, moment, time, words } from "../format.js";
import { best, byName, held, measures } from "../metrics.js";
import { namesIn } from "../rows.js";
import { save } from "../save.js";
import { follow } from "../sse.js";
import { TERMINAL } from "../states.js";
import { toYaml } from "../yaml.js";
import { dataPanel } from "./data_panel.js";
import { eventText } from "./event_text.js";
import { layersPanel } from "./layers.js";
import { predictForm } from "./predict.js";
import { useModel } from "./use_model.js";
import { workersPanel } from "./workers.js";

const LINES = 5000; // of the log, kept in the page
const EVENTS = 500; // the newest, kept in the page

export const panels = (known) => [
  { id: "metrics", label: "Metrics", make: during(known, metricsPanel) },
  { id: "predict", label: "Predict", make: during(known, predictPanel) },
  { id: "data", label: "Data", make: during(known, dataPanel) },
  { id: "layers", label: "Layers", make: during(known, layersPanel) },
  { id: "workers", label: "Workers", make: during(known, workersPanel) },
  { id: "events", label: "Events", make: during(known, eventsPanel) },
  { id: "log", label: "Log", make: during(known, logPanel) },
  { id: "job", label: "Job", make: during(known, sourcePanel) },
  { id: "checkpoints", label: "Checkpoints", make: during(known, checkpointsPanel) },
];

/** A panel gives back a function to call with every change, or nothing. */
const during = (known, make) => (panel, signal) => {
  const show = make(panel, known, signal);
  if (!show) return;
  known.listeners.add(show);
  signal.addEventListener("abort", () => known.listeners.delete(show));
  show();
};

const SETS = ["train", "validation", "test"];

function metricsPanel(panel, known) {
  const body = h("div", { class: "scroll" });
  let seen = "";
  panel.append(body);
  return () => {
    const { rows, job } = known;
    const now = `${rows.length} ${rows.at(-1)?.step} ${job.state} ${job.model_id}`;
    if (now === seen) return;
    seen = now;
    const values = job.metrics ?? rows.at(-1)?.data ?? {};
    const names = [...namesIn(rows), ...Object.keys(values)];
    fill(body, names.length === 0 ? h("p", { class: "quiet" }, "Metrics are reported with each epoch.") : metricTable(rows, values, ["loss", ...measures(names)], job));
  };
}

function metricTable(rows, values, names, job) {
  const epoch = job.metrics ? job.result?.model_epoch : rows.at(-1)?.data.epoch;
  const caption = `${job.metrics ? "The model" : "Now"}${epoch === undefined || epoch === null ? "" : `, of epoch ${count(epoch)}`}`;
  return h("table", {},
    h("caption", {}, caption),
    h("thead", {}, h("tr", {}, h("th", {}, "Metric"), SETS.map((one) => h("th", { class: "right" }, one)), h("th", { class: "right" }, "Best epoch"))),
    h("tbody", {}, names.map((name) => {
      const { split } = held(values, name);
      const top = best(rows, `${split}_${name}`);
      return h("tr", {}, h("td", {}, words(name)),
        SETS.map((one) => h("td", { class: "right" }, byName(name)(values[`${one}_${name}`]))),
        h("td", { class: "right" }, top ? `${byName(name)(top.value)} at ${count(top.epoch)}` : "–"));
    })));
}

function eventsPanel(panel, known) {
  const list = h("ol", { class: "events" });
  const none = h("p", { class: "quiet" }, "Nothing happened yet.");
  let shown = 0;
  panel.append(none, list);
  return () => {
    none.hidden = known.events.length > 0;
    for (const event of known.events.slice(Math.max(shown, known.events.length - EVENTS))) {
      list.prepend(
        h("li", { data: { kind: event.kind } },
          h("time", { title: moment(event.at) }, time(event.at)),
          h("b", {}, event.kind.replaceAll("_", " ")),
          h("span", {}, eventText(event))),
      );
    }
    while (list.childNodes.length > EVENTS) list.lastChild.remove();
    shown = known.events.length;
  };
}

function logPanel(panel, known, signal) {
  const text = h("div", { class: "log", role: "log", tabindex: "0", "aria-label": "Log" });
  const none = h("p", { class: "quiet" }, "The log is empty.");
  panel.append(none, text);
  let waiting = []; // lines that came since the last frame: to look where the text ends takes time
  const show = eachFrame(() => {
    const below = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
    text.append(...waiting.slice(-LINES).map(([at, line]) => h("p", {}, h("time", { title: moment(at) }, time(at)), h("span", {}, line))));
    waiting = [];
    while (text.childNodes.length > LINES) text.firstChild.remove();
    if (below) text.scrollTop = text.scrollHeight;
  });
  follow(`/v1/jobs/${known.job.id}/logs:stream`, (event, data) => {
    if (event !== "log") return;
    none.hidden = true;
    waiting.push(...data.text.replace(/\n$/, "").split("\n").map((line) => [data.at, line]));
    show();
  }, signal);
}

function sourcePanel(panel, known) {
  const source = toYaml(known.job.job);
  const code = h("pre", { class: "source", tabindex: "0", "aria-label": "Job as YAML" }, source);
  panel.append(h("div", { class: "row between" }, h("span", { class: "id", title: "SHA-256 of the job" }, `digest ${known.job.digest.slice(0, 16)}`), copyButton(code)), code);
}

/** The form of the model, once there is one. */
function predictPanel(panel, known, signal) {
  let shown = "";
  panel.append(h("p", { class: "quiet" }, "The form comes with the model, when the job has completed."));
  return () => {
    const { model_id: id, name } = known.job;
    if (!id || shown === id) return;
    shown = id;
    fill(panel, predictForm(id, signal), useModel({ id, name }, signal));
  };
}

function checkpointsPanel(panel, known, signal) {
  const body = h("div", {});
  let seen = null;
  panel.append(body);
  const load = async () => {
    try {
      const { items } = await call(`/v1/jobs/${known.job.id}/checkpoints`, { signal });
      fill(body, items.length === 0 ? h("p", { class: "quiet" }, "No checkpoint is kept.") : checkpointTable(known.job, items));
    } catch (error) {
      if (!signal.aborted) fill(body, trouble(error, load));
    }
  };
  return () => {
    const now = `${known.events.findLast((event) => event.kind === "checkpoint_saved")?.number} ${TERMINAL.has(known.job.state)}`;
    if (now !== seen) load();
    seen = now;
  };
}

const checkpointTable = (job, items) =>
  h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", { class: "right" }, "Step"), h("th", { class: "right" }, "Size"), h("th", {}, "Saved"), h("th", {}, "SHA-256"), h("th", {}))),
    h("tbody", {}, [...items].reverse().map((one) =>
      h("tr", {},
        h("td", { class: "right" }, one.step.toLocaleString("en-US")),
        h("td", { class: "right" }, bytes(one.bytes)),
        h("td", {}, moment(one.created_at)),
        h("td", {}, h("code", { title: one.sha256 }, one.sha256.slice(0, 12))),
        h("td", { class: "right" }, h("button", { type: "button", class: "small", onclick: () => save(`/v1/jobs/${job.id}/checkpoints/${one.step}`, `${job.name}-step-${one.step}.safetensors`) }, "Download")))))));
