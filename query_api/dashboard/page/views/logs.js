// The view of logs: a list, newest first, that goes on as far as there are calls, and one of them in full beside it.

import { change, go, read } from "../address.js";
import { post } from "../api.js";
import { serverMs } from "../clock.js";
import { h, replace, say } from "../dom.js";
import { withFilter } from "../filters.js";
import { count, day } from "../format.js";
import { drawer } from "./logs/drawer.js";
import { feedOf } from "./logs/feed.js";
import { nothingFound } from "./logs/nothing.js";
import { PAGE_ROWS } from "./logs/pages.js";
import { questionOf, searchBody, streamQuery } from "./logs/question.js";
import { COLUMNS, filterAt, kept, rowElement, rowId } from "./logs/row.js";
import { rowList } from "./logs/rows.js";
import { follow } from "./logs/tail.js";
import { toolbar } from "./logs/toolbar.js";
import { againMs, failed, loading } from "../states.js";

// New rows are drawn so often, however many come in.
const DRAW_EVERY_MS = 250;
// Who paused for longer begins anew instead of going through all that came meanwhile.
const PAUSE_MS_MAX = 120_000;

export function mount(root) {
  let question = null;
  let feed = null;
  let asking = null;
  let tail = null; // {stop, place}
  let tailKey = ""; // of the question it is about
  let left = null; // {key, place, atMs}: where following was paused
  let tailState = null;
  let newsTimer = null;
  let againTimer = null;
  let selected = null; // id
  let selectedIndex = -1;

  const head = h("div.log.head", { role: "row", "aria-rowindex": "1" },
    COLUMNS.map((name) => h(`span.cell.of-${name.toLowerCase()}`, { role: "columnheader" }, name)));
  const body = h("div.log-rows", { role: "rowgroup" });
  const grid = h("div.log-grid", {
    role: "grid", tabindex: "0", "aria-label": "Logs, newest first", onclick: clicked, onscroll: scrolled,
  }, h("div.log-head", { role: "rowgroup" }, head), body);
  const state = h("div.log-state", { hidden: true });
  const news = h("button.news.primary", { type: "button", hidden: true, onclick: toTop });
  const bar = toolbar({ toggle: toggleLive, refresh });
  const side = drawer({ close: () => show(null), step, open: show });
  replace(root, h("div.logs", {}, h("h1.unseen", {}, "Logs"), h("div.log-list", {}, bar.element, h("div.log-place", {}, news, grid, state)), side.element));
  const list = rowList(grid, body, { count: rowsShown, row: rowAt, want: (from, to) => feed?.want(from, to), resized: keepInView });

  /** Rows, and one at the end that says what is there: more to come, or an error. */
  function rowsShown() {
    return feed ? feed.length + (feed.ended ? 0 : 1) : 0;
  }

  function rowAt(number) {
    const row = feed.at(number);
    if (row === null) return number >= feed.length ? lastRow(number) : { key: `#${number}`, make: () => placeholder(number, "…"), update: () => {} };
    return {
      key: row.id,
      make: () => rowElement(row, { zone: question.zone, today: day(serverMs(), question.zone), number, selected: row.id === selected }),
      update: (element) => {
        element.setAttribute("aria-rowindex", String(number + 2));
        element.setAttribute("aria-selected", String(row.id === selected));
      },
    };
  }

  function lastRow(number) {
    const failure = feed.failure;
    return failure
      ? { key: "#failed", make: () => placeholder(number, failure.message, h("button", { type: "button", onclick: () => feed.again() }, "Try again")), update: () => {} }
      : { key: "#more", make: () => placeholder(number, "Loading …"), update: () => {} };
  }

  function placeholder(number, ...what) {
    return h("div.log.filler", { role: "row", "aria-rowindex": String(number + 2) }, h("span.cell", { role: "gridcell" }, what));
  }

  // --- asking ---

  function start() {
    stopTail();
    left = left?.key === question.key ? left : null;
    asking?.abort();
    feed?.close();
    clearTimeout(againTimer);
    asking = new AbortController();
    const { signal } = asking;
    const mine = question;
    feed = feedOf(async ({ cursor, toMs }) => {
      const found = await post("api/v3.1/logs/tool_execution", searchBody(mine, { cursor, toMs, limit: PAGE_ROWS }), { signal });
      return { rows: found.logs.map(kept), next: found.next_cursor };
    }, changed, mine.endMs);
    selectedIndex = -1;
    list.renew();
    list.scrollTo(0);
    if (mine.live) startTail();
    drawState();
  }

  function changed(moved) {
    if (moved && moved.start < list.first()) list.scrollTo(list.first() + moved.added);
    clearTimeout(againTimer);
    // Where there are no rows, the error in their place sees to it.
    const ms = feed.failure && feed.length ? againMs(feed.failure) : null;
    if (ms !== null) againTimer = setTimeout(() => feed.again(), ms);
    grid.setAttribute("aria-rowcount", feed.ended ? String(feed.length + 1) : "-1");
    drawState();
    list.draw();
  }

  function drawState() {
    const isNothing = feed.length === 0;
    grid.hidden = isNothing;
    state.hidden = !isNothing;
    bar.told({ question, tailState, rows: feed.length, isAll: feed.ended });
    if (!isNothing) return replace(state);
    if (feed.failure) replace(state, failed(feed.failure, () => feed.again()));
    else if (feed.ended) replace(state, nothingFound(question, read()));
    else if (!state.querySelector(".loading")) replace(state, loading("Looking for calls"));
    if (!feed.ended && !feed.failure) feed.want(0, 1);
  }

  // --- following ---

  function startTail() {
    const resumed = left?.key === question.key && Date.now() - left.atMs < PAUSE_MS_MAX ? left.place : "";
    const mine = question;
    tailKey = question.key;
    let isFresh = resumed === "";
    tailState = { name: "connecting" };
    tail = follow(streamQuery(question), resumed, {
      log(log) {
        const row = kept(log);
        if (mine === question && row.ms >= question.fromMs && feed.arrive(row)) newsTimer ??= setTimeout(drawNews, DRAW_EVERY_MS);
      },
      state(name, detail) {
        if (mine !== question) return;
        const was = tailState?.name;
        tailState = { name, ...detail };
        // What was found before the stream had begun may lack what came between the two.
        if (name === "open" && isFresh) {
          isFresh = false;
          list.scrollTo(0);
          feed.renew(questionOf(read().params).endMs);
        }
        // The place is of a server that was set up anew: what it would lead to is looked for instead.
        if (name === "refused" && detail.error.status === 400 && tail?.place) {
          stopTail();
          left = null;
          return startTail();
        }
        if (was !== name) {
          if (name === "waiting") say("The connection broke; trying again.");
          drawState();
          list.draw();
        }
      },
    });
  }

  function stopTail() {
    if (!tail) return;
    left = { key: tailKey, place: tail.place, atMs: Date.now() };
    tail.stop();
    tail = null;
    tailState = null;
    clearTimeout(newsTimer);
    newsTimer = null;
  }

  function drawNews() {
    newsTimer = null;
    if (list.atTop) takeNews();
    const waits = feed.waiting;
    news.hidden = waits === 0;
    news.textContent = `↑ ${count(waits)} new`;
  }

  function takeNews() {
    const added = feed.take();
    if (selectedIndex >= 0) selectedIndex += added;
    changed(null);
  }

  function toTop() {
    takeNews();
    list.scrollTo(0);
    news.hidden = true;
    grid.focus();
  }

  function scrolled() {
    if (feed?.waiting && list.atTop) newsTimer ??= setTimeout(drawNews, 0);
  }

  function toggleLive() {
    // Whoever follows looks at what ends now.
    if (question.live) change({ live: null });
    else change({ live: "1", ...(question.isUpToNow ? {} : { to: null }) });
  }

  function refresh() {
    stopTail();
    left = null;
    question = questionOf(read().params);
    start();
    say("Looking again.");
  }

  // --- choosing and opening ---

  function clicked(event) {
    const row = event.target.closest("[data-log]");
    if (!row) return;
    const filter = filterAt(event.target, (id) => feed.at(feed.indexOf(id)));
    if (filter) {
      const { view, params } = read();
      params.delete("log");
      return go(view, withFilter(params, { ...filter, operator: event.altKey ? "!=" : "==" }));
    }
    if (String(getSelection()).length > 0 && getSelection().anchorNode && row.contains(getSelection().anchorNode)) return;
    show(row.dataset.log);
  }

  function select(id, index) {
    selected = id;
    selectedIndex = index;
    if (id === null) grid.removeAttribute("aria-activedescendant");
    else grid.setAttribute("aria-activedescendant", rowId(id));
    if (index >= 0) list.show(index);
    else list.draw();
  }

  function keepInView() {
    if (selectedIndex >= 0 && read().params.has("log")) list.show(selectedIndex);
  }

  function show(id) {
    change({ log: id });
  }

  /** Goes to the next or the previous row; an open drawer goes along. */
  function step(by) {
    const known = selected === null ? -1 : feed.indexOf(selected);
    const at = known >= 0 ? known : selectedIndex;
    const index = at < 0 ? Math.floor(list.first() + 0.5) : Math.max(0, Math.min(feed.length - 1, at + by));
    const row = feed.at(index);
    if (!row) return feed.want(index, index + 1);
    select(row.id, index);
    if (read().params.has("log")) change({ log: row.id }, { replace: true });
    else if (document.activeElement !== grid) grid.focus({ preventScroll: true });
  }

  const PLACES = { Home: () => 0, End: () => feed.length - 1, PageDown: (at) => at + list.rowsInView, PageUp: (at) => at - list.rowsInView };
  const KEYS = {
    j: () => step(1), k: () => step(-1), ArrowDown: () => step(1), ArrowUp: () => step(-1),
    l: toggleLive, r: refresh,
    Enter: () => selected !== null && show(selected),
    Escape: () => read().params.has("log") && show(null),
  };

  return {
    update(params) {
      const asked = questionOf(params);
      const log = params.get("log");
      if (asked.key !== question?.key) {
        question = asked;
        selected = log;
        start();
      } else {
        const { live, zone } = question;
        Object.assign(question, { live: asked.live, zone: asked.zone });
        if (live && !asked.live) stopTail();
        if (!live && asked.live) startTail();
        if (zone !== asked.zone) list.renew();
        drawState();
      }
      if (log !== null && log !== selected) select(log, feed.indexOf(log));
      side.show(log, question, log === null ? grid : null);
    },
    key(event) {
      const onButton = event.target.closest?.("button, a, summary");
      if (onButton && ["Enter", " "].includes(event.key)) return false;
      if (event.key in PLACES && document.activeElement === grid) {
        const at = PLACES[event.key](Math.max(0, selectedIndex));
        step(Math.max(0, Math.min(feed.length - 1, at)) - Math.max(0, selectedIndex));
        return true;
      }
      if (event.key.startsWith("Arrow") && document.activeElement !== grid) return false;
      if (!(event.key in KEYS)) return false;
      KEYS[event.key]();
      return true;
    },
    unmount() {
      stopTail();
      asking?.abort();
      feed?.close();
      clearTimeout(againTimer);
      clearTimeout(newsTimer);
      list.close();
      side.close();
    },
  };
}
