// What is looked at stands in the address, behind the #: it is shared as a link, and no server is told of it.
//
//   #/logs?project=acme&since=1h&status=failed&tool_slug~=gmail&log=log_2O-UE-DBxdbc
//
// A view's name, then parameters. Times: `since` (15m, 1h, 7d), or `from` and `to` (epoch ms), and `tz`; see range.js. Filters: a
// field and its operator (= == , != , ~= contains, !~= contains not); see filters.js. The rest belongs to the view.

const listeners = new Set();

/** Returns {view, params}. Params are a URLSearchParams of the caller's own. */
export function read() {
  const hash = location.hash.replace(/^#\/?/, "");
  const cut = hash.indexOf("?");
  const view = (cut < 0 ? hash : hash.slice(0, cut)) || "logs";
  return { view, params: new URLSearchParams(cut < 0 ? "" : hash.slice(cut + 1)) };
}

/** Returns the address of a view, for links. */
export function link(view, params) {
  const text = new URLSearchParams(params).toString();
  return `#/${view}${text ? `?${text}` : ""}`;
}

/**
 * Goes to a view with parameters.
 *
 * @param {{replace?: boolean}} [how] replace: the back button skips where we were
 */
export function go(view, params, { replace = false } = {}) {
  const to = link(view, params);
  if (to === location.hash) return;
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  for (const listener of listeners) listener();
}

/**
 * Changes some parameters where we are.
 *
 * @param {Object<string, string|string[]|null>} changes null takes away, an array repeats
 */
export function change(changes, how) {
  const { view, params } = read();
  for (const [name, value] of Object.entries(changes)) {
    params.delete(name);
    for (const each of Array.isArray(value) ? value : value === null ? [] : [value]) params.append(name, each);
  }
  go(view, params, how);
}

/** Calls back whenever the address has changed, by us or by the back button. */
export function onChange(listener) {
  listeners.add(listener);
  window.addEventListener("popstate", listener);
  window.addEventListener("hashchange", listener);
}
