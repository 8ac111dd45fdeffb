// Server-sent events over fetch: EventSource cannot send the header that carries the token.
// Format: WHATWG HTML, "Server-sent events".

import { ask } from "./api.js";
import { link } from "./link.js";

/** The messages of a stream of bytes: {id, event, data}, data as text. */
export async function* messages(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let message = { data: [] };
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const raw of lines) {
        const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
        if (line === "") {
          if (message.data.length) yield { ...message, data: message.data.join("\n") };
          message = { data: [] };
          continue;
        }
        const colon = line.indexOf(":");
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "data") message.data.push(text);
        else if (field === "id" || field === "event") message[field] = text;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Hands each message to `hear(event, data, id)` until the stream says `end` or `signal` aborts. After a break it
 * comes again with Last-Event-ID. While the page is hidden nothing is open: browsers keep six connections to a
 * service, for all tabs together.
 */
export async function follow(path, hear, signal) {
  const mark = link(signal);
  let last = null;
  let pause_ms = 500;
  while (!signal.aborted) {
    await seen(signal);
    if (signal.aborted) return;
    const here = new AbortController();
    const stop = () => here.abort();
    const hide = () => document.hidden && stop();
    signal.addEventListener("abort", stop);
    document.addEventListener("visibilitychange", hide);
    try {
      const headers = { Accept: "text/event-stream", ...(last === null ? {} : { "Last-Event-ID": last }) };
      const answer = await ask(path, { headers, signal: here.signal });
      mark("live");
      for await (const message of messages(answer.body)) {
        pause_ms = 500;
        if (message.id) last = message.id;
        hear(message.event ?? "message", JSON.parse(message.data), message.id);
        if (message.event === "end") return mark("ended");
      }
    } catch (error) {
      if ([401, 403, 404].includes(error.status)) return mark("ended");
    } finally {
      signal.removeEventListener("abort", stop);
      document.removeEventListener("visibilitychange", hide);
    }
    if (signal.aborted) return;
    if (!document.hidden) {
      mark("away");
      await wait(pause_ms, signal);
      pause_ms = Math.min(2 * pause_ms, 8000);
    }
  }
}

function wait(milliseconds, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
  });
}

function seen(signal) {
  if (!document.hidden) return undefined;
  return new Promise((done) => {
    const look = () => (!document.hidden || signal.aborted) && done();
    document.addEventListener("visibilitychange", look, { signal });
    signal.addEventListener("abort", done, { once: true });
  });
}
