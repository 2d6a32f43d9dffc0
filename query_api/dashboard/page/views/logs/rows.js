// A list of any length of which only the rows in view are elements.

// Browsers place nothing beyond some 17 to 33 million pixels; a longer list is shown in stretches that are moved as one scrolls.
const HEIGHT_MAX = 8_000_000;
const BEYOND_VIEW = 5;

/**
 * Makes a list of rows of one height.
 *
 * @param {HTMLElement} scroller what scrolls
 * @param {HTMLElement} body within it, empty; its rows are placed from its top on
 * @param {Object} of
 * @param {function(): number} of.count rows there are
 * @param {function(number): {key: string, make: function(): HTMLElement, update: function(HTMLElement): void}} of.row
 * @param {function(number, number): void} of.want the rows in view are [from, to)
 * @param {function(): void} [of.resized] called when the room has changed
 */
export function rowList(scroller, body, { count, row, want, resized = () => {} }) {
  const shown = new Map(); // key -> element
  let height = 0;
  let base = 0; // number of the row at the top of the body
  let frame = 0;
  let head = 0; // height of what stays in view above the rows

  function measure() {
    const at = height ? first() : 0;
    height = rowHeight();
    head = body.getBoundingClientRect().top - scroller.getBoundingClientRect().top + scroller.scrollTop;
    draw();
    if (Math.abs(first() - at) > 0.01) scrollTo(at);
    resized();
  }

  /** The style says it as the height of a line, for what is absent has no other. */
  function rowHeight() {
    return Number.parseFloat(getComputedStyle(body).getPropertyValue("line-height")) || 36;
  }

  function first() {
    return base + scroller.scrollTop / height;
  }

  function rowsMax() {
    return Math.floor(HEIGHT_MAX / height);
  }

  /** Moves the stretch that is shown, where its end is near and it is not the list's end. */
  function shift() {
    const at = scroller.scrollTop / height;
    const most = rowsMax();
    let by = 0;
    if (count() - base > most && at > most * 0.75) by = Math.min(Math.floor(most / 2), count() - base - most);
    else if (base > 0 && at < most * 0.25) by = -Math.min(base, Math.floor(most / 2));
    if (!by) return;
    base += by;
    size();
    scroller.scrollTop -= by * height;
  }

  function size() {
    base = Math.max(0, Math.min(base, count() - 1));
    body.style.setProperty("height", `${Math.min(count() - base, rowsMax()) * height}px`);
  }

  function draw() {
    cancelAnimationFrame(frame);
    frame = 0;
    if (!height || !scroller.isConnected) return;
    size();
    shift();
    const top = first();
    const inView = Math.ceil((scroller.clientHeight - head) / height) + 1;
    const from = Math.max(0, Math.floor(top) - BEYOND_VIEW);
    const to = Math.min(count(), Math.floor(top) + inView + BEYOND_VIEW);
    const gone = new Set(shown.keys());
    for (let number = from; number < to; number++) {
      const { key, make, update } = row(number);
      let element = shown.get(key);
      if (element) update(element);
      else {
        element = make();
        shown.set(key, element);
        body.append(element);
      }
      gone.delete(key);
      element.style.setProperty("transform", `translateY(${(number - base) * height}px)`);
    }
    for (const key of gone) {
      shown.get(key).remove();
      shown.delete(key);
    }
    want(from, to);
  }

  function later() {
    if (!frame) frame = requestAnimationFrame(draw);
  }

  function scrollTo(number) {
    base = Math.max(0, Math.min(base, Math.floor(number)));
    if (number - base > rowsMax() * 0.75) base = Math.floor(number);
    size();
    scroller.scrollTop = (number - base) * height;
    draw();
  }

  const observer = new ResizeObserver(measure);
  observer.observe(scroller);
  // What is not shown yet has no size that could change.
  height = rowHeight();
  scroller.addEventListener("scroll", later, { passive: true });

  return {
    draw: later,
    now: draw,
    /** The number of the row at the top, with its part that is out of view. */
    first,
    /** Whether the newest row is at the top. */
    get atTop() { return first() < 0.5; },
    scrollTo,
    /** Sees that a row is in view. */
    show(number) {
      const inView = (scroller.clientHeight - head) / height;
      if (number < first()) scrollTo(number);
      else if (number + 1 > first() + inView) scrollTo(number + 1 - inView);
      else draw();
    },
    /** Rows that are in view whole. */
    get rowsInView() { return Math.max(1, Math.floor((scroller.clientHeight - head) / height)); },
    /** Forgets all elements, as after a change of how they look. */
    renew() {
      for (const element of shown.values()) element.remove();
      shown.clear();
      draw();
    },
    close() {
      cancelAnimationFrame(frame);
      observer.disconnect();
      scroller.removeEventListener("scroll", later);
    },
  };
}
