// A JSON value as a tree that folds, is searched and copied. What is folded is not built, however large it is.

import { copy, h, put, replace } from "../../dom.js";
import { count } from "../../format.js";
import { endOf, find, indexOf, items, kindAt, stringOf } from "./json_text.js";

/** Items of a container that are shown at once; more are parted into stretches of as many, which fold. */
const ITEMS_MAX = 100;
/** Of a longer text the beginning is shown, and more by and by. */
const TEXT_CHARS = 500;
const MORE_CHARS = 20_000;
/** What is unfolded from the start, at most. */
const OPEN_ITEMS_MAX = 60;
/** Larger containers are not looked through only to say how many items they have. */
const COUNTED_CHARS_MAX = 100_000;
const MATCHES_MAX = 1_000;
const SEARCH_AFTER_MS = 200;

/**
 * Returns a tree.
 *
 * @param {string} text a JSON value as it was sent
 * @param {{name: string, depth: number}} how depth: so many levels are unfolded where they are small
 */
export function jsonTree(text, { name, depth }) {
  const start = text.search(/[^ \t\r\n]/);
  const budget = { left: OPEN_ITEMS_MAX };
  const root = node(text, { name: null, start, end: endOf(text, start) }, depth, budget);
  if (depth > 0) root.open?.();
  const button = h("button.small", { type: "button", "aria-label": `Copy ${name}`, onclick: () => copy(text, button) }, "Copy");
  return h("div.json", {}, h("div.row.json-bar", {}, searchBox(text, start, root, name), button), h("ul.json-root", {}, root.element));
}

function node(text, item, depth, budget) {
  const kind = kindAt(text, item.start);
  return kind === "object" || kind === "array" ? container(text, item, depth, budget) : scalar(text, item, kind);
}

function label(name) {
  return name === null ? null : h("span.json-name", {}, h("bdi", {}, name === "" ? '""' : name), ": ");
}

function scalar(text, { name, start, end }, kind) {
  const element = h("li", {}, label(name));
  if (kind === "string") put(element, textValue(stringOf(text, start, end)));
  else put(element, h(`span.json-${kind}`, {}, text.slice(start, end)));
  return { element, child: () => null };
}

function textValue(said) {
  if (said.length <= TEXT_CHARS) return h("span.json-string", {}, '"', h("bdi", {}, said), '"');
  const shown = h("bdi");
  const more = h("button.small", { type: "button" });
  const all = h("button.small", { type: "button", onclick: () => copy(said, all) }, "Copy text");
  let at = 0;
  const go = (chars) => {
    let end = Math.min(said.length, at + chars);
    // Not between the halves of a character.
    if (/[\ud800-\udbff]/.test(said[end - 1] ?? "") && end < said.length) end++;
    put(shown, said.slice(at, end));
    at = end;
    more.textContent = `${count(said.length - at)} more characters`;
    more.hidden = all.hidden = at >= said.length;
  };
  more.addEventListener("click", () => go(MORE_CHARS));
  go(TEXT_CHARS);
  return h("span.json-string", {}, '"', shown, '"', " ", more, all);
}

function container(text, { name, start, end }, depth, budget) {
  const isObject = text[start] === "{";
  const index = end - start <= COUNTED_CHARS_MAX ? indexOf(text, start) : null;
  const size = index === null ? "…" : count(index.count);
  const [left, right] = isObject ? "{}" : "[]";
  if (index?.count === 0) return { element: h("li", {}, label(name), `${left}${right}`), child: () => null };
  let known = index;
  const made = fold([label(name), h("span.quiet", {}, `${left} ${size} ${right}`)], () => {
    known ??= indexOf(text, start);
    return stretch({ text, start, index: known, from: 0, to: known.count, isObject, depth, budget });
  });
  if (depth > 0 && index !== null && index.count <= budget.left) {
    budget.left -= index.count;
    made.open();
  }
  return made;
}

/** Returns the nodes of items [from, to): each, or stretches of them that fold. */
function stretch(of) {
  const { text, start, index, from, to, depth, budget } = of;
  if (to - from <= ITEMS_MAX) {
    const nodes = items(text, start, index, from, to).map((item, number) => node(text, of.isObject ? item : { ...item, name: String(from + number) }, depth - 1, budget));
    return { nodes, child: (number) => nodes[number - from] };
  }
  let step = ITEMS_MAX;
  while ((to - from) / step > ITEMS_MAX) step *= ITEMS_MAX;
  const nodes = [];
  for (let at = from; at < to; at += step) {
    const until = Math.min(to, at + step);
    nodes.push(fold([h("span.quiet", {}, `${count(at)} … ${count(until - 1)}`)], () => stretch({ ...of, from: at, to: until, depth: 0 })));
  }
  return { nodes, child: (number) => nodes[Math.floor((number - from) / step)].child(number) };
}

/** Makes a node that folds; `unfold` makes what is in it when it is first looked into. */
function fold(what, unfold) {
  const list = h("ul", { hidden: true });
  const button = h("button.json-fold", { type: "button", "aria-expanded": "false", onclick: () => (list.hidden ? open() : close()) }, what);
  let inside = null;
  function open() {
    if (inside === null) {
      inside = unfold();
      put(list, inside.nodes.map((each) => each.element));
    }
    list.hidden = false;
    button.setAttribute("aria-expanded", "true");
  }
  function close() {
    list.hidden = true;
    button.setAttribute("aria-expanded", "false");
  }
  return {
    element: h("li", {}, button, list),
    open,
    child(number) {
      open();
      return inside.child(number);
    },
  };
}

function searchBox(text, start, root, name) {
  const input = h("input", { type: "search", placeholder: `Search ${name}`, "aria-label": `Search ${name}`, maxlength: "1000" });
  const told = h("span.quiet", { role: "status" });
  let ways = [];
  let at = -1;
  let marked = null;
  let running = 0;
  let timer = null;

  async function search() {
    const mine = ++running;
    const wanted = input.value;
    [ways, at] = [[], -1];
    mark(null);
    if (wanted === "") return replace(told);
    let pausedMs = performance.now();
    for (const way of find(text, start, wanted)) {
      if (way !== null) ways.push(way);
      if (ways.length >= MATCHES_MAX) break;
      // Input and drawing go first.
      if (performance.now() - pausedMs > 12) {
        await new Promise((resolve) => setTimeout(resolve));
        if (mine !== running) return;
        pausedMs = performance.now();
      }
    }
    if (ways.length) show(0);
    else replace(told, "not found");
  }

  function show(number) {
    at = (number + ways.length) % ways.length;
    let place = root;
    for (const step of ways[at]) place = place.child(step) ?? place;
    mark(place.element);
    replace(told, `${count(at + 1)} of ${count(ways.length)}${ways.length >= MATCHES_MAX ? "+" : ""}`);
  }

  function mark(element) {
    marked?.classList.remove("is-found");
    marked = element;
    marked?.classList.add("is-found");
    marked?.scrollIntoView({ block: "nearest" });
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(search, SEARCH_AFTER_MS);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (ways.length) show(at + (event.shiftKey ? -1 : 1));
  });
  return [input, told];
}
