// Events in words. A kind that is not known here shows its numbers.

import { count, duration, isNumber, many, number, words } from "../format.js";
import { byName } from "../metrics.js";

const TEXTS = {
  attempt_started: (d) => `attempt ${d.attempt ?? ""} from step ${count(d.from_step)} of ${count(d.total_steps)}, ${many(d.shards, "shard")} ${d.workers ? `on ${many(d.workers, "worker")} (${words(d.exchange ?? "?")})` : "in the runner itself"}`,
  epoch_ended: (d) => `epoch ${count(d.epoch)}, step ${count(d.step)}, ${count(d.samples_per_second)} samples/s${d.improved ? ", the best so far" : ""}`,
  checkpoint_saved: (d) => `step ${count(d.step)}, in ${duration(d.seconds)}`,
  checkpoint_set_aside: (d) => `${d.path ?? ""}: ${d.reason ?? ""}`,
  early_stopping: (d) => `no better ${words(String(d.metric))} for ${count(d.epochs)} epochs; best ${number(d.best)} at epoch ${count(d.best_epoch)}`,
  team_changed: (d) => `step ${count(d.step)}: ${d.reason ?? ""}`,
  noted: (d) => d.text ?? "",
  state: (d) => [d.from ? `${d.from} → ${d.to ?? d.state}` : (d.to ?? d.state), d.reason].filter(Boolean).join(": "),
};

export function eventText({ kind, data }) {
  if (TEXTS[kind]) return TEXTS[kind](data);
  return Object.entries(data)
    .filter(([name, value]) => name !== "kind" && name !== "at" && (typeof value !== "object" || value === null))
    .map(([name, value]) => `${words(name)} ${isNumber(value) ? byName(name)(value) : value}`)
    .join(", ");
}
