// Usage by tool, toolkit, user or session.

import { go, link } from "../../address.js";
import { h, replace, say } from "../../dom.js";
import { withFilter } from "../../filters.js";
import { count } from "../../format.js";
import { empty, failed, loading } from "../../states.js";
import { csv, download } from "./csv.js";
import { difference } from "./difference.js";
import { before, BY, intervalOf, logsParams, METRICS, QUICK, usage } from "./question.js";
import { drawnAnew, head, sortOf } from "./sort.js";
import { parts, spark } from "./spark.js";

const FIRST_ROWS = 100;
const MORE_ROWS = 1_000;
const API_ROWS = 10_000;

/** Returns what an address says about the table. */
export function tableOf(params) {
  const by = Object.hasOwn(BY, params.get("by")) ? params.get("by") : "tool";
  const names = ["key", ...QUICK, ...BY[by].slow];
  return { by, ...BY[by], names, sort: sortOf(params, names, "calls") };
}

/** Returns {element, show(what, params, signal)}; what: of question.js. `show` ends when the rows are drawn; some cells come later. */
export function table() {
  const tabs = h("nav.tabs", { "aria-label": "Table by" });
  const file = h("button", { type: "button" }, "Download CSV");
  const place = h("div");
  const note = h("p.quiet", { role: "status" });
  const element = h("section.table-part", { "aria-label": "Table" }, h("div.row", {}, tabs, h("span.grow"), file), place, note);
  let most = FIRST_ROWS;

  async function show(what, params, signal) {
    const asked = tableOf(params);
    replace(tabs, Object.entries(BY).map(([name, { label }]) => {
      const to = new URLSearchParams(params);
      to.set("by", name);
      to.delete("sort");
      return h("a", { href: link("usage", to), "aria-current": name === asked.by ? "true" : null }, `By ${label.toLowerCase()}`);
    }));
    file.onclick = () => save(what, asked, params, file, note, signal);
    replace(note);
    if (place.dataset.by !== asked.by) replace(place, loading());
    place.dataset.by = asked.by;
    place.setAttribute("aria-busy", "true");
    // What orders the rows has to be known for all of them; the other slow ones only for the rows that are shown.
    const first = BY[asked.by].slow.includes(asked.sort.by) ? [...QUICK, asked.sort.by] : QUICK;
    let answer;
    try {
      answer = await usage(what, [...grouped(asked), ["metrics", first.join(",")], ["limit", most]], signal);
    } catch (error) {
      if (error.name === "AbortError") return;
      place.removeAttribute("aria-busy");
      return replace(place, failed(error, () => show(what, params, signal)));
    }
    const rows = drawn(answer.rows, asked, what, params);
    place.removeAttribute("aria-busy");
    drawnAnew(place, () => replace(place, rows.length ? body(rows, asked, params) : empty("No calls in this range", "Take a longer range, or fewer filters.")));
    file.disabled = !rows.length;
    if (answer.truncated) {
      replace(note, `The first ${count(rows.length)} of more. `, most === FIRST_ROWS && h("button", { type: "button", onclick: () => { most = MORE_ROWS; show(what, params, signal); } }, `Show up to ${count(MORE_ROWS)}`), ` The file has up to ${count(API_ROWS)}.`);
    } else replace(note, rows.length ? `All ${count(rows.length)} shown.` : "");
    const compared = params.get("compare") === "1";
    Promise.all([
      fillSlow(rows, asked, what, first, signal), fillSparks(rows, asked, what, signal), compared && fillEarlier(rows, asked, what, signal),
    ]).catch((error) => {
      if (error.name !== "AbortError") replace(note, `Some columns could not be asked for: ${error.message}`);
    });
  }

  return { element, show };
}

function grouped({ column, sort }) {
  return [["group_by", column], ["order_by", sort.by], ["order_direction", sort.descending ? "desc" : "asc"]];
}

/** Returns rows with the cells that are filled later. */
function drawn(rows, asked, what, params) {
  return rows.map((row) => {
    const key = row[asked.column];
    const cells = Object.fromEntries(asked.names.slice(1).map((name) => [name, h("td.number", {}, name in row ? METRICS[name].format(row[name]) : h("span.loading", {}, "…"))]));
    const trend = h("td.trend");
    const filtered = withFilter(params, { field: asked.column, value: key }, { instead: true });
    const logs = logsParams(what, params, { [asked.column]: key });
    const element = h("tr", { onclick: (event) => { if (!event.target.closest("a") && !getSelection().toString()) go("usage", filtered); } },
      h("th", { scope: "row" }, h("a.key", { href: link("usage", filtered), dataset: { focus: `row ${key}` }, title: `Narrow down to ${key || "none"}` }, key === "" ? h("span.quiet", {}, "(none)") : h("bdi", {}, key))),
      Object.values(cells), trend, h("td", {}, h("a", { href: link("logs", logs), "aria-label": `Logs of ${key || "none"}` }, "Logs")));
    return { key, row, cells, trend, element };
  });
}

