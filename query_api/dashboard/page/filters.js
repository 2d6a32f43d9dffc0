// Filters of an address: which field, which operator, which value; all must hold.

/** Fields, as the log search names them -> as people read them, in the order they are offered. */
export const FIELDS = {
  toolkit_slug: "toolkit",
  tool_slug: "tool",
  user_id: "user",
  session_id: "session",
  status: "status",
  failure_class: "failure class",
  text: "text",
  failure_pattern: "pattern",
  connected_account_id: "account",
  auth_config_id: "auth config",
  request_id: "request",
  trace_id: "trace",
  parent_log_id: "parent",
  error_code: "error code",
  error_type: "error type",
  log_id: "log id",
};
/** Behind a field's name in the address -> the search's operator. */
const OPERATORS = { "": "==", "!": "!=", "~": "contains", "!~": "not_contains" };
const SIGNS = Object.fromEntries(Object.entries(OPERATORS).map(([sign, operator]) => [operator, sign]));
/** As people read them. */
export const WORDS = { "==": "is", "!=": "is not", contains: "contains", not_contains: "does not contain" };
/** What usage and failures can be narrowed by; of these only `==`. */
export const OF_USAGE = ["tool_slug", "toolkit_slug", "user_id", "session_id", "status", "failure_class"];
export const CLASSES = [
  "unauthorized", "forbidden", "invalid_input", "tool_not_found", "no_connected_account", "rate_limited", "upstream_error",
  "timeout", "network", "other",
];

/** Returns [{field, operator, value}] of an address, in its order. */
export function filtersOf(params) {
  const found = [];
  for (const [name, value] of params) {
    const match = /^([a-z_]+)(!~|!|~)?$/.exec(name);
    if (match && Object.hasOwn(FIELDS, match[1])) found.push({ field: match[1], operator: OPERATORS[match[2] ?? ""], value });
  }
  return found;
}

/** Returns a copy of an address's parameters with one filter more, in place of others of that field and operator if asked. */
export function withFilter(params, { field, operator = "==", value }, { instead = false } = {}) {
  const made = new URLSearchParams(params);
  const name = field + SIGNS[operator];
  if (instead) made.delete(name);
  if (!made.getAll(name).includes(value)) made.append(name, value);
  return made;
}

/** Returns a copy of an address's parameters without one filter. */
export function without(params, { field, operator, value }) {
  const name = field + SIGNS[operator];
  const left = params.getAll(name);
  left.splice(left.indexOf(value), 1);
  const made = new URLSearchParams(params);
  made.delete(name);
  for (const each of left) made.append(name, each);
  return made;
}

/**
 * Splits filters into what `/v1/usage` and `/v1/failures` take and what they cannot.
 *
 * @returns {{query: string[][], ignored: Object[]}} query: [name, value] pairs. Two different values of a field: none fits both,
 *   while usage would take either; so such a pair is among the ignored.
 */
export function forUsage(filters) {
  const query = [];
  const ignored = [];
  for (const each of filters) {
    const fits = each.operator === "==" && OF_USAGE.includes(each.field) && !query.some(([name]) => name === each.field);
    if (fits) query.push([each.field, each.value]);
    else ignored.push(each);
  }
  return { query, ignored };
}
