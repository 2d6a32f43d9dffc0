// What the list shows: calls as they came in while it was followed (the head), and behind them pages of the search.
//
// The head is in the order of arrival, for a call that took a minute is told of a minute after it began and must be seen then. It
// is bounded: what it lets go of is found by the search again, whose end is moved up behind it.

import { pagesOf } from "./pages.js";

/** Arrivals in memory at most, in the head and waiting for it, each. */
export const HEAD_MAX = 2_000;
const HEAD_KEPT = 1_000;

/**
 * Makes the feed of one question.
 *
 * @param {function({cursor: string|null, toMs: number}): Promise<{rows: Object[], next: string|null}>} search
 * @param {function(?{start: number, added: number}): void} changed rows have come, or could not; added: so many more at a place
 *   that was passed
 * @param {number} endMs of the search, epoch ms
 */
export function feedOf(search, changed, endMs) {
  let head = []; // the latest arrival first
  let waiting = []; // the latest arrival last
  let lost = 0; // arrivals between head and waiting that were let go of
  let toMs = endMs;
  const ids = new Set();
  let pages = null;
  let coming = null; // pages that are to take their place

  function told(moved) {
    changed(moved && { start: moved.start + head.length, added: moved.added });
  }

  function begun(tell) {
    const untilMs = toMs;
    return pagesOf(({ cursor, toMs: narrower }) => search({ cursor, toMs: narrower ?? untilMs }), tell, (id) => ids.has(id));
  }

  function letGo(rows) {
    for (const row of rows) {
      ids.delete(row.id);
      toMs = Math.max(toMs, row.ms + 1);
    }
  }

  function restart() {
    coming?.close();
    coming = null;
    pages.close();
    pages = begun(told);
  }

  /** Looks again up to a moment; what is shown stays until there is something to put in its place. */
  function renew(untilMs) {
    toMs = Math.max(toMs, untilMs);
    coming?.close();
    const mine = begun((moved) => {
      if (coming === mine) {
        pages.close();
        pages = mine;
        coming = null;
      }
      told(moved);
    });
    coming = mine;
    mine.want(0, 1);
  }

  pages = begun(told);

  return {
    get length() { return head.length + pages.length; },
    get ended() { return pages.ended; },
    get failure() { return pages.failure; },
    get loading() { return pages.loading; },
    /** How many arrivals wait to be shown, with those that were let go of meanwhile. */
    get waiting() { return waiting.length + lost; },
    at(index) {
      return index < head.length ? head[index] ?? null : pages.at(index - head.length);
    },
    indexOf(id) {
      const at = head.findIndex((row) => row.id === id);
      if (at >= 0) return at;
      const behind = pages.indexOf(id);
      return behind < 0 ? -1 : head.length + behind;
    },
    want(from, to) {
      if (to > head.length) pages.want(from - head.length, to - head.length);
    },
    again() { pages.again(); },
    /** Takes a call that has come in; returns whether it is news. */
    arrive(row) {
      if (ids.has(row.id) || pages.indexOf(row.id) >= 0) return false;
      ids.add(row.id);
      waiting.push(row);
      if (waiting.length > HEAD_MAX) {
        const tooMany = waiting.splice(0, waiting.length - HEAD_KEPT);
        letGo(tooMany);
        lost += tooMany.length;
      }
      return true;
    },
    /** Puts what waits at the top; returns how many rows are there more. */
    take() {
      const added = waiting.length;
      if (!added) return 0;
      const tooMany = lost ? head : [];
      const joined = [...waiting.reverse(), ...(lost ? [] : head)];
      tooMany.push(...joined.splice(joined.length > HEAD_MAX ? HEAD_KEPT : joined.length));
      head = joined;
      waiting = [];
      const isTorn = lost > 0;
      lost = 0;
      if (isTorn || tooMany.length) {
        letGo(tooMany);
        restart();
      }
      return added;
    },
    renew,
    close() {
      coming?.close();
      pages.close();
    },
  };
}
