// What to do where no call fits.

import { link } from "../../address.js";
import { serverMs } from "../../clock.js";
import { h } from "../../dom.js";
import { filtersOf } from "../../filters.js";
import { fixed, OFFERED, sinceMs, upToNow } from "../../range.js";
import { empty } from "../../states.js";

/** Returns a state with the ways that may lead to something. */
export function nothingFound(question, { view, params }) {
  const isNarrowed = question.filters.length > 0;
  const askedMs = question.isUpToNow ? serverMs() - question.fromMs : 0;
  const wider = OFFERED.filter(([name]) => sinceMs(name) > askedMs * 1.01).map(([name, label]) => to(label, upToNow(name)));
  // A stretch that somebody chose is widened around itself first.
  const length = question.endMs - question.fromMs;
  if (!question.isUpToNow) wider.unshift(to("Ten times as long", fixed(Math.max(0, question.fromMs - 4.5 * length), question.endMs + 4.5 * length)));
  const title = question.live ? "No call yet; new ones appear here as they come in" : isNarrowed ? "No call fits these filters in this time" : "No calls in this time";
  const advice = isNarrowed ? "Look at a longer time, or take filters away." : "Look at a longer time. If calls should be here, Health tells whether they are still on their way.";
  return empty(title, advice, h("div.row.ways", {}, wider, isNarrowed && h("a.way", { href: link(view, withoutFilters(params)) }, "Clear filters")));

  function to(label, changes) {
    const made = new URLSearchParams(params);
    for (const [name, value] of Object.entries(changes)) {
      if (value === null) made.delete(name);
      else made.set(name, value);
    }
    return h("a.way", { href: link(view, made) }, label);
  }
}

function withoutFilters(params) {
  return [...params].filter(([name]) => !filtersOf(new URLSearchParams([[name, ""]])).length);
}
