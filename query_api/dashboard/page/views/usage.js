// Usage: how much, how fast, by whom, and how that changed.

import { link } from "../address.js";
import { serverMs } from "../clock.js";
import { h, replace } from "../dom.js";
import { FIELDS, WORDS } from "../filters.js";
import { clock } from "../format.js";
import { failed } from "../states.js";
import { charts, series } from "./usage/charts.js";
import { figures } from "./usage/figures.js";
import { asked, before, QUICK, usage } from "./usage/question.js";
import { rowKey } from "./usage/sort.js";
import { table, tableOf } from "./usage/table.js";

// What the table alone is about.
const OF_THE_TABLE = ["by", "sort", "log"];

export function mount(root) {
  const top = h("div.row.usage-top");
  const problem = h("div");
  const [totals, curves, rows] = [figures(), charts(), table()];
  const stopped = new AbortController();
  let overview = new AbortController();
  let listing = new AbortController();
  let about = null; // what figures and charts show
  let asOfMs = 0;
  replace(root, h("div.usage", {}, h("h1.unseen", {}, "Usage"), top, problem, totals.element, curves.element, rows.element));

  function update(params, { again = false } = {}) {
    const now = [...params].filter(([name]) => !OF_THE_TABLE.includes(name)).join("&");
    const same = now === about && !again;
    // A range up to now is up to the moment it was first asked for, so that all parts are about the same.
    if (!same) asOfMs = serverMs();
    const what = asked(params, asOfMs);
    drawTop(what, params);
    listing.abort();
    listing = new AbortController();
    const listed = rows.show(what, params, listing.signal);
    if (same) return;
    about = now;
    overview.abort();
    overview = new AbortController();
    showOverview(what, params.get("compare") === "1", listed, overview.signal);
  }

  function drawTop(what, params) {
    const compared = params.get("compare") === "1";
    const to = new URLSearchParams(params);
    if (compared) to.delete("compare");
    else to.set("compare", "1");
    replace(top,
      h("a.switch", { href: link("usage", to), role: "switch", "aria-checked": String(compared) }, compared ? "✓ Compared with the period before" : "Compare with the period before"),
      what.live && h("button", { type: "button", onclick: () => update(params, { again: true }) }, "Refresh"),
      what.live && h("span.quiet", {}, `as of ${clock(what.toMs, what.zone)}`),
      ignoredNote(what.ignored));
  }

  async function showOverview(what, compared, listed, signal) {
    const [now, then] = [{}, compared ? {} : null];
    const draw = () => totals.show(now, then);
    draw();
    replace(problem);
    const slow = ["active_users", "sessions"];
    try {
      // Quick ones first, the period before beside them; then those that need every user and session.
      const [quick, earlier] = await Promise.all([
        usage(what, [...series(what), ["metrics", QUICK.join(",")]], signal),
        compared ? usage(before(what), [...series(what), ["metrics", QUICK.join(",")]], signal) : null,
      ]);
      Object.assign(now, quick.totals);
      if (earlier) Object.assign(then, earlier.totals);
      draw();
      // Reading and drawing with a library of 5 MB keeps the browser busy: what can be read without it comes first.
      await listed;
      signal.throwIfAborted();
      curves.quick(what, quick, earlier);
      const [people, peopleThen] = await Promise.all([
        usage(what, [...series(what, { coarse: true }), ["metrics", slow.join(",")]], signal),
        compared ? usage(before(what), [...series(what, { coarse: true }), ["metrics", slow.join(",")]], signal) : null,
      ]);
      Object.assign(now, people.totals);
      if (peopleThen) Object.assign(then, peopleThen.totals);
      draw();
      curves.slow(what, people, peopleThen);
    } catch (error) {
      if (error.name !== "AbortError") replace(problem, failed(error, () => showOverview(what, compared, listed, signal)));
    }
  }

  return {
    update,
    key: (event) => rowKey(event, rows.element),
    unmount() {
      for (const each of [stopped, overview, listing]) each.abort();
      curves.rest();
    },
  };
}

/** Says which filters of the address usage cannot apply; null where it applies all. */
export function ignoredNote(ignored) {
  if (!ignored.length) return null;
  const named = ignored.map(({ field, operator, value }) => `${FIELDS[field]} ${WORDS[operator]} ${value === "" ? "empty" : value}`);
  return h("p.ignored", { role: "note" }, "Not narrowed by: ", named.map((each, at) => [at ? ", " : "", h("bdi", {}, each)]), ". Only logs can be.");
}
