// Numbers and times as the reader writes them: by the browser's locale, in the zone that is chosen.

import { serverMs } from "./clock.js";

const made = new Map();

function formatter(kind, options) {
  const key = kind + JSON.stringify(options);
  if (!made.has(key)) made.set(key, kind === "number" ? new Intl.NumberFormat(undefined, options) : new Intl.DateTimeFormat(undefined, options));
  return made.get(key);
}

/** 12,345 */
export function count(value) {
  return value === null || value === undefined ? "–" : formatter("number", {}).format(value);
}

/** 1.2M, where there is little room */
export function short(value) {
  return value === null || value === undefined ? "–" : formatter("number", { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

/** 4.2 %, of a fraction; never 0 % of something */
export function percent(fraction) {
  if (fraction === null || fraction === undefined) return "–";
  const digits = fraction > 0 && fraction < 0.001 ? 3 : 1;
  return formatter("number", { style: "percent", maximumFractionDigits: digits }).format(fraction);
}

/** 84 ms, 1.2 s, 3 min 20 s */
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1) return `${formatter("number", { maximumFractionDigits: 2 }).format(ms)} ms`;
  if (ms < 1000) return `${formatter("number", { maximumFractionDigits: 0 }).format(ms)} ms`;
  if (ms < 60_000) return `${formatter("number", { maximumFractionDigits: 1 }).format(ms / 1000)} s`;
  const whole = Math.round(ms / 1000);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** 11/29/2026, 12:23:07.123 */
export function moment(ms, zone, { millis = true } = {}) {
  return formatter("date", {
    timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit",
    hour: "2-digit", minute: "2-digit", second: "2-digit", ...(millis ? { fractionalSecondDigits: 3 } : {}),
  }).format(ms);
}

/** 12:23:07 */
export function clock(ms, zone, { millis = false } = {}) {
  return formatter("date", {
    timeZone: zone, hour: "2-digit", minute: "2-digit", second: "2-digit", ...(millis ? { fractionalSecondDigits: 3 } : {}),
  }).format(ms);
}

/** 12:23 */
export function minute(ms, zone) {
  return formatter("date", { timeZone: zone, hour: "2-digit", minute: "2-digit" }).format(ms);
}

/** Nov 29 */
export function day(ms, zone) {
  return formatter("date", { timeZone: zone, month: "short", day: "numeric" }).format(ms);
}

/** Berlin, GMT+1: the zone as it is at a moment */
export function zoneName(zone, ms = serverMs()) {
  const part = formatter("date", { timeZone: zone, timeZoneName: "short" }).formatToParts(ms).find((each) => each.type === "timeZoneName");
  return zone === "UTC" ? "UTC" : `${zone.split("/").at(-1).replaceAll("_", " ")}, ${part?.value ?? zone}`;
}

/** 3 minutes ago */
export function ago(ms, nowMs = serverMs()) {
  const seconds = Math.round((ms - nowMs) / 1000);
  const [unit, length] = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]].find(([, each]) => Math.abs(seconds) >= each) ?? ["second", 1];
  return new Intl.RelativeTimeFormat(undefined, { numeric: "auto" }).format(Math.trunc(seconds / length), unit);
}
