// How values look to people. All take JSON as protobuf writes it: int64 as strings, durations as "1.5s".

const NUMBER = new Intl.NumberFormat("en");
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const MONEY = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumSignificantDigits: 3 });

export const count = (value) => NUMBER.format(Number(value ?? 0));
export const compact = (value) => COMPACT.format(Number(value ?? 0));
export const seconds = (duration) => (duration === undefined ? undefined : Number.parseFloat(duration));
export const milliseconds = (time) => (time ? Date.parse(time) : undefined);
export const shortName = (name, prefix) => (name ?? "").replace(prefix, "").toLowerCase().replaceAll("_", " ");
export const stateName = (state) => shortName(state, "RUN_STATE_") || "unknown";
export const hasEnded = (state) => ENDED.has(stateName(state));

const ENDED = new Set(["succeeded", "failed", "cancelled", "timed out", "abandoned"]);

export function span(value) {
  if (value === undefined || Number.isNaN(value)) return "";
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 59.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  if (hours >= 48) return `${Math.floor(hours / 24)} d`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${rest} s`;
}

export function age(time) {
  const passed = Math.max(0, (Date.now() - milliseconds(time)) / 1000);
  if (passed < 60) return `${Math.floor(passed)} s`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min`;
  if (passed < 48 * 3600) return `${Math.floor(passed / 3600)} h`;
  return `${Math.floor(passed / 86400)} d`;
}

export const tokens = (usage) => Number(usage?.input_tokens ?? 0) + Number(usage?.output_tokens ?? 0);
export const cost = (usage) => (usage?.cost_usd === undefined ? "" : MONEY.format(usage.cost_usd));

// A score: 0.833, passed, or a class.
export function score(value) {
  if (value === undefined) return "";
  if (typeof value === "boolean") return value ? "passed" : "failed";
  return typeof value === "number" ? String(Number(value.toFixed(3))) : String(value);
}

// JSON text, indented; what is not JSON, as it is.
export function pretty(text) {
  if (!text) return "";
  try {
    const value = JSON.parse(text);
    if (typeof value === "string") return value;
    // Numbers beyond a double's precision would change their value: such text stays as it came.
    return /\d{16,}/.test(text) ? text : JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: "UTC" });
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

// All times are in UTC: a view that is shared looks the same to everybody, and a day's bucket is a day.
export const clock = (time) => CLOCK.format(time);
export const date = (time) => DATE.format(time);
export const moment = (time) => `${date(time)} ${clock(time)}`;
