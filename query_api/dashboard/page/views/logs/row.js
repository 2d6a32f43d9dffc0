// One log of the list: what of it is kept, and how it looks.

import { h } from "../../dom.js";
import { clock, day, duration, moment } from "../../format.js";

// What a row can show of a message, with room for the widest screens; the drawer has all of it.
const MESSAGE_CHARS = 400;

/** Fields that a click narrows by -> member of a kept row, in the order of the columns. */
const VALUES = { toolkit_slug: "toolkit", tool_slug: "tool", failure_class: "failure", user_id: "user", session_id: "session", status: "status" };

/** Names of the columns, as they are read out. */
export const COLUMNS = ["Status", "Time", "Tool", "Message", "User", "Session", "Duration"];

/** Returns of a log of the API what a row needs: thousands are kept, and what producers add to one may be large. */
export function kept(log) {
  const { metadata } = log;
  return {
    id: log.id,
    ms: Date.parse(log.timestamp),
    status: log.status,
    tool: text(metadata.tool_slug),
    toolkit: text(metadata.toolkit_slug),
    user: text(metadata.user_id),
    session: text(metadata.session_id),
    failure: text(metadata.failure_class),
    message: (log.message ?? "").slice(0, MESSAGE_CHARS),
    durationMs: log.metrics.duration_ms,
  };
}

/** Returns a member of metadata if it is a text: a producer's own of the same name may be anything. */
export function text(value) {
  return typeof value === "string" ? value : "";
}

/** Tells whether a log comes before another one, newest first; of one millisecond by id, as the API has it. */
export function isBefore(one, other) {
  return one.ms !== other.ms ? one.ms > other.ms : one.id > other.id;
}

/**
 * Makes the element of a row.
 *
 * @param {{zone: string, today: string, number: number, selected: boolean}} how today: `day` of now, which needs no telling
 */
export function rowElement(row, { zone, today, number, selected }) {
  const date = day(row.ms, zone);
  const cell = (name, ...children) => h(`span.cell.of-${name}`, { role: "gridcell" }, ...children);
  return h(`div.log.is-${row.status === "failed" ? "failed" : "success"}`, {
    role: "row", id: rowId(row.id), "aria-rowindex": String(number + 2), "aria-selected": String(selected), dataset: { log: row.id },
  },
    cell("status", value(row, "status")),
    cell("time", h("time", { datetime: new Date(row.ms).toISOString(), title: moment(row.ms, zone) },
      date === today ? "" : `${date} `, clock(row.ms, zone, { millis: true }))),
    cell("tool", row.toolkit && [value(row, "toolkit_slug"), h("span.slash", { "aria-hidden": "true" }, "/")], value(row, "tool_slug")),
    cell("message", row.failure && value(row, "failure_class"), h("bdi", {}, saidOf(row))),
    cell("user", row.user && value(row, "user_id")),
    cell("session", row.session && value(row, "session_id")),
    cell("duration", duration(row.durationMs)));
}

/** Returns the message without what stands before it in the row: ours begins with the tool and its status. */
function saidOf({ message, tool, status }) {
  const begin = `${tool} ${status === "failed" ? "failed: " : "succeeded"}`;
  return message.startsWith(begin) ? message.slice(begin.length) : message;
}

/** Returns the filter that a click on an element stands for: {field, value}, or null. */
export function filterAt(target, rowOf) {
  const button = target.closest?.("[data-field]");
  const row = button && rowOf(button.closest("[data-log]")?.dataset.log);
  return row ? { field: button.dataset.field, value: row[VALUES[button.dataset.field]] } : null;
}

/** Returns the id of a row's element, as one word whatever the log's id holds. */
export function rowId(logId) {
  return `log-${encodeURIComponent(logId)}`;
}

function value(row, field) {
  const said = row[VALUES[field]];
  // Not in the order of tabs: a screen of rows would be hundreds of stops. The drawer has the same values as buttons.
  return h(field === "status" ? `button.value.badge.${said === "failed" ? "failed" : "success"}` : `button.value.of-${field}`, {
    type: "button", tabindex: "-1", title: `${said}: click for only these, Alt and click for all but these`, dataset: { field },
  }, h("bdi", {}, said));
}
