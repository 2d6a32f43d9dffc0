// What the list asks for, read of the address.

import { filtersOf } from "../../filters.js";
import { rangeOf, zoneOf } from "../../range.js";

// A range that ends now ends so much later: a reader's clock may be behind that of the machines that make the calls.
const AHEAD_MS = 300_000;

/**
 * Returns which logs an address asks for.
 *
 * @returns {{key: string, filters: Object[], fromMs: number, endMs: number, live: boolean, zone: string, isUpToNow: boolean}} key: the
 *   same as long as the same is asked for; live: calls are to be followed as they come in
 */
export function questionOf(params) {
  const filters = filtersOf(params);
  const range = rangeOf(params);
  const asked = ["project", "since", "from", "to"].map((name) => params.get(name));
  return {
    key: JSON.stringify([asked, filters.map((each) => [each.field, each.operator, each.value])]),
    filters,
    fromMs: range.fromMs,
    endMs: range.live ? range.toMs + AHEAD_MS : range.toMs,
    isUpToNow: range.live,
    live: range.live && params.get("live") === "1",
    zone: zoneOf(params),
  };
}

/** Returns the body of a search. */
export function searchBody({ filters, fromMs }, { cursor, toMs, limit }) {
  return { limit, cursor, filters: filters.map(({ field, operator, value }) => ({ field, operator, value })), time_range: { from: fromMs, to: Math.max(fromMs, toMs) } };
}

/** Returns the query of the live tail. */
export function streamQuery({ filters }) {
  return filters.map(({ field, operator, value }) => ["filter", `${field}:${operator}:${value}`]);
}
