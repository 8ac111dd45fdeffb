// Who hosts which shards, and the attempts so far. Shards are fixed; workers come and go.

import { fill, h } from "../dom.js";
import { duration, many, moment } from "../format.js";
import { LIVING } from "../states.js";

/** Consecutive ranges of shards, as equal as can be, as distbp.reduction.assign makes them. Pure. */
export function assign(shards, workers) {
  const used = Math.max(1, Math.min(shards, workers));
  return Array.from({ length: used }, (_, w) => [Math.floor((shards * w) / used), Math.floor((shards * (w + 1)) / used)]);
}

const MOST = 256; // shards drawn one by one

export function workersPanel(panel, known) {
  const body = h("div", {});
  let seen = "";
  panel.append(body);
  return () => {
    const { job, events, progress } = known;
    const begun = events.findLast((event) => event.kind === "attempt_started")?.data;
    const alive = LIVING.has(job.state);
    const workers = (alive ? progress?.workers : job.result?.workers) ?? begun?.workers;
    const changes = events.filter((event) => event.kind === "team_changed");
    const now = JSON.stringify([begun, workers, changes.length, job.attempts, job.state]);
    if (now === seen) return;
    seen = now;
    fill(
      body,
      begun && alive ? team(begun.shards, workers) : h("p", { class: "quiet" }, begun ? past(job.state, begun.shards, workers) : "No attempt has begun yet."),
      changes.length ? h("p", {}, `Last change: ${changes.at(-1).data.reason}`) : null,
      attempts(job.attempts),
    );
  };
}

const past = (state, shards, workers) =>
  `No worker runs: the job is ${state}. It had ${many(shards, "shard")} ${workers > 0 ? `on ${many(workers, "worker")}` : "in the runner itself"}.`;

function team(shards, workers) {
  const hosts = workers > 0 ? assign(shards, workers) : [[0, shards]];
  return h("div", { class: "team", role: "list", "aria-label": "Workers and their shards" },
    hosts.map(([start, stop], index) =>
      h("div", { class: "worker", role: "listitem" },
        h("span", {}, workers > 0 ? `worker ${index}` : "in the runner itself"),
        h("span", { class: "shards", "aria-label": `shards ${start} to ${stop - 1}` },
          stop - start > MOST ? `${start}–${stop - 1}` : Array.from({ length: stop - start }, (_, i) => h("i", {}, String(start + i)))))),
    workers > hosts.length ? h("p", { class: "quiet" }, `${many(workers - hosts.length, "more worker")} than shards: without any.`) : null);
}

function attempts(list) {
  if (!list?.length) return null;
  return h("div", { class: "scroll" }, h("table", {},
    h("caption", {}, "Attempts"),
    h("thead", {}, h("tr", {}, h("th", { class: "right" }, "No."), h("th", {}, "State"), h("th", { class: "right" }, "From step"), h("th", {}, "Began"), h("th", { class: "right" }, "Took"), h("th", {}, "Ended with"))),
    h("tbody", {}, [...list].reverse().map((one) =>
      h("tr", {},
        h("td", { class: "right" }, one.attempt),
        h("td", {}, one.state),
        h("td", { class: "right" }, one.from_step ?? "–"),
        h("td", {}, moment(one.started_at)),
        h("td", { class: "right" }, one.ended_at ? duration(one.ended_at - one.started_at) : "–"),
        h("td", {}, one.error?.message ?? one.outcome ?? "–"))))));
}
