// "Complete until", always in view: everything accepted before that moment is in what the page shows.

import { read } from "./address.js";
import { get } from "./api.js";
import { serverMs, wrongMs } from "./clock.js";
import { h, replace, say } from "./dom.js";
import { clock, duration, moment } from "./format.js";
import { zoneOf } from "./range.js";

const ASK_EVERY_MS = 5_000;
// Workers report every second or so; beyond this something is wrong, or more comes in than is worked through.
const BEHIND_MS = 15_000;
// A server that takes longer than this to say two numbers does not answer.
const PATIENCE_MS = 10_000;

/** Returns {element, told(ms), follow(), rest()}. */
export function freshnessLine() {
  const element = h("div.freshness");
  let untilMs = null;
  let silent = null;
  let timer = null;
  let following = null; // one object for each time somebody looks; what an older one asked for is of no use
  let behind = false;

  function draw() {
    const zone = zoneOf(read().params);
    if (silent !== null) {
      element.className = "freshness bad";
      replace(element, h("strong", {}, "Not up to date: "), silent, untilMs === null ? "" : ` What is shown was complete until ${clock(untilMs, zone)}.`);
      return;
    }
    if (untilMs === null) return replace(element);
    const lagMs = Math.max(0, serverMs() - untilMs);
    const isBehind = lagMs > BEHIND_MS;
    element.className = isBehind ? "freshness bad" : "freshness";
    const time = h("time", { datetime: new Date(untilMs).toISOString(), title: moment(untilMs, zone) }, clock(untilMs, zone));
    replace(element, isBehind ? h("strong", {}, `Behind by ${duration(lagMs)}: `) : "", "Complete until ", time, isBehind ? "; what came later may be missing here." : "", ownClock());
    if (isBehind !== behind) say(isBehind ? "What is shown is behind." : "What is shown is up to date again.");
    behind = isBehind;
  }

  /** Says that the reader's clock is wrong; "" where it is right. */
  function ownClock() {
    const aheadMs = wrongMs();
    return aheadMs === 0 ? "" : ` (This computer's clock is ${duration(Math.abs(aheadMs))} ${aheadMs > 0 ? "ahead of" : "behind"} the server's, which is the one that counts here.)`;
  }

  async function look(mine) {
    let told = null;
    let problem = null;
    try {
      told = (await get("v1/freshness", {}, { signal: AbortSignal.timeout(PATIENCE_MS) })).complete_until_ms;
    } catch (error) {
      // A refused key is told where it was used; here it would be told twice.
      problem = error.status === 0 || error.status >= 500 ? error.message : null;
    }
    if (mine !== following) return;
    untilMs = told ?? untilMs;
    silent = problem;
    draw();
    timer = setTimeout(look, ASK_EVERY_MS, mine);
  }

  return {
    element,
    told(ms) {
      silent = null;
      untilMs = Math.max(ms, untilMs ?? 0);
      draw();
    },
    follow() {
      draw();
      if (following === null) look((following = {}));
    },
    rest() {
      clearTimeout(timer);
      following = untilMs = silent = null;
      behind = false;
    },
  };
}
