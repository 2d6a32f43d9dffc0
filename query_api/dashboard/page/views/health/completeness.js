// How complete it is, in words, and partition by partition.

import { h } from "../../dom.js";
import { clock, count, duration, moment } from "../../format.js";

// As the line above every view has it.
const BEHIND_MS = 15_000;
/** Work that waits and has not moved for so long, while it was looked at, stands still. */
const STILL_MS = 20_000;

/** Remembers since when each partition is where it is; `saw` returns the answer with `still_ms` in each partition. */
export function watch() {
  const places = new Map();
  return {
    saw(body, nowMs) {
      const partitions = body.partitions.map((each) => {
        const known = places.get(each.partition);
        if (known?.nextOffset !== each.next_offset || each.lag_records === 0) places.set(each.partition, { nextOffset: each.next_offset, sinceMs: nowMs });
        return { ...each, still_ms: nowMs - places.get(each.partition).sinceMs };
      });
      return { ...body, partitions };
    },
  };
}

/** Returns {content, warnings}. */
export function completeness(body, { nowMs, zone }) {
  const states = body.partitions.map((each) => ({ ...each, ...state(each, nowMs) }));
  const waiting = states.reduce((sum, each) => sum + each.lag_records, 0);
  const warnings = [];
  const still = states.filter((each) => each.word === "stands still");
  if (body.complete_until_ms === 0) warnings.push("Nothing is proved yet: a partition has never reported. Start the workers, or look at their logs.");
  else if (body.lag_ms > BEHIND_MS) warnings.push(`Behind by ${duration(body.lag_ms)}: what was accepted since ${clock(body.complete_until_ms, zone)} may be missing in every view.`);
  if (still.length) warnings.push(`${still.length === 1 ? "Partition" : "Partitions"} ${still.map((each) => each.partition).join(", ")} ${still.length === 1 ? "stands" : "stand"} still: look at the log of the worker that has ${still.length === 1 ? "it" : "them"}, and run toolledger doctor.`);
  const content = [
    h("p.reading", {}, body.complete_until_ms === 0 ? "nothing yet" : h("time", { datetime: new Date(body.complete_until_ms).toISOString(), title: moment(body.complete_until_ms, zone) }, clock(body.complete_until_ms, zone))),
    h("p", {}, body.lag_ms > BEHIND_MS ? `${body.complete_until_ms === 0 ? "No answer is complete." : `${duration(body.lag_ms)} behind the clock.`} ` : `${duration(body.lag_ms)} behind the clock, which is as it should be. `,
      waiting ? `${count(waiting)} ${waiting === 1 ? "record waits" : "records wait"}.` : "No record waits."),
    h("details", { open: states.some((each) => each.word !== "up to date") }, h("summary", {}, `${count(states.length)} ${states.length === 1 ? "partition" : "partitions"}`),
      h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Partitions" }, h("table", {},
        h("thead", {}, h("tr", {}, h("th.number", {}, "Partition"), h("th", {}, "State"), h("th", {}, "Complete until"), h("th.number", {}, "Records waiting"), h("th.number", {}, "Proved up to"))),
        h("tbody", {}, states.map((each) => h("tr", {},
          h("td.number", {}, each.partition), h("td", {}, h(each.good ? "span.badge.success" : "span.badge.failed", {}, each.word)),
          h("td", {}, each.complete_until_ms === 0 ? "nothing yet" : clock(each.complete_until_ms, zone)), h("td.number", {}, count(each.lag_records)), h("td.number", {}, `${count(each.next_offset)} of ${count(each.end_offset)}`))))))),
  ];
  return { content, warnings };
}

function state({ complete_until_ms: untilMs, lag_records: waiting, still_ms: stillMs }, nowMs) {
  const behindMs = nowMs - untilMs;
  if (waiting > 0 && stillMs >= STILL_MS) return { word: "stands still", good: false };
  // A worker that lives moves the time on even where nothing comes in.
  if (waiting === 0 && behindMs > BEHIND_MS) return { word: "not reported", good: false };
  if (behindMs > BEHIND_MS) return { word: `behind by ${duration(behindMs)}`, good: false };
  return { word: "up to date", good: true };
}
