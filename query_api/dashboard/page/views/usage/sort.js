// Order of a table as it stands in the address: `sort=p95_ms` (largest first), `sort=key:asc`.

import { link } from "../../address.js";
import { h } from "../../dom.js";

/** Returns {by, descending}, the fallback where the address names nothing that is there. */
export function sortOf(params, names, fallback) {
  const [by, direction] = (params.get("sort") ?? "").split(":");
  return names.includes(by) ? { by, descending: direction !== "asc" } : { by: fallback, descending: true };
}

/**
 * Returns the head of a table.
 *
 * @param {{name: string|null, label: string, number?: boolean, text?: boolean}[]} columns name: what `sort=` takes, null: not
 *   sorted by; text: starts with a
 */
export function head(columns, { by, descending }, view, params) {
  return h("thead", {}, h("tr", { role: "row" }, columns.map(({ name, label, number, text }) => {
    if (name === null) return h(number ? "th.number" : "th", { scope: "col", role: "columnheader" }, label);
    const sorted = name === by;
    const down = sorted ? !descending : !text;
    const to = new URLSearchParams(params);
    to.set("sort", down ? name : `${name}:asc`);
    return h(number ? "th.number" : "th", { scope: "col", role: "columnheader", "aria-sort": sorted ? (descending ? "descending" : "ascending") : null },
      h("a.sort", { href: link(view, to), dataset: { focus: `sort ${name}` } }, label, h("span", { "aria-hidden": "true" }, sorted ? (descending ? " ▾" : " ▴") : "")));
  })));
}

/** Draws a table anew; what had the focus in it has it again. */
export function drawnAnew(place, draw) {
  const had = place.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  draw();
  if (had !== undefined) place.querySelector(`[data-focus="${CSS.escape(had)}"]`)?.focus();
}

/** Moves the focus from row to row; returns whether the key was one for that. */
export function rowKey(event, root) {
  const step = { j: 1, k: -1 }[event.key];
  if (!step) return false;
  const links = [...root.querySelectorAll("tbody a.key")];
  if (!links.length) return false;
  const at = links.findIndex((each) => each.closest("tr").contains(document.activeElement));
  links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + step))].focus();
  return true;
}
