// Small lines beside a row: how a number went over the range.

import { svg } from "../../dom.js";

const WIDTH = 96;
const HEIGHT = 22;

/**
 * Returns a drawing of counts over time: bars, and what of each failed in another shade at its foot.
 *
 * @param {{start: number, calls: number, failed: number}[]} points those with calls, in any order
 * @param {{fromMs: number, toMs: number, label: string}} range label: says the same in words
 */
export function spark(points, { fromMs, toMs, label }, bins = 32) {
  const sums = Array.from({ length: bins }, () => ({ calls: 0, failed: 0 }));
  const width = Math.max(1, toMs - fromMs) / bins;
  for (const { start, calls, failed } of points) {
    const bin = sums[Math.min(bins - 1, Math.max(0, Math.floor((start - fromMs) / width)))];
    bin.calls += calls;
    bin.failed += failed;
  }
  const most = Math.max(1, ...sums.map((each) => each.calls));
  const step = WIDTH / bins;
  const bar = (name, at, value) => value && svg(name, {
    x: at * step, width: Math.max(1, step - 1), y: HEIGHT - height(value, most), height: height(value, most),
  });
  return svg("svg.spark", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, height: HEIGHT, role: "img", "aria-label": label },
    svg("title", {}, label),
    svg("line.spark-foot", { x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 }),
    sums.map((each, at) => [bar("rect.spark-calls", at, each.calls), bar("rect.spark-failed", at, each.failed)]));
}

function height(value, most) {
  return Math.max(1.5, (value / most) * (HEIGHT - 1));
}

/**
 * Splits the keys of rows so that a question about each part fits into an address and its answer into one.
 *
 * @param {string[]} keys
 * @param {number} most keys of a part
 */
export function* parts(keys, most, chars = 6_000) {
  let part = [];
  let length = 0;
  for (const key of keys) {
    const size = encodeURIComponent(key).length + 20;
    if (part.length && (part.length >= most || length + size > chars)) {
      yield part;
      part = [];
      length = 0;
    }
    part.push(key);
    length += size;
  }
  if (part.length) yield part;
}
