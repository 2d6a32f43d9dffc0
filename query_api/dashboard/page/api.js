// The public API, asked with the key of the project that is looked at.

import { answeredAt } from "./clock.js";
import { current } from "./keys.js";

/** What went wrong, in words for people. `status` 0: nobody answered. */
export class ApiError extends Error {
  constructor(status, message, { fix = "", requestId = "", retryAfterS = null } = {}) {
    super(message);
    this.status = status;
    this.fix = fix;
    this.requestId = requestId;
    this.retryAfterS = retryAfterS;
  }
}

const freshness = new Set();

/** Calls back with `complete until` (epoch ms) of every answer that tells it. */
export function onFreshness(listener) {
  freshness.add(listener);
}

/**
 * Asks for something.
 *
 * @param {string} path from the root, without its first slash: "v1/usage"
 * @param {Object|string[][]} [query] parameters; of an object those that are null are left out
 * @returns {Promise<Object>} the answer's body
 * @throws {ApiError} or an AbortError
 */
export async function get(path, query = {}, { signal, key } = {}) {
  const pairs = Array.isArray(query) ? query : Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  const text = new URLSearchParams(pairs).toString();
  return (await ask(path + (text ? `?${text}` : ""), { signal, key })).json();
}

/** Sends a JSON body; otherwise as `get`. */
export async function post(path, body, { signal, key } = {}) {
  return (await ask(path, { signal, key, method: "POST", body: JSON.stringify(body) })).json();
}

/** Returns the whole Response, as for streams and downloads; errors as `get`. */
export async function ask(path, { signal, key, method = "GET", body, headers = {} } = {}) {
  const credential = key ?? current()?.key ?? "";
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI), {
      method, body, signal, cache: "no-store", credentials: "omit",
      headers: { "x-api-key": credential, ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.", { fix: "Check that it runs and that the network lets you through; this page tries again." });
  }
  answeredAt(response.headers.get("date"));
  const told = Date.parse(response.headers.get("x-complete-until") ?? "");
  if (!Number.isNaN(told)) for (const listener of freshness) listener(told);
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const seconds = Number(response.headers.get("retry-after"));
  let said = {};
  try {
    said = (await response.json()).error ?? {};
  } catch {
    // Not ours: a proxy's page, perhaps. The status is all there is.
  }
  return new ApiError(response.status, said.message ?? `The server answered ${response.status}.`, {
    fix: said.suggested_fix ?? "",
    requestId: said.request_id ?? response.headers.get("x-request-id") ?? "",
    retryAfterS: Number.isFinite(seconds) && seconds > 0 ? seconds : null,
  });
}
