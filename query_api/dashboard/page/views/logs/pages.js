// Pages of a search by cursor: any number of rows, of which only those near what is looked at are in memory.
//
//   page 0        page 1        page 2        page 3
//   [cursor null] [cursor a]    [cursor b]    [cursor c]  …        a cursor, a count and the place of the last row stay for each
//   rows dropped  rows          rows          rows dropped         rows of a dropped page are fetched again when they are looked at
//
// A call that began earlier but is told of later turns up within a page that was fetched before. Such a page is read up to the
// last row it had, however many that are now, so that no row is left out or comes twice between two pages.

import { isBefore } from "./row.js";

/** Rows asked for at once; the API gives no more. */
export const PAGE_ROWS = 100;
/** Pages in memory: three screens of the tallest kind, both ways. */
const PAGES_MAX = 12;

/**
 * Makes the pages of one question.
 *
 * @param {function({cursor: string|null, toMs?: number}): Promise<{rows: Object[], next: string|null}>} fetchPage toMs: a narrower end
 * @param {function(): void} changed called when rows have come, or could not
 * @param {function(string): boolean} isElsewhere tells of an id that it is shown elsewhere, and is left out here
 */
export function pagesOf(fetchPage, changed, isElsewhere = () => false) {
  let pages = []; // {cursor, count, last, rows | null, start}
  let next = null; // cursor behind the last page
  let ended = false;
  let pending = null; // number of the page on its way
  let failure = null;
  let closed = false;

  function total() {
    const end = pages.at(-1);
    return end ? end.start + end.count : 0;
  }

  function numberAt(index) {
    let [low, high] = [0, pages.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (pages[middle].start <= index) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  function moveStarts(from) {
    for (let number = Math.max(1, from); number < pages.length; number++) pages[number].start = pages[number - 1].start + pages[number - 1].count;
  }

  async function load(number) {
    if (pending !== null || closed || failure !== null) return;
    pending = number;
    let moved = null;
    try {
      if (number < pages.length) moved = await again(number);
      else await onward();
    } catch (error) {
      if (closed || error.name === "AbortError") return;
      failure = error;
    }
    pending = null;
    if (!closed) changed(moved);
  }

  async function onward() {
    const cursor = next;
    const { rows: found, next: following } = await fetchPage({ cursor });
    if (closed) return;
    next = following;
    ended = following === null;
    // A page without rows of ours is passed over, so that each one has a last row.
    const rows = found.filter((row) => !isElsewhere(row.id));
    if (rows.length) pages.push({ cursor, count: rows.length, first: rows[0], last: rows.at(-1), rows, start: total() });
  }

  /** Fetches a page that was dropped; returns {start, added} if it has another number of rows now. */
  async function again(number) {
    const page = pages[number];
    const rows = [];
    // The first page has no cursor that would keep out what is newer: its first row does.
    const toMs = number === 0 && page.cursor === null ? page.first.ms + 1 : undefined;
    let cursor = page.cursor;
    let more = true;
    while (more) {
      const { rows: found, next: following } = await fetchPage({ cursor, toMs });
      if (closed) return null;
      for (const row of found) {
        if (isBefore(page.last, row)) more = false;
        else if (!isElsewhere(row.id)) rows.push(row);
      }
      cursor = following;
      if (cursor === null || (found.length && found.at(-1).id === page.last.id)) more = false;
    }
    const added = rows.length - page.count;
    page.rows = rows;
    page.count = rows.length;
    moveStarts(number + 1);
    return added ? { start: page.start, added } : null;
  }

  return {
    /** Rows that are known of. */
    get length() { return total(); },
    /** Whether all are. */
    get ended() { return ended; },
    /** The error that stopped it; null if none did. */
    get failure() { return failure; },
    get loading() { return pending !== null; },
    /** Returns a row, or null where it is not in memory. */
    at(index) {
      if (index < 0 || index >= total()) return null;
      const page = pages[numberAt(index)];
      return page.rows?.[index - page.start] ?? null;
    },
    /** Returns the place of a row in memory, -1 if it is none. */
    indexOf(id) {
      for (const page of pages) {
        const at = page.rows?.findIndex((row) => row.id === id) ?? -1;
        if (at >= 0) return page.start + at;
      }
      return -1;
    },
    /** Sees that rows of [from, to) come, one page at a time, and lets go of those far from there. */
    want(from, to) {
      if (closed) return;
      const first = numberAt(Math.max(0, from));
      const last = numberAt(Math.min(Math.max(0, to - 1), Math.max(0, total() - 1)));
      for (let number = first; number <= last && number < pages.length; number++) if (pages[number].rows === null) return load(number);
      const held = pages.map((page, number) => [Math.abs(number - (first + last) / 2), page]).filter(([, page]) => page.rows !== null);
      if (held.length > PAGES_MAX) for (const [, page] of held.sort(([one], [other]) => one - other).slice(PAGES_MAX)) page.rows = null;
      if (to > total() && !ended) return load(pages.length);
    },
    /** Tries again what failed. */
    again() {
      failure = null;
      changed(null);
    },
    close() {
      closed = true;
      pages = [];
    },
  };
}
