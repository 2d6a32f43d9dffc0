// How a figure differs from that of the period before.

import { h } from "../../dom.js";
import { count, percent } from "../../format.js";
import { METRICS } from "./question.js";

// Of these more is neither good nor bad.
const NEUTRAL = ["calls", "active_users", "active_sessions", "sessions"];

/** Returns elements that say it in words: "+12 %", and behind it what it was before; of rates in percentage points, of what has grown much as its multiple. */
export function difference(name, now, then) {
  const before = h("span.quiet", {}, ` (before: ${METRICS[name].format(then)})`);
  if (now === null || then === null) return [h("span.quiet", {}, "no comparison"), before];
  const worse = !NEUTRAL.includes(name) && now > then;
  return [h(worse ? "strong" : "span", {}, words(name, now, then)), before];
}

function words(name, now, then) {
  if (name === "error_rate") return `${sign(now - then)}${count(Math.abs(Math.round((now - then) * 10_000) / 100))} points`;
  if (now === then) return "the same";
  if (then === 0) return `+${METRICS[name].format(now)}`;
  if (now >= 10 * then) return `${count(Math.round(now / then))} times that`;
  return `${sign(now - then)}${percent(Math.abs(now - then) / then)}`;
}

function sign(value) {
  return value > 0 ? "+" : value < 0 ? "−" : "±";
}
