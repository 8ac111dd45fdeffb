// Says in the header whether what is seen is live: one word for all open streams together.

import { say } from "./dom.js";

const marks = new Map();

/** A function that takes "live", "away" or "ended", for one stream; `signal` forgets it. */
export function link(signal) {
  const key = Symbol("stream");
  signal.addEventListener("abort", () => {
    marks.delete(key);
    show();
  });
  return (state) => {
    if (signal.aborted) return;
    marks.set(key, state);
    show();
  };
}

function show() {
  const states = [...marks.values()];
  const state = states.includes("away") ? "away" : states.includes("live") ? "live" : "";
  const place = document.getElementById("link");
  place.dataset.state = state;
  say(place, { away: "Reconnecting", live: "Live", "": "" }[state]);
}
