// What time it is, by the server's clock: a reader's own may be wrong by hours, and then "the last 15 minutes" would be others.

const PLACE = "toolledger.clock";
// An answer says its time in whole seconds, and is on its way for a while: what differs by less is right.
const RIGHT_MS = 3_000;
/** From here on the reader is told of it. */
const WRONG_MS = 60_000;

// Kept for as long as the tab: who loads the page again asks for a range before anything was answered.
let aheadMs = Number(sessionStorage.getItem(PLACE)) || 0;

/** Returns the time, epoch ms. */
export function serverMs() {
  return Date.now() - aheadMs;
}

/** Takes the time of an answer that has just come (its `date`); one without says nothing. */
export function answeredAt(date) {
  const differsMs = Date.now() - Date.parse(date ?? "");
  if (Number.isNaN(differsMs)) return;
  aheadMs = Math.abs(differsMs) < RIGHT_MS ? 0 : differsMs;
  if (aheadMs) sessionStorage.setItem(PLACE, String(aheadMs));
  else sessionStorage.removeItem(PLACE);
}

/** Returns how far the reader's clock is ahead of the server's, ms, negative if it is behind; 0 where it need not be told. */
export function wrongMs() {
  return Math.abs(aheadMs) < WRONG_MS ? 0 : aheadMs;
}
