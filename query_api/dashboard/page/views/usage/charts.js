// The charts of usage: calls, error rate, durations, users and sessions, over the intervals of the range.

import { change } from "../../address.js";
import { h } from "../../dom.js";
import { count, day, duration, minute, moment, percent, short } from "../../format.js";
import { fixed } from "../../range.js";
import { chart } from "./chart.js";
import { intervalOf, lengthOf } from "./question.js";

// Below this a range holds hardly a call, and clocks of callers differ by more.
const SHORTEST_MS = 1_000;

const CALLS = { format: count, axisFormat: short, whole: true, lines: [
  { name: "Succeeded", of: (row) => row.calls - row.failed, kind: "bar", colour: "--accent" },
  { name: "Failed", of: (row) => row.failed, kind: "bar", colour: "--bad", pattern: "/" },
] };
const ERRORS = { format: percent, lines: [{ name: "Error rate", of: (row) => row.error_rate, kind: "line", colour: "--bad", symbol: "circle" }] };
const DURATIONS = { format: duration, lines: [
  { name: "p50", of: (row) => row.p50_ms, kind: "line", colour: "--good", symbol: "circle" },
  { name: "p95", of: (row) => row.p95_ms, kind: "line", colour: "--accent", dash: "dash", symbol: "square" },
  { name: "p99", of: (row) => row.p99_ms, kind: "line", colour: "--warn", dash: "dot", symbol: "diamond" },
] };
const PEOPLE = { format: count, axisFormat: short, whole: true, lines: [
  { name: "Active users", of: (row) => row.active_users, kind: "line", colour: "--accent", symbol: "circle" },
  { name: "New sessions", of: (row) => row.sessions, kind: "line", colour: "--warn", dash: "dash", symbol: "square" },
] };

/** Returns {element, quick(what, answer, earlier), slow(what, answer, earlier), rest()}: answers are series of `/v1/usage`. */
export function charts() {
  // Where a drag came from, so that going back undoes the drag and never more.
  const dragged = new Set();
  const asked = {
    zoom(fromMs, toMs) {
      const from = Math.max(0, fromMs);
      change({ ...fixed(from, Math.max(toMs, from + SHORTEST_MS)), log: null });
      dragged.add(location.hash);
    },
    back() {
      if (dragged.has(location.hash)) history.back();
    },
  };
  const undo = h("button.quiet", { type: "button", hidden: true, onclick: asked.back }, "← Back to the range before");
  const [calls, errors, durations, people] = [chart("Calls", CALLS, asked), chart("Error rate", ERRORS, asked), chart("Durations", DURATIONS, asked), chart("Users and sessions", PEOPLE, asked)];
  const all = [calls, errors, durations, people];
  const hint = h("p.quiet", {}, "Drag over a chart to look closer.");
  const element = h("section.charts-part", { "aria-label": "Over time" }, h("div.row", {}, hint, undo), h("div.charts", {}, all.map((each) => each.element)));

  return {
    element,
    quick(what, { rows, totals, interval }, earlier) {
      undo.hidden = !dragged.has(location.hash);
      const base = seriesOf(what, rows, interval);
      const most = rows.reduce((found, row) => (row.calls > found.calls ? row : found), { calls: 0 });
      const busiest = most.calls ? `; most in ${base.when(most.start)}: ${count(most.calls)}` : "";
      const then = earlier && ghosts(what, earlier.rows, rows, interval);
      calls.show({ ...base, said: `${count(totals.calls)} calls, ${count(totals.failed)} failed, per ${interval}${busiest}.`, ghost: then && { name: "Calls before", of: (at) => then.get(at)?.calls ?? null } });
      errors.show({ ...base, said: `${percent(totals.error_rate)} of all calls, per ${interval}.`, ghost: then && { name: "Before", of: (at) => then.get(at)?.error_rate ?? null } });
      durations.show({ ...base, said: `Half took up to ${duration(totals.p50_ms)}, 95 of 100 up to ${duration(totals.p95_ms)}, 99 up to ${duration(totals.p99_ms)}; per ${interval}.`, ghost: then && { name: "p95 before", of: (at) => then.get(at)?.p95_ms ?? null } });
    },
    slow(what, { rows, totals, interval }, earlier) {
      const then = earlier && ghosts(what, earlier.rows, rows, interval);
      people.show({ ...seriesOf(what, rows, interval), said: `${count(totals.active_users)} users with calls, ${count(totals.sessions)} sessions begun, per ${interval}.`, ghost: then && { name: "Users before", of: (at) => then.get(at)?.active_users ?? null } });
    },
    rest() {
      for (const each of all) each.rest();
    },
  };
}

/**
 * Returns the interval as a question asks for it.
 *
 * @param {boolean} [coarse] days already beyond three days, which is how people think of users and sessions
 */
export function series(what, { coarse = false } = {}) {
  return [["interval", intervalOf(what, coarse ? 72 : 360)], ["timezone", what.zone], ["limit", 10_000]];
}

function seriesOf({ fromMs, toMs, zone }, rows, interval) {
  const when = (start) => (interval === "day" ? day(start, zone) : toMs - fromMs > 43_200_000 ? `${day(start, zone)}, ${minute(start, zone)}` : minute(start, zone));
  return { rows, fromMs, toMs, zone, lengthMs: lengthOf(interval), when: (start) => (Number.isFinite(start) ? when(start) : moment(fromMs, zone)) };
}

// The period before has other borders than this one where it is no whole number of intervals long: each of its intervals is put
// beside that of ours it overlaps most.
function ghosts(what, earlier, rows, interval) {
  const shift = what.toMs - what.fromMs;
  const made = new Map();
  let at = 0;
  for (const row of rows) {
    while (at + 1 < earlier.length && Math.abs(earlier[at + 1].start + shift - row.start) <= Math.abs(earlier[at].start + shift - row.start)) at += 1;
    if (earlier.length && Math.abs(earlier[at].start + shift - row.start) < lengthOf(interval)) made.set(row.start, earlier[at]);
  }
  return made;
}
