// Failures: what failed, since when, for whom, and why.

import { serverMs } from "../clock.js";
import { h, replace, say } from "../dom.js";
import { clock, count, percent } from "../format.js";
import { empty, failed, loading } from "../states.js";
import { COLUMNS, groupsTable, sorted } from "./failures/groups.js";
import { trends } from "./failures/trends.js";
import { ignoredNote } from "./usage.js";
import { asked, failures } from "./usage/question.js";
import { drawnAnew, rowKey, sortOf } from "./usage/sort.js";

const FIRST_GROUPS = 100;
const MOST_GROUPS = 1_000;

export function mount(root) {
  const top = h("div.row.usage-top");
  const place = h("div");
  replace(root, h("div.failures", {}, h("h1.unseen", {}, "Failures"), top, place));
  let most = FIRST_GROUPS;
  let question = new AbortController();
  let found = null; // {about, what, groups, series}
  let drawnParams = null;

  async function update(params, { again = false } = {}) {
    const about = `${most} ${[...params].filter(([name]) => !["sort", "log"].includes(name)).join("&")}`;
    if (found?.about === about && !again) return draw(params);
    question.abort();
    question = new AbortController();
    const { signal } = question;
    const what = asked(params, serverMs());
    if (found === null) replace(place, loading());
    found = null;
    try {
      const { groups } = await failures(what, [["limit", most]], signal);
      found = { about, what, groups, series: undefined };
      draw(params);
      if (!groups.length) return;
      found.series = await trends(what, signal);
      // The order may have been changed meanwhile.
      draw(drawnParams);
    } catch (error) {
      if (error.name !== "AbortError") replace(place, failed(error, () => update(params, { again: true })));
    }
  }

  function draw(params) {
    drawnParams = params;
    const { what, groups, series } = found;
    replace(top, summary(groups), what.live && h("button", { type: "button", onclick: () => update(drawnParams, { again: true }) }, "Refresh"), what.live && h("span.quiet", {}, `as of ${clock(what.toMs, what.zone)}`), ignoredNote(what.ignored));
    if (!groups.length) {
      return replace(place, empty("No failures in this range", "Every call that was looked at succeeded, or there was none. Good."));
    }
    const sort = sortOf(params, COLUMNS.map((each) => each.name).filter(Boolean), "calls");
    const table = groupsTable(sorted(groups, sort), sort, what, params);
    drawnAnew(place, () => replace(place, table.element, rest(groups)));
    if (series !== undefined) table.trends(series);
  }

  function rest(groups) {
    if (groups.length < most) return null;
    const share = groups.reduce((sum, each) => sum + each.share, 0);
    const more = most < MOST_GROUPS && h("button", { type: "button", onclick: () => { most = MOST_GROUPS; update(drawnParams); } }, `Show up to ${count(MOST_GROUPS)}`);
    return h("p.quiet", { role: "status" }, `The ${count(groups.length)} largest groups, ${percent(share)} of all failures; sorted among themselves. `, more);
  }

  return {
    update,
    key: (event) => rowKey(event, place),
    unmount() {
      question.abort();
    },
  };
}

function summary(groups) {
  if (!groups.length) return null;
  const total = Math.round(groups[0].calls / groups[0].share);
  const text = `${count(total)} ${total === 1 ? "failure" : "failures"} in ${count(groups.length)} ${groups.length === 1 ? "group" : "groups"} shown`;
  say(text);
  return h("strong.summary", {}, text);
}
