// Calls per second over the last minutes, by the calls' own time.

import { h, svg } from "../../dom.js";
import { clock, count, percent } from "../../format.js";

const WIDTH = 300;
const HEIGHT = 48;
const MINUTE_S = 60;

const rate = (calls) => {
  const perSecond = calls / MINUTE_S;
  return perSecond === 0 || perSecond >= 10 ? count(Math.round(perSecond)) : new Intl.NumberFormat(undefined, { maximumSignificantDigits: 2 }).format(perSecond);
};

/** Returns {content, warnings} of an answer of usage by the minute; its last minute is still going on. */
export function pace(body, { nowMs, zone }) {
  const whole = body.rows.filter((each) => each.start + MINUTE_S * 1000 <= nowMs);
  const last = whole.at(-1) ?? { calls: 0, start: nowMs };
  const most = whole.reduce((best, each) => (each.calls > best.calls ? each : best), last);
  const words = `${rate(last.calls)} a second in the last whole minute; at most ${rate(most.calls)} in the last ${whole.length} minutes, at ${clock(most.start, zone)}.`;
  const rows = whole.length ? whole : [last];
  const step = WIDTH / Math.max(1, rows.length - 1);
  const points = rows.map((each, index) => `${(index * step).toFixed(1)},${(HEIGHT - 2 - (each.calls / Math.max(1, most.calls)) * (HEIGHT - 4)).toFixed(1)}`).join(" ");
  const content = [
    h("p.reading", {}, rate(last.calls)),
    svg("svg.pace", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words, preserveAspectRatio: "none" }, svg("polyline", { points })),
    h("p", {}, words),
    h("p.quiet", {}, `${count(body.totals.calls)} ${body.totals.calls === 1 ? "call" : "calls"} since ${clock(body.from, zone)}, ${count(body.totals.failed)} of them failed${body.totals.calls ? ` (${percent(body.totals.failed / body.totals.calls)})` : ""}. Counted by the calls' own time.`),
  ];
  return { content, warnings: [] };
}
