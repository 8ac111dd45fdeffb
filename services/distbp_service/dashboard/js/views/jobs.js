// All jobs, newest first. The first active ones are followed live; the rest is asked for again now and then.

import { call, poll } from "../api.js";
import { emptiness, loading, toast, trouble } from "../dialogs.js";
import { eachFrame, fill, h, say } from "../dom.js";
import { keys } from "../shortcuts.js";
import { follow } from "../sse.js";
import { ACTIVE, TERMINAL } from "../states.js";
import { jobRow } from "./job_row.js";

const FOLLOWED = 3; // of the six connections that a browser keeps to one service
const EVERY_MS = 2500;
const FILTERS = {
  all: ["All", []],
  active: ["Active", [...ACTIVE, "paused"]],
  completed: ["Completed", ["completed"]],
  failed: ["Failed", ["failed", "cancelled"]],
};

export function jobsView(root, { query, signal, go }) {
  let filter = FILTERS[query.get("show")] ? query.get("show") : "all";
  let text = "";
  let more = null; // pages beyond the first
  let cursor = null;
  let asked = 0;
  const rows = new Map();
  const chosen = new Set();
  const followed = new Map();
  const askedFor = new Set();

  const search = h("input", { type: "search", placeholder: "Find by name", "aria-label": "Find by name", maxlength: 100 });
  const choices = h("div", { class: "choices", role: "group", "aria-label": "Which jobs" });
  const compare = h("button", { type: "button", disabled: true, onclick: () => go(`/compare?jobs=${[...chosen].join(",")}`) }, "Compare");
  const list = h("div", { class: "jobs", role: "list", "aria-label": "Jobs" });
  const head = h(
    "div",
    { class: "job-row job-head", "aria-hidden": "true" },
    ["", "Name", "State", "Progress", "Loss", "Metric", "Started"].map((label, i) => h("span", { class: i > 3 ? "right" : null }, label)),
  );
  const body = h("div", {}, loading("Loading jobs"));
  const further = h("button", { type: "button", class: "further", hidden: true, onclick: addPage }, "Show older jobs");
  root.append(
    h("div", { class: "page-head" }, h("h1", {}, "Jobs"), h("div", { class: "row" }, search, compare)),
    choices, body, further,
  );

  function showChoices() {
    fill(
      choices,
      Object.entries(FILTERS).map(([id, [label]]) =>
        h("button", { type: "button", class: "choice", "aria-pressed": String(id === filter), onclick: () => choose(id) }, label),
      ),
    );
    choices.children[Object.keys(FILTERS).indexOf(filter)].dataset.now = "";
  }

  function choose(id) {
    filter = id;
    showChoices();
    choices.querySelector("[data-now]").focus();
    again();
  }

  function again() {
    more = null;
    refresh();
  }

  const address = (from) => {
    const wanted = new URLSearchParams({ limit: "50" });
    for (const state of FILTERS[filter][1]) wanted.append("state", state);
    if (text) wanted.set("name", text);
    if (from) wanted.set("cursor", from);
    return `/v1/jobs?${wanted}`;
  };

  async function refresh() {
    asked += 1;
    const turn = asked;
    try {
      const page = await call(address(), { signal });
      if (turn !== asked) return;
      if (more === null) cursor = page.cursor;
      show([...page.items, ...(more ?? []).filter((job) => !page.items.some((one) => one.id === job.id))]);
    } catch (error) {
      if (signal.aborted || turn !== asked) return;
      if (rows.size === 0) fill(body, trouble(error, refresh));
    }
  }

  async function addPage() {
    further.disabled = true;
    try {
      const page = await call(address(cursor), { signal });
      more = [...(more ?? []), ...page.items];
      cursor = page.cursor;
      await refresh();
    } catch (error) {
      if (!signal.aborted) toast(error.message, "bad");
    }
    further.disabled = false;
  }

  function show(jobs) {
    further.hidden = cursor === null;
    if (jobs.length === 0) {
      rows.clear();
      fill(body, text || filter !== "all" ? emptiness("No such jobs") : first());
      return tend([]);
    }
    if (!list.isConnected) fill(body, head, list);
    const ids = new Set(jobs.map((job) => job.id));
    for (const [id, row] of rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      rows.delete(id);
    }
    jobs.forEach((job, index) => {
      if (!rows.has(job.id)) rows.set(job.id, jobRow(job, pick));
      const row = rows.get(job.id);
      row.update(job);
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
    });
    const live = jobs.filter((job) => !TERMINAL.has(job.state) && job.attempt > 0 && job.state !== "paused");
    complete(jobs.filter((job) => !live.includes(job)));
    return tend(live.slice(0, FOLLOWED));
  }

  // What the list does not say of jobs that have no result: their last values, each asked for once.
  async function complete(jobs) {
    for (const { id, step, metrics } of jobs) {
      if (signal.aborted || step === 0 || metrics || askedFor.has(id)) continue;
      askedFor.add(id);
      try {
        const found = await call(`/v1/jobs/${id}/metrics?from=${step}&points=2`, { signal });
        if (found.items.length) rows.get(id)?.live({ metrics: found.items.at(-1).data });
      } catch {
        // the row stays without them
      }
    }
  }

  // Follows these jobs and no others.
  function tend(jobs) {
    const wanted = new Set(jobs.map((job) => job.id));
    for (const [id, control] of followed) {
      if (wanted.has(id)) continue;
      control.abort();
      followed.delete(id);
    }
    for (const { id } of jobs) {
      if (followed.has(id)) continue;
      const control = new AbortController();
      followed.set(id, control);
      const last = {};
      const draw = eachFrame(() => rows.get(id)?.live(last));
      follow(`/v1/jobs/${id}/metrics:stream`, (event, data) => {
        if (event === "metric") last.metrics = data.data;
        else if (event === "progress") last.progress = data;
        else refresh();
        draw();
      }, control.signal);
    }
  }

  function pick(id, on) {
    if (on) chosen.add(id);
    else chosen.delete(id);
    compare.disabled = chosen.size < 2;
    compare.classList.toggle("main", chosen.size >= 2);
    say(compare, chosen.size ? `Compare ${chosen.size}` : "Compare");
  }

  let typing = null;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      text = search.value.replace(/[^A-Za-z0-9 ._-]/g, "").trim();
      again();
    }, 200);
  });
  const move = (by) => {
    const links = [...list.querySelectorAll("a.job-name")];
    const at = links.indexOf(document.activeElement?.closest(".job-row")?.querySelector("a.job-name"));
    links[Math.min(links.length - 1, Math.max(0, at + by))]?.focus();
  };
  const focused = () => document.activeElement?.closest(".job-row")?.querySelector("input");
  keys({
    j: ["Next job", () => move(1)],
    k: ["Job before", () => move(-1)],
    x: ["Choose the job, to compare", () => focused()?.click()],
    c: ["Compare the chosen jobs", () => compare.click()],
    "/": ["Find by name", () => search.focus()],
  }, signal);
  signal.addEventListener("abort", () => followed.forEach((control) => control.abort()));
  showChoices();
  poll(refresh, EVERY_MS, signal);
}

const first = () =>
  emptiness(
    "No jobs yet",
    h("p", { class: "quiet" }, "Submit one from Python, and it shows up here."),
    h("pre", {}, "import distbp\n\nhandle = distbp.submit(job)\nhandle.wait(progress=True)"),
  );
