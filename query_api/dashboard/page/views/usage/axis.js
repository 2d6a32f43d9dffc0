// Marks on axes, in the reader's locale and zone. Axes are of plain numbers: epoch ms, counts, fractions, ms.

import { day, minute } from "../../format.js";
import { offsetMs } from "../../range.js";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const STEPS_MS = [1, 2, 5, 10, 15, 30].map((each) => each * MINUTE_MS)
  .concat([1, 2, 3, 6, 12].map((each) => each * HOUR_MS), [1, 2, 7, 14, 28, 56, 112].map((each) => each * DAY_MS));

/** Returns marks of time within [fromMs, toMs), at round times of a zone's clock, at most so many. */
export function timeMarks(fromMs, toMs, zone, most) {
  const step = STEPS_MS.find((each) => (toMs - fromMs) / each <= most) ?? STEPS_MS.at(-1);
  const values = [];
  // Asked for at each mark, for the clock may change within the range.
  for (let wall = Math.ceil((fromMs + offsetMs(fromMs, zone)) / step) * step; values.length <= most; wall += step) {
    const at = wall - offsetMs(wall - offsetMs(wall, zone), zone);
    if (at >= toMs) break;
    if (at >= fromMs) values.push(at);
  }
  return { tickvals: values, ticktext: values.map((at) => ((at + offsetMs(at, zone)) % DAY_MS === 0 ? day(at, zone) : minute(at, zone))) };
}

/** Returns marks from 0 to beyond the largest value, at round numbers. */
export function valueMarks(most, format, { whole = false, parts = 4 } = {}) {
  const rough = (most || 1) / parts;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(whole ? 1 : 0, power * [1, 2, 5, 10].find((each) => each * power >= rough * 0.999));
  const values = Array.from({ length: Math.ceil((most || 1) / step - 1e-9) + 1 }, (_, at) => at * step);
  return { tickvals: values, ticktext: values.map(format), range: [0, values.at(-1) * 1.04] };
}
