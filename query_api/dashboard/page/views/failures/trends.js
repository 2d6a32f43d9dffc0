// How failures went over the range.
//
// The API has series by failure class and tool, not by what a message says. A group that holds all failures of its class and tool
// has that series as its own; beside others the series is shown as what it is: that of the class and tool together.

import { count } from "../../format.js";
import { intervalOf, usage } from "../usage/question.js";

const ROWS = 10_000;
const JOINT = "\u0000";

/**
 * Asks for the series of groups.
 *
 * @returns {Map<string, {points: Object[], failed: number}>} by `keyOf`
 */
export async function trends(what, signal) {
  const filters = what.query.filter(([name]) => name !== "status");
  const answer = await usage({ ...what, query: [...filters, ["status", "failed"]] }, [
    ["group_by", "failure_class,tool_slug"], ["interval", intervalOf(what, 100)], ["timezone", what.zone], ["metrics", "calls"], ["limit", ROWS],
  ], signal);
  const found = new Map();
  for (const row of answer.rows) {
    const key = keyOf(row);
    if (!found.has(key)) found.set(key, { points: [], failed: 0 });
    const of = found.get(key);
    of.points.push({ start: row.start, calls: row.calls, failed: row.calls });
    of.failed += row.calls;
  }
  // Cut off at its end: a drawing that stops too early would say that all is well.
  return answer.truncated ? null : found;
}

/** Returns what a group's series is found by. */
export function keyOf({ failure_class: failureClass, tool_slug: tool }) {
  return failureClass + JOINT + tool;
}

/** Returns what a series shows of a group, in words; null where it is the group's own. */
export function sharedBy(group, { failed }) {
  return failed === group.calls ? null : `all ${count(failed)} of this class and tool`;
}
