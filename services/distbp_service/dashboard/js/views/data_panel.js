// The data of a job: where it came from, rows, what was left out, what was noticed, and the columns of a table.

import { call } from "../api.js";
import { fill, h } from "../dom.js";
import { count, isNumber, many, plain } from "../format.js";
import { rangeOf } from "./columns.js";

const SETS = ["train", "validation", "test"];

export function dataPanel(panel, known, signal) {
  const body = h("div", { class: "data" });
  const columns = h("div", { class: "data" });
  let seen = "";
  let asked = null;
  panel.append(body, columns);
  return () => {
    const { job, events } = known;
    const begun = events.findLast((event) => event.kind === "attempt_started")?.data;
    const now = `${begun?.attempt} ${job.state}`;
    if (now !== seen) fill(body, begun ? [sets(job, begun), notes(begun)] : h("p", { class: "quiet" }, "What the data holds is known when the job has started."));
    seen = now;
    if (job.model_id && asked !== job.model_id) {
      asked = job.model_id;
      call(`/v1/models/${job.model_id}/inputs`, { signal }).then((inputs) => inputs.columns && fill(columns, columnTable(inputs)), () => {});
    }
  };
}

/** {set: {rows, skipped: {reason: rows}}} of a start. */
function sets(job, begun) {
  const names = SETS.filter((name) => begun.rows?.[name] !== undefined);
  const left = names.some((name) => Object.keys(begun.skipped?.[name] ?? {}).length);
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "Set"), h("th", { class: "right" }, "Rows"), h("th", {}, "From"), left ? h("th", {}, "Left out") : null)),
    h("tbody", {}, names.map((name) => h("tr", {},
      h("td", {}, name),
      h("td", { class: "right" }, count(begun.rows[name])),
      h("td", { class: "long" }, source(job.job.data?.[name]) ?? (job.job.data?.split ? "split from train" : "–")),
      left ? h("td", {}, skipped(begun.skipped?.[name] ?? {})) : null)))));
}

const skipped = (reasons) => Object.entries(reasons).map(([reason, rows]) => h("div", {}, `${many(rows, "row")}: ${reason}`));

/** "table, dataset ds_0123456789ab…/homes.csv". */
function source(data) {
  if (!data) return null;
  const path = String(data.path ?? data.inputs ?? data.images ?? "").replace(/^dataset:(ds_[0-9a-f]{12})[0-9a-f]*/, "dataset $1…");
  return [data.format, path].filter(Boolean).join(", ");
}

const notes = (begun) =>
  begun.notes?.length ? h("ul", { class: "noticed", "aria-label": "Noticed in the data" }, begun.notes.map((note) => h("li", {}, note))) : null;

const columnTable = (inputs) =>
  h("div", { class: "scroll" }, h("table", {},
    h("caption", {}, `${many(inputs.columns.length, "column")} enter, as ${many(inputs.shape[0], "number")} a row; the target is ${inputs.target}`),
    h("thead", {}, h("tr", {}, h("th", {}, "Column"), h("th", {}, "Enters as"), h("th", {}, "In training"), h("th", {}, "Missing counts as"))),
    h("tbody", {}, inputs.columns.map((column) => h("tr", {},
      h("td", {}, column.name),
      h("td", {}, column.kind === "boolean" ? "yes or no" : column.kind),
      h("td", { class: "long" }, inTraining(column)),
      h("td", {}, column.kind === "boolean" ? "neither" : column.missing === null ? "a rare level" : isNumber(column.missing) ? plain(column.missing) : column.missing))))));

function inTraining(column) {
  const { kind, levels, example } = column;
  if (kind === "number") return rangeOf(column) || "–";
  if (kind === "boolean") return "–";
  if (kind === "date") return example ? `about ${example}` : "–";
  if (!levels) return "levels share columns";
  const shown = levels.slice(0, 6).join(", ");
  return `${many(levels.length, "level")}: ${shown}${levels.length > 6 ? ", …" : ""}`;
}
