// The figures of the whole range in a row, and how they differ from the period before.

import { h, replace } from "../../dom.js";
import { count } from "../../format.js";
import { difference } from "./difference.js";
import { METRICS } from "./question.js";

const SHOWN = ["calls", "error_rate", "p50_ms", "p95_ms", "p99_ms", "active_users", "sessions"];

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
