// What stands where nothing can be shown yet: loading, nothing found, no permission, an error.

import { h } from "./dom.js";

/** Something is on its way; it shows only if that takes a while. */
export function loading(what = "Loading") {
  return h("p.state.loading", { role: "status" }, `${what} …`);
}

/** Nothing fits. */
export function empty(title, advice, ...actions) {
  return h("div.state", { role: "status" }, h("p.state-title", {}, title), advice && h("p", {}, advice), ...actions);
}

/** An error of `api.js`, or of ours. */
export function failed(error, again) {
  const title = { 0: "The server does not answer", 401: "This key is not in force", 403: "This key may not read this", 429: "Too many requests for this key", 504: "That took too long" }[error.status]
    ?? "That did not work";
  return h("div.state.error", { role: "alert" },
    h("p.state-title", {}, title),
    h("p", {}, error.message),
    error.fix && h("p", {}, error.fix),
    error.requestId && h("p.quiet", {}, `Request ${error.requestId}`),
    again && h("button", { type: "button", onclick: again }, "Try again"));
}
