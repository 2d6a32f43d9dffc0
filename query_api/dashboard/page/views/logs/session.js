// All calls of one session, each as a bar where it began and as long as it took.

import { link, read } from "../../address.js";
import { post } from "../../api.js";
import { h, replace, say } from "../../dom.js";
import { withFilter } from "../../filters.js";
import { clock, count, duration } from "../../format.js";
import { fixed } from "../../range.js";
import { loading } from "../../states.js";
import { kept } from "./row.js";

const PAGE_CALLS = 100;
/** More are not a picture; the list has them all. */
const CALLS_MAX = 500;
/** Shown at once, around the call that is open. */
const SHOWN = 60;

/**
 * Returns the timeline of a log's session; it fills itself.
 *
 * @param {{zone: string, signal: AbortSignal, open: function(string): void}} how
 */
export function sessionTimeline(log, { zone, signal, open }) {
  const element = h("div.timeline", {}, loading("Looking for its calls"));
  fetchCalls(log, signal).then(
    (found) => draw(element, log, found, { zone, open }),
    (error) => signal.aborted || replace(element, h("p.error", {}, `Its other calls could not be fetched: ${error.message}`)));
  return element;
}

/** Fetches the calls of a session, in their order: all, or the newest if the open one is among them, or those up to it. */
async function fetchCalls(log, signal) {
  const newest = await search(log, null, signal);
  if (newest.isAll) return { calls: newest.calls, which: "" };
  if (newest.calls.some((each) => each.id === log.id)) return { calls: newest.calls, which: "The newest " };
  const { calls } = await search(log, Date.parse(log.timestamp) + 1, signal);
  return { calls, which: "Up to this one, the last " };
}

async function search(log, toMs, signal) {
  const filters = [{ field: "session_id", operator: "==", value: log.metadata.session_id }];
  const calls = [];
  let cursor = null;
  do {
    const found = await post("api/v3.1/logs/tool_execution", { limit: PAGE_CALLS, cursor, filters, ...(toMs && { time_range: { from: 0, to: toMs } }) }, { signal });
    calls.push(...found.logs.map(kept));
    cursor = found.next_cursor;
  } while (cursor !== null && calls.length < CALLS_MAX);
  return { calls: calls.reverse(), isAll: cursor === null };
}

function draw(element, log, { calls, which }, { zone, open }) {
  if (!calls.length) return replace(element, h("p.quiet", {}, "None were found."));
  const beginMs = calls[0].ms;
  const endMs = Math.max(...calls.map((each) => each.ms + each.durationMs), beginMs + 1);
  const here = calls.findIndex((each) => each.id === log.id);
  const list = h("ol.calls");
  let [from, to] = [Math.max(0, here - SHOWN / 2), Math.min(calls.length, Math.max(0, here - SHOWN / 2) + SHOWN)];
  const failedOnes = calls.filter((each) => each.status === "failed").length;
  const before = h("button.small", { type: "button", onclick: () => more(-SHOWN, 0) });
  const after = h("button.small", { type: "button", onclick: () => more(0, SHOWN) });

  function more(back, on) {
    [from, to] = [Math.max(0, from + back), Math.min(calls.length, to + on)];
    fill();
  }

  function fill() {
    replace(list, calls.slice(from, to).map((call) => bar(call, { log, beginMs, endMs, zone, open })));
    before.hidden = from === 0;
    before.textContent = `${count(from)} earlier`;
    after.hidden = to === calls.length;
    after.textContent = `${count(calls.length - to)} later`;
  }

  fill();
  requestAnimationFrame(() => {
    const mine = list.querySelector(".is-here");
    if (mine) list.scrollTop = mine.offsetTop - list.offsetTop - list.clientHeight / 2;
  });
  replace(element,
    h("p.quiet", {}, `${which}${count(calls.length)} ${calls.length === 1 ? "call" : "calls"}, ${count(failedOnes)} failed, within ${duration(endMs - beginMs)}. `,
      h("a", { href: inList(log, beginMs, endMs) }, "Show them in the list")),
    before, list, after);
  if (here >= 0) say(`Call ${here + 1} of ${calls.length} of its session`);
}

function bar(call, { log, beginMs, endMs, zone, open }) {
  const share = (ms) => `${(ms / (endMs - beginMs)) * 100}%`;
  const isHere = call.id === log.id;
  const { view, params } = read();
  params.set("log", call.id);
  return h("li", {}, h(`a.call${isHere ? ".is-here" : ""}`, {
    href: link(view, params), "aria-current": isHere ? "true" : null, title: call.message,
    onclick: (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open(call.id);
    },
  },
    h("time", { datetime: new Date(call.ms).toISOString() }, clock(call.ms, zone)),
    h("span.call-tool", {}, h(`span.sign.${call.status === "failed" ? "failed" : "success"}`, {}, call.status === "failed" ? "✕" : "✓", h("span.unseen", {}, ` ${call.status} `)), h("bdi", {}, call.tool)),
    h("span.track", { "aria-hidden": "true" }, h(`span.bar-of-call.${call.status === "failed" ? "failed" : "success"}`, {
      style: { left: share(call.ms - beginMs), width: share(call.durationMs) },
    })),
    h("span.number", {}, duration(call.durationMs))));
}

/** Returns the address of the list with these calls alone. */
function inList(log, beginMs, endMs) {
  const { view, params } = read();
  const made = withFilter(new URLSearchParams([...params].filter(([name]) => ["project", "tz"].includes(name))), { field: "session_id", value: log.metadata.session_id });
  for (const [name, value] of Object.entries(fixed(beginMs, endMs + 1))) if (value !== null) made.set(name, value);
  return link(view, made);
}
