// Numbers, times and sizes, for people. "–" stands for what is not known.

const NONE = "–";
const whole = new Intl.NumberFormat("en-US");
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short", hour12: false });

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Four significant digits, or as many as `digits` says. */
export function number(value, digits = 4) {
  if (!isNumber(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(Math.min(2, digits - 1));
  if (size >= 1000) return whole.format(Math.round(value));
  return value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size))));
}

/** As `number`, without zeros at the end: for ends of ranges and what people write. */
export const plain = (value) => (isNumber(value) && Math.abs(value) < 1e6 ? String(+value.toPrecision(4)) : number(value));

export const count = (value) => (isNumber(value) ? whole.format(Math.round(value)) : NONE);
export const percent = (value, digits = 4) => (isNumber(value) ? `${(100 * value).toFixed(digits - 2)} %` : NONE);

/** "3 shards", "1 shard". */
export const many = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

export function duration(seconds) {
  if (!isNumber(seconds) || seconds < 0) return NONE;
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${String(minutes % 60).padStart(2, "0")} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function ago(seconds, now = Date.now() / 1000) {
  if (!isNumber(seconds)) return NONE;
  const past = Math.max(0, now - seconds);
  if (past < 10) return "just now";
  if (past < 60) return `${Math.floor(past)} s ago`;
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  return past < 86400 ? `${Math.floor(past / 3600)} h ago` : day.format(new Date(seconds * 1000));
}

export const time = (seconds) => (isNumber(seconds) ? clock.format(new Date(seconds * 1000)) : NONE);
export const moment = (seconds) => (isNumber(seconds) ? date.format(new Date(seconds * 1000)) : NONE);

export function bytes(value) {
  if (!isNumber(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${step === 0 ? value : value.toFixed(1)} ${units[step]}`;
}

const SHORT = { auc: "AUC", f1: "F1", mae: "MAE", mse: "MSE", r2: "R²", rmse: "RMSE" };

/** "validation_loss" as "validation loss", "r2" as "R²". */
export const words = (name) => name.split("_").map((word) => SHORT[word] ?? word).join(" ");
