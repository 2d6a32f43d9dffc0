// What the drawer shows of a log.

import { go, link, read } from "../../address.js";
import { h } from "../../dom.js";
import { withFilter } from "../../filters.js";
import { ago, duration, moment } from "../../format.js";
import { membersOf } from "./json_text.js";
import { jsonTree } from "./json_tree.js";
import { text } from "./row.js";
import { sessionTimeline } from "./session.js";

/** Names of metadata that people narrow by -> how they are called. */
const IDENTITIES = {
  tool_slug: "Tool", toolkit_slug: "Toolkit", user_id: "User", session_id: "Session", connected_account_id: "Connected account",
  auth_config_id: "Auth config", failure_class: "Failure class", error_code: "Error code", error_type: "Error type",
};

/**
 * Returns the parts of a log.
 *
 * @param {Object} log with `dataText` and `metadataText` as they were sent
 * @param {{zone: string, question: Object, signal: AbortSignal, open: function(string): void}} how
 */
export function whole(log, { zone, signal, open }) {
  return [
    outcome(log),
    times(log, zone),
    identities(log),
    ...payload(log.dataText),
    section("Context and source", facts({ ...prefixed(log.context, ["session_id"]), ...log.source })),
    log.parent && section("Called by", h("p", {}, parent(log.parent, open))),
    text(log.metadata.session_id) && section("All calls of this session", sessionTimeline(log, { zone, signal, open })),
    section("Metadata", jsonTree(log.metadataText, { name: "metadata", depth: 0 })),
  ];
}

function outcome(log) {
  const failedOne = log.status === "failed";
  const { error_message: error, error_code: code, error_type: type, http_status: http } = log.metadata;
  const said = log.message ?? "";
  return h("div.outcome", {},
    h("p", {}, h(`span.badge.${failedOne ? "failed" : "success"}`, {}, log.status), " ",
      [!["info", "error"].includes(log.level) && log.level, http && `HTTP ${http}`, code && `code ${code}`, type].filter(Boolean).map((each) => h("span.fact", {}, h("bdi", {}, each), " "))),
    said && h("p.said", {}, h("bdi", {}, said)),
    // The message mostly holds the error already.
    error && !said.includes(error) && [h("h3", {}, "Error"), h("p.said.error", {}, h("bdi", {}, error))],
    failedOne && h("div.cause"));
}

function times(log, zone) {
  const startMs = log.timings?.start_time ?? Date.parse(log.timestamp);
  const at = (ms) => h("time", { datetime: new Date(ms).toISOString() }, moment(ms, zone));
  return h("dl", {},
    h("dt", {}, "Began"), h("dd", {}, at(startMs), h("span.quiet", {}, ` ${ago(startMs)}`)),
    log.timings && [h("dt", {}, "Ended"), h("dd", {}, at(log.timings.end_time))],
    h("dt", {}, "Took"), h("dd", {}, duration(log.metrics.duration_ms)),
    h("dt", {}, "Id"), h("dd", {}, h("bdi.mono", {}, log.id)));
}

function identities(log) {
  return h("dl", {}, Object.entries(IDENTITIES).filter(([name]) => text(log.metadata[name]) !== "").map(([name, label]) => {
    const value = log.metadata[name];
    const narrow = (operator) => {
      const { view, params } = read();
      params.delete("log");
      go(view, withFilter(params, { field: name, operator, value }));
    };
    return [h("dt", {}, label), h("dd", {}, h("bdi", {}, value), " ",
      h("button.small", { type: "button", "aria-label": `Only ${label.toLowerCase()} ${value}`, onclick: () => narrow("==") }, "only"),
      h("button.small", { type: "button", "aria-label": `Without ${label.toLowerCase()} ${value}`, onclick: () => narrow("!=") }, "not"))];
  }));
}

function payload(sent) {
  const members = sent ? membersOf(sent) : [];
  if (!members.length) return [section("Request and response", h("p.quiet", {}, "Not kept: the producer sent none, or the project's rules leave them out."))];
  const titles = { request: "Request", response: "Response" };
  return members.slice(0, 20).map(({ name, text: raw }) => section(titles[name] ?? name, jsonTree(raw, { name, depth: 3 })));
}

function parent({ log_id: id, tool_slug: tool }, open) {
  if (!id) return h("bdi", {}, tool);
  const { view, params } = read();
  params.set("log", id);
  return h("a", { href: link(view, params), onclick: (event) => { if (!event.ctrlKey && !event.metaKey) { event.preventDefault(); open(id); } } }, h("bdi", {}, tool || id));
}

function prefixed(context, but) {
  return Object.fromEntries(Object.entries(context).filter(([name]) => !but.includes(name)));
}

function facts(values) {
  const entries = Object.entries(values);
  if (!entries.length) return h("p.quiet", {}, "None was told.");
  const labels = { trace_id: "Trace", request_id: "Request", host: "Host", framework: "Framework", language: "Language" };
  return h("dl", {}, entries.map(([name, value]) => [h("dt", {}, labels[name] ?? name), h("dd", {}, h("bdi", {}, value))]));
}

function section(title, ...children) {
  return h("section.part", {}, h("h3", {}, h("bdi", {}, title)), children);
}
