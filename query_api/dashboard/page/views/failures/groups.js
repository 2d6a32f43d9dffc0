// Groups of failures as rows: what failed, why, what to do, for whom, since when.

import { link } from "../../address.js";
import { h, replace } from "../../dom.js";
import { ago, count, moment, percent } from "../../format.js";
import { logsParams } from "../usage/question.js";
import { head } from "../usage/sort.js";
import { spark } from "../usage/spark.js";
import { keyOf, sharedBy } from "./trends.js";

export const COLUMNS = [
  { name: "message", label: "What failed", text: true },
  { name: "likely_cause", label: "Likely cause and what to do", text: true },
  { name: "calls", label: "Failures", number: true },
  { name: "users", label: "Users hit", number: true },
  { name: "first_seen", label: "First seen" },
  { name: "last_seen", label: "Last seen" },
  { name: null, label: "Trend" },
];

/** Returns groups in the order of a column; ties as the API has them, most failures first. */
export function sorted(groups, { by, descending }) {
  const turn = descending ? -1 : 1;
  return [...groups].sort((a, b) => turn * (a[by] < b[by] ? -1 : a[by] > b[by] ? 1 : 0));
}

/** Returns {element, trends(found)} for groups in their order. */
export function groupsTable(groups, sort, what, params) {
  const places = groups.map((group) => ({ group, place: h("div.trend-place") }));
  const element = h("table.failures-table", { role: "table" },
    h("caption.unseen", {}, "Groups of failures"),
    head(COLUMNS, sort, "failures", params),
    h("tbody", { role: "rowgroup" }, places.map(({ group, place }) => row(group, place, what, params))));
  return {
    element,
    /** @param {Map|null} found null: there are none to be had */
    trends(found) {
      for (const { group, place } of places) {
        const series = found?.get(keyOf(group));
        if (!series) {
          replace(place, h("span.quiet", {}, "not available: too many groups"));
          continue;
        }
        const shared = sharedBy(group, series);
        replace(place, spark(series.points, { ...what, label: shared ? `Trend of ${shared}` : `Trend of these ${count(group.calls)} failures` }), shared && h("div.quiet.trend-note", {}, shared));
      }
    },
  };
}

/** Returns the address of exactly the logs of a group. */
export function logsOf(group, what, params) {
  return logsParams(what, params, { status: "failed", failure_class: group.failure_class, tool_slug: group.tool_slug, failure_pattern: group.message });
}

function row(group, trend, what, params) {
  const logs = logsOf(group, what, params);
  const example = new URLSearchParams(logs);
  example.set("log", group.example_log_id);
  const times = (iso) => h("time", { datetime: iso, title: ago(Date.parse(iso)) }, moment(Date.parse(iso), what.zone, { millis: false }));
  const cell = (label, number, ...children) => h(number ? "td.number" : "td", { role: "cell", dataset: { label } }, h("div", {}, children));
  return h("tr", { role: "row" },
    h("th", { scope: "row", role: "rowheader" },
      h("div.row", {}, h("span.badge.failed", {}, group.failure_class), h("bdi.tool", {}, group.tool_slug)),
      h("a.key", { href: link("logs", logs), dataset: { focus: `row ${group.example_log_id}` }, title: "Its logs" }, h("bdi.message", {}, group.message || "(no message)")),
      h("div.links", {}, h("a", { href: link("logs", example) }, "Example log"))),
    cell("Likely cause and what to do", false, h("div", {}, group.likely_cause), h("div.quiet", {}, group.action)),
    cell("Failures", true, count(group.calls), h("div.quiet", {}, percent(group.share))),
    cell("Users hit", true, count(group.users)),
    cell("First seen", false, times(group.first_seen)),
    cell("Last seen", false, times(group.last_seen)),
    cell("Trend", false, trend));
}