function body(rows, asked, params) {
  const columns = [
    { name: "key", label: asked.label, text: true },
    ...asked.names.slice(1).map((name) => ({ name, label: METRICS[name].label, number: true })),
    { name: null, label: "Calls over the range" }, { name: null, label: "Logs" },
  ];
  return h("div.scroll", {}, h("table.usage-table", {},
    h("caption.unseen", {}, `Usage by ${asked.label.toLowerCase()}`),
    head(columns, asked.sort, "usage", params),
    h("tbody", {}, rows.map((each) => each.element))));
}

async function fillSlow(rows, asked, what, have, signal) {
  const names = asked.slow.filter((name) => !have.includes(name));
  if (!names.length) return;
  for (const part of parts(rows.map((each) => each.key), API_ROWS)) {
    const answer = await usage(only(what, asked, part), [["group_by", asked.column], ["metrics", names.join(",")], ["limit", API_ROWS]], signal);
    const found = new Map(answer.rows.map((row) => [row[asked.column], row]));
    for (const each of rows.filter(({ key }) => part.includes(key))) {
      for (const name of names) replace(each.cells[name], METRICS[name].format(found.get(each.key)?.[name] ?? 0));
    }
  }
}

/** Adds to each row how it differs from the period before; a row that was not there then had no calls. */
async function fillEarlier(rows, asked, what, signal) {
  for (const part of parts(rows.map((each) => each.key), API_ROWS)) {
    const answer = await usage(only(before(what), asked, part), [["group_by", asked.column], ["metrics", QUICK.join(",")], ["limit", API_ROWS]], signal);
    const found = new Map(answer.rows.map((row) => [row[asked.column], row]));
    for (const { key, row, cells } of rows.filter((each) => part.includes(each.key))) {
      const then = found.get(key) ?? { calls: 0, failed: 0, error_rate: null, p50_ms: null, p95_ms: null, p99_ms: null };
      for (const name of QUICK) cells[name].append(h("div.change", {}, difference(name, row[name], then[name])));
    }
  }
}

async function fillSparks(rows, asked, what, signal) {
  const interval = intervalOf(what, 200);
  for (const part of parts(rows.map((each) => each.key), Math.floor(API_ROWS / 202))) {
    const answer = await usage(only(what, asked, part), [["group_by", asked.column], ["interval", interval], ["timezone", what.zone], ["metrics", "calls,failed"], ["limit", API_ROWS]], signal);
    const series = Map.groupBy(answer.rows, (row) => row[asked.column]);
    for (const { key, row, trend } of rows.filter((each) => part.includes(each.key))) {
      const label = `${count(row.calls)} calls, ${count(row.failed)} failed, by ${interval}`;
      replace(trend, spark(series.get(key) ?? [], { ...what, label }));
    }
  }
}

// A filter on the column itself has left only that row, and two values of a field would mean either.
function only(what, { column }, keys) {
  if (what.query.some(([name]) => name === column)) return what;
  return { ...what, query: [...what.query, ...keys.map((key) => [column, key])] };
}

async function save(what, asked, params, button, note, signal) {
  button.disabled = true;
  try {
    const names = asked.names.slice(1);
    const answer = await usage(what, [...grouped(asked), ["metrics", names.join(",")], ["limit", API_ROWS]], signal);
    download(`usage-by-${asked.by}-${params.get("project")}-${what.fromMs}-${what.toMs}.csv`,
      csv([asked.column, ...names], answer.rows.map((row) => [row[asked.column], ...names.map((name) => row[name])])));
    const told = answer.truncated ? `The file has the first ${count(answer.rows.length)} rows of more: narrow down to get the others.` : `The file has all ${count(answer.rows.length)} rows.`;
    replace(note, told);
    say(told);
  } catch (error) {
    if (error.name !== "AbortError") replace(note, `No file: ${error.message} ${error.fix ?? ""}`);
  } finally {
    button.disabled = false;
  }
}
