// Whether all of it can be trusted: how complete it is, how much comes in, what was no event, and what the last proof said.

import { change } from "../address.js";
import { get } from "../api.js";
import { serverMs } from "../clock.js";
import { h, replace, say } from "../dom.js";
import { current } from "../keys.js";
import { zoneOf } from "../range.js";
import { failed, loading } from "../states.js";
import { completeness, watch } from "./health/completeness.js";
import { letterList } from "./health/letters.js";
import { openLetter } from "./health/letter.js";
import { pace } from "./health/pace.js";
import { proof } from "./health/proof.js";

const ASK_EVERY_MS = 10_000;
const MINUTE_MS = 60_000;
const PACE_MINUTES = 30;
/** Of these, dead letters are counted for "growing". */
const HOUR_MS = 3_600_000;
const COUNTED_MAX = 100;

export function mount(root) {
  const panels = Object.fromEntries(["completeness", "pace", "proof"].map((name) => [name, h("div", {}, loading())]));
  const warnings = h("section.warnings", { "aria-label": "Warnings" });
  const watched = watch();
  let params = new URLSearchParams();
  let timer = null;
  let asking = new AbortController();
  let letter = null; // {id, close} that is open

  const letters = letterList();
  const section = (name, title, content) => h(name, { "aria-label": title }, h("h2", {}, title), content);
  replace(root, h("div.health", {}, warnings,
    section("section", "Complete until", panels.completeness),
    section("section", "Calls per second", panels.pace),
    section("section", "Last proof", panels.proof),
    section("section.wide", "Dead letters", letters.element)));

  /** Asks now, and from now on every so often. */
  function begin() {
    asking.abort();
    asking = new AbortController();
    clearTimeout(timer);
    ask(asking.signal);
  }

  async function ask(signal) {
    const nowMs = serverMs();
    const [freshness, usage, verification, recent] = await Promise.allSettled([
      get("v1/freshness", {}, { signal }),
      get("v1/usage", { from: Math.floor(nowMs / MINUTE_MS - PACE_MINUTES) * MINUTE_MS, to: nowMs, interval: "minute", metrics: "calls,failed" }, { signal }),
      get("v1/verification", {}, { signal }),
      get("v1/dead-letters", { from: nowMs - HOUR_MS, limit: COUNTED_MAX }, { signal }),
    ]);
    if (signal.aborted) return;
    const zone = zoneOf(params);
    const told = [
      ...shown(panels.completeness, freshness, (body) => completeness(watched.saw(body, nowMs), { nowMs, zone })),
      ...shown(panels.pace, usage, (body) => pace(body, { nowMs, zone })),
      ...shown(panels.proof, verification, (body) => proof(body.verification, { nowMs, zone })),
      ...(recent.status === "fulfilled" ? letters.recent(recent.value) : []),
    ];
    warn(told);
    timer = setTimeout(ask, ASK_EVERY_MS, signal);
  }

  /** Draws a panel of an answer, or of why there is none; returns its warnings. */
  function shown(panel, { status, value, reason }, draw) {
    if (status === "rejected") {
      replace(panel, failed(reason, begin, { byItself: false }));
      return [];
    }
    const { content, warnings: found } = draw(value);
    replace(panel, content);
    return found;
  }

  let warned = null;
  function warn(told) {
    // Those who listen are told only what is new, not each second that it is behind.
    const kinds = told.join(" ").replace(/\d+/g, "");
    if (warned !== null && kinds !== warned) say(told.length ? told.join(" ") : "All is well.");
    warned = kinds;
    replace(warnings, told.length ? h("ul", {}, told.map((each) => h("li", {}, each))) : h("p.well", {}, "All is well: complete, nothing stands still, no new dead letters, and the last proof found nothing."));
  }

  function howToOpen() {
    const onclose = () => {
      letter = null;
      change({ letter: null });
    };
    return { zone: zoneOf(params), may: current().scope === "full", onclose, onreplay: letters.again };
  }

  return {
    update(now) {
      params = now;
      letters.update(params);
      const wanted = params.get("letter");
      if (letter !== null && letter.id !== wanted) {
        letter.close();
        letter = null;
      }
      if (wanted !== null && letter === null) letter = { id: wanted, close: openLetter(wanted, howToOpen()) };
      begin();
    },
    key: () => false,
    unmount() {
      asking.abort();
      clearTimeout(timer);
      letters.end();
      letter?.close();
    },
  };
}
