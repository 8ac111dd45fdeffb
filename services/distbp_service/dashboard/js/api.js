// Calls to the service. Every refusal becomes an ApiError with the service's own words.

import { signOut, token } from "./session.js";

export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.message ?? "the service answered in a way this page does not know");
    this.status = status;
    this.code = problem.code ?? "unknown";
    this.faults = problem.faults ?? [];
  }
}

/** The answer's body, read as `as` ("json" or "blob"). Raises ApiError, or AbortError where `signal` says so. */
export async function call(path, { method = "GET", body, type, signal, as = "json", key = token() } = {}) {
  const answer = await ask(path, { method, body, type, signal, key });
  if (answer.status === 204) return null;
  return as === "blob" ? answer.blob() : answer.json();
}

export const post = (path, body) => call(path, { method: "POST", body });

/** The Response itself, known to be a good one. type: of a body that is sent as it is; else it is sent as JSON. */
export async function ask(path, { method = "GET", body, type, headers = {}, signal, key = token() } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (key) sent.Authorization = `Bearer ${key}`;
  if (body !== undefined) sent["Content-Type"] = type ?? "application/json";
  let answer;
  try {
    const text = body === undefined || type ? body : JSON.stringify(body);
    answer = await fetch(path, { method, headers: sent, body: text, signal, cache: "no-store", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { code: "away", message: "The service does not answer. This page tries again by itself." });
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401 && key === token()) signOut();
  throw new ApiError(answer.status, problem);
}

/** Calls `step` now and every `every_ms` while the page is seen; at once when it is seen again. */
export function poll(step, every_ms, signal) {
  let timer = null;
  const run = async () => {
    clearTimeout(timer);
    if (signal.aborted || document.hidden) return;
    await step();
    if (!signal.aborted) timer = setTimeout(run, every_ms);
  };
  document.addEventListener("visibilitychange", run, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  return run();
}
