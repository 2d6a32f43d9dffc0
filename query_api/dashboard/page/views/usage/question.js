// What the views of usage and of failures ask the API: the range, the filters it can apply, and the metrics that are shown.

import { get } from "../../api.js";
import { filtersOf, forUsage } from "../../filters.js";
import { count, duration, percent } from "../../format.js";
import { rangeOf, zoneOf } from "../../range.js";

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;

/** Metrics of `/v1/usage`: how they are called and shown. */
export const METRICS = {
  calls: { label: "Calls", format: count },
  failed: { label: "Failed", format: count },
  error_rate: { label: "Error rate", format: percent },
  p50_ms: { label: "p50", format: duration },
  p95_ms: { label: "p95", format: duration },
  p99_ms: { label: "p99", format: duration },
  active_users: { label: "Active users", format: count },
  active_sessions: { label: "Active sessions", format: count },
  sessions: { label: "New sessions", format: count },
};
/** These come from windows that are summed; the others need every user and session of the range, and take longer. */
export const QUICK = ["calls", "failed", "error_rate", "p50_ms", "p95_ms", "p99_ms"];
/** Behind `by=` in the address: what rows are about, and which of the slower metrics mean something there. */
export const BY = {
  tool: { column: "tool_slug", label: "Tool", slow: ["active_users", "active_sessions"] },
  toolkit: { column: "toolkit_slug", label: "Toolkit", slow: ["active_users", "active_sessions"] },
  user: { column: "user_id", label: "User", slow: ["active_sessions", "sessions"] },
  session: { column: "session_id", label: "Session", slow: [] },
};

/**
 * Reads what an address asks, as of a moment.
 *
 * @returns {{fromMs, toMs, zone, live, query: string[][], ignored: Object[]}} query: filters as the API takes them
 */
export function asked(params, nowMs) {
  const { fromMs, toMs, live } = rangeOf(params, nowMs);
  const { query, ignored } = forUsage(filtersOf(params));
  return { fromMs, toMs, live, zone: zoneOf(params), query, ignored };
}

/** Returns the same for the period before, as long as this one. */
export function before(what) {
  const length = what.toMs - what.fromMs;
  return { ...what, fromMs: Math.max(0, what.fromMs - length), toMs: what.fromMs };
}

/** Returns the shortest interval of which a range has at most so many. */
export function intervalOf({ fromMs, toMs }, most = 360) {
  const length = toMs - fromMs;
  if (length <= most * MINUTE_MS) return "minute";
  return length <= most * HOUR_MS ? "hour" : "day";
}

/** Returns ms of an interval; days may be an hour longer or shorter where the clock changes. */
export function lengthOf(interval) {
  return { minute: MINUTE_MS, hour: HOUR_MS, day: DAY_MS }[interval];
}

/** Asks `/v1/usage`. */
export function usage(what, more, signal) {
  return get("v1/usage", pairs(what, more), { signal });
}

/** Asks `/v1/failures`. */
export function failures(what, more, signal) {
  return get("v1/failures", pairs(what, more), { signal });
}

/**
 * Returns parameters of the view of logs that finds what was counted: in the range, under the filters that were applied (not under
 * those that could not be), and with some values more.
 *
 * @param {Object<string, string>} values field -> value
 */
export function logsParams({ query }, params, values) {
  const made = new URLSearchParams([...params].filter(([name]) => ["project", "since", "from", "to", "tz"].includes(name)));
  for (const [name, value] of query) if (!(name in values)) made.append(name, value);
  for (const [name, value] of Object.entries(values)) made.append(name, value);
  return made;
}

function pairs({ fromMs, toMs, query }, more) {
  return [["from", fromMs], ["to", toMs], ...query, ...more];
}
