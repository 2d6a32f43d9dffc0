// The time that is looked at, as it stands in the address: `since` (up to now), or `from` and `to` in epoch ms; and `tz`.

import { serverMs } from "./clock.js";

const UNIT_MS = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const SINCE = /^(\d{1,5})([smhd])$/;

export const DEFAULT_SINCE = "1h";
/** Offered as they are; others by "custom". */
export const OFFERED = [
  ["15m", "Last 15 minutes"],
  ["1h", "Last hour"],
  ["24h", "Last 24 hours"],
  ["7d", "Last 7 days"],
  ["30d", "Last 30 days"],
];

/** Returns ms of "15m", "1h", "7d"; null for anything else. */
export function sinceMs(text) {
  const match = SINCE.exec(text ?? "");
  return match ? Number(match[1]) * UNIT_MS[match[2]] : null;
}

/**
 * Reads the range of an address, as of a moment.
 *
 * @returns {{fromMs: number, toMs: number, live: boolean, since: string|null}} [fromMs, toMs); live: it ends now
 */
export function rangeOf(params, nowMs = serverMs()) {
  const from = whole(params.get("from"));
  const to = whole(params.get("to"));
  if (from !== null && (to === null || to >= from)) {
    return { fromMs: from, toMs: to ?? nowMs, live: to === null, since: null };
  }
  const since = sinceMs(params.get("since")) ? params.get("since") : DEFAULT_SINCE;
  return { fromMs: nowMs - sinceMs(since), toMs: nowMs, live: true, since };
}

/** Returns changes of the address for a range of its own. */
export function fixed(fromMs, toMs) {
  return { since: null, from: String(Math.floor(fromMs)), to: String(Math.ceil(toMs)) };
}

/** Returns changes of the address for a range up to now. */
export function upToNow(since) {
  return { since, from: null, to: null };
}

/** Returns the zone times are shown in: the address's if it is one, else the reader's own. */
export function zoneOf(params) {
  const named = params.get("tz");
  return named && isZone(named) ? named : ownZone();
}

/** Returns the reader's own zone. */
export function ownZone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

/** Tells whether a name is one of a time zone. */
export function isZone(name) {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/**
 * Reads a date and a time as they are written into an input (2026-04-17T10:25:00) by the clock of a zone; null if they are none.
 * Of a time that is lived twice the first, of one that is skipped the one as much later.
 */
export function instantIn(text, zone) {
  const asUtc = Date.parse(`${text}Z`);
  if (Number.isNaN(asUtc)) return null;
  // By the offset of the day before, and by the one that holds then: the first that shows the time asked for.
  const before = asUtc - offsetMs(asUtc - 86_400_000, zone);
  const after = asUtc - offsetMs(before, zone);
  return [before, after].find((each) => each + offsetMs(each, zone) === asUtc) ?? before;
}

/** Returns a moment as an input takes it, by the clock of a zone. */
export function inputText(ms, zone) {
  return new Date(ms + offsetMs(ms, zone)).toISOString().slice(0, 19);
}

/** Returns how far the clock of a zone is ahead of UTC, ms. */
export function offsetMs(ms, zone) {
  const parts = new Intl.DateTimeFormat("en-US", {
    timeZone: zone, hourCycle: "h23", era: "short",
    year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric",
  }).formatToParts(ms);
  const of = Object.fromEntries(parts.map(({ type, value }) => [type, Number(value)]));
  return Date.UTC(of.year, of.month - 1, of.day, of.hour, of.minute, of.second) - Math.floor(ms / 1000) * 1000;
}

function whole(text) {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}
