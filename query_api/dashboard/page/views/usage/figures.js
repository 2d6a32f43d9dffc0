// The figures of the whole range in a row, and how they differ from the period before.

import { h, replace } from "../../dom.js";
import { count, percent } from "../../format.js";
import { METRICS } from "./question.js";

const SHOWN = ["calls", "error_rate", "p50_ms", "p95_ms", "p99_ms", "active_users", "sessions"];
// Of these more is neither good nor bad.
const NEUTRAL = ["calls", "active_users", "sessions"];

/** Returns {element, show(totals, earlier)}: metrics that are not there yet are shown as on their way. */
export function figures() {
  const element = h("dl.figures", { "aria-label": "Totals" });
  return {
    element,
    show(totals, earlier) {
      replace(element, SHOWN.map((name) => {
        const { label, format } = METRICS[name];
        const here = name in totals;
        return h("div.figure", { dataset: { metric: name } },
          h("dt", {}, label),
          h("dd.figure-value", {}, here ? format(totals[name]) : h("span.loading", {}, "…")),
          name === "error_rate" && "failed" in totals && h("dd.quiet", {}, `${count(totals.failed)} failed`),
          earlier && here && name in earlier && h("dd.figure-change", {}, difference(name, totals[name], earlier[name])));
      }));
    },
  };
}

/** Returns a difference in words: "+12 % (before: 1,100)"; of rates in percentage points, of what has grown much as its multiple. */
export function difference(name, now, then) {
  const { format } = METRICS[name];
  if (now === null || then === null) return [h("span.quiet", {}, "no comparison"), h("span.quiet", {}, ` (before: ${format(then)})`)];
  let text;
  if (name === "error_rate") text = `${sign(now - then)}${count(Math.abs(Math.round((now - then) * 10_000) / 100))} points`;
  else if (now === then) text = "the same";
  else if (then === 0) text = `+${format(now)}`;
  else if (now >= 10 * then) text = `${count(Math.round(now / then))} times that`;
  else text = `${sign(now - then)}${percent(Math.abs(now - then) / then)}`;
  const worse = !NEUTRAL.includes(name) && now > then;
  return [h(worse ? "strong" : "span", {}, text), h("span.quiet", {}, ` (before: ${format(then)})`)];
}

function sign(value) {
  return value > 0 ? "+" : value < 0 ? "−" : "±";
}
