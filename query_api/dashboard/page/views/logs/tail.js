// The live tail: Server-Sent Events, read by fetch because an EventSource cannot send a key.
//
// A place in the stream comes with each log, and whoever comes back with the last one misses nothing and gets nothing twice.

import { ask } from "../../api.js";

const RETRY_MS = [1_000, 2_000, 5_000, 10_000, 30_000];
// The server says something every 15 s, if only that it is there: a connection silent for thrice that is gone.
const SILENT_MS = 45_000;

/**
 * Reads blocks of an event stream, however it is cut into pieces.
 *
 * @param {function({id: string|null, data: string|null}): void} given an id counts only when its block is whole
 * @returns {function(string): void} takes the next piece
 */
export function eventReader(given) {
  let rest = "";
  let id = null;
  let data = [];
  return (piece) => {
    const lines = (rest + piece).split("\n");
    rest = lines.pop();
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (id !== null || data.length) given({ id, data: data.length ? data.join("\n") : null });
        id = null;
        data = [];
        continue;
      }
      const cut = line.indexOf(":");
      const name = cut < 0 ? line : line.slice(0, cut);
      const value = cut < 0 ? "" : line.slice(cut + 1).replace(/^ /, "");
      if (name === "id") id = value;
      else if (name === "data") data.push(value);
    }
  };
}

/**
 * Follows logs until it is stopped.
 *
 * @param {string[][]} query which ones, as `/v1/logs/stream` takes it
 * @param {string} after the place to go on from; "": now
 * @param {{log: function(Object), state: function(string, ?Object)}} told log: each one once; state: "open", "waiting" with
 *   {error, waitMs}, or "refused" with {error}, after which it has stopped
 * @returns {{stop: function(): void, place: string}}
 */
export function follow(query, after, told) {
  const stopped = new AbortController();
  const tail = { place: after, stop: () => stopped.abort() };

  async function run() {
    for (let tries = 0; !stopped.signal.aborted;) {
      let error = null;
      try {
        await once(() => { tries = 0; });
      } catch (caught) {
        if (stopped.signal.aborted) return;
        error = caught;
        if ([400, 401, 403, 404].includes(error.status)) return told.state("refused", { error });
      }
      if (stopped.signal.aborted) return;
      const pauseMs = RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)];
      // Not all readers at once, when a server comes back.
      const waitMs = Math.max((error?.retryAfterS ?? 0) * 1000, pauseMs * (0.75 + Math.random() / 2));
      told.state("waiting", { error, waitMs });
      await pause(waitMs);
    }
  }

  /** Reads one connection to its end. */
  async function once(begun) {
    const ended = new AbortController();
    const end = () => ended.abort();
    stopped.signal.addEventListener("abort", end);
    let silence = setTimeout(end, SILENT_MS);
    try {
      const headers = tail.place === "" ? {} : { "last-event-id": tail.place };
      const response = await ask(`v1/logs/stream?${new URLSearchParams(query)}`, { signal: ended.signal, headers });
      const pieces = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const read = eventReader(({ id, data }) => {
        if (data !== null) told.log(JSON.parse(data));
        if (id !== null) tail.place = id;
      });
      for (;;) {
        const { done, value } = await pieces.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(end, SILENT_MS);
        if (stopped.signal.aborted) return;
        begun();
        read(value);
        told.state("open");
      }
    } finally {
      clearTimeout(silence);
      stopped.signal.removeEventListener("abort", end);
    }
  }

  function pause(ms) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        window.removeEventListener("online", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      window.addEventListener("online", done);
      stopped.signal.addEventListener("abort", done, { once: true });
    });
  }

  run();
  return tail;
}
