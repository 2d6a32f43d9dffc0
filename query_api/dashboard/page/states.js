// What stands where nothing can be shown yet: loading, nothing found, no permission, an error.

import { h } from "./dom.js";

// Refusals that pass by themselves: nobody there, too much at once, a part away.
const PASSING = new Set([0, 429, 502, 503]);
const AGAIN_MS = 5_000;

/** Something is on its way; it shows only if that takes a while. */
export function loading(what = "Loading") {
  return h("p.state.loading", { role: "status" }, `${what} …`);
}

/** Nothing fits. */
export function empty(title, advice, ...actions) {
  return h("div.state", { role: "status" }, h("p.state-title", {}, title), advice && h("p", {}, advice), ...actions);
}

/** Returns after how many ms to ask again what was refused; null where the same would come of it. */
export function againMs(error) {
  return PASSING.has(error.status) ? Math.max(AGAIN_MS, (error.retryAfterS ?? 0) * 1000) : null;
}

/**
 * An error of `api.js`, or of ours.
 *
 * @param {function(): void} [again] asks once more: on a click, and by itself where that helps while the error is seen
 * @param {Object} [how]
 * @param {boolean} [how.byItself] false: whoever shows it asks again anyway
 */
export function failed(error, again, { byItself = true } = {}) {
  const title = { 0: "The server does not answer", 401: "This key is not in force", 403: "This key may not read this", 429: "Too many requests for this key", 504: "That took too long" }[error.status]
    ?? "That did not work";
  const element = h("div.state.error", { role: "alert" },
    h("p.state-title", {}, title),
    h("p", {}, error.message),
    error.fix && h("p", {}, error.fix),
    error.requestId && h("p.quiet", {}, `Request ${error.requestId}`),
    again && h("button", { type: "button", onclick: again }, "Try again"));
  const ms = againMs(error);
  if (again && byItself && ms !== null) {
    const retry = () => element.isConnected && (document.hidden ? setTimeout(retry, ms) : again());
    setTimeout(retry, ms);
  }
  return element;
}
