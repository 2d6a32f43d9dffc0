// JSON as a text that is never read whole: where a value ends, what is in it, what it says. Numbers keep all their digits, members
// their order and their repeats, and a container costs nothing until somebody looks into it. The text is well-formed: the API
// made sure.

const NEXT = /["{}[\]]/g;
const SPACE = /[ \t\r\n]*/y;
const SCALAR_END = /[,}\] \t\r\n]|$/g;
/** The place of every so manieth item of a container is kept. */
const MARK_EVERY = 100;

function skipSpace(text, at) {
  SPACE.lastIndex = at;
  SPACE.test(text);
  return SPACE.lastIndex;
}

function stringEnd(text, at) {
  for (let quote = text.indexOf('"', at + 1); ; quote = text.indexOf('"', quote + 1)) {
    let back = quote - 1;
    while (text[back] === "\\") back--;
    // An even number of backslashes are so many escaped ones.
    if ((quote - back) % 2) return quote + 1;
  }
}

/** Returns where the value that begins at a place ends. */
export function endOf(text, at) {
  const first = text[at];
  if (first === '"') return stringEnd(text, at);
  if (first !== "{" && first !== "[") {
    SCALAR_END.lastIndex = at;
    return SCALAR_END.exec(text).index;
  }
  let depth = 0;
  for (let place = at; ;) {
    NEXT.lastIndex = place;
    const { 0: sign, index } = NEXT.exec(text);
    if (sign === '"') place = stringEnd(text, index);
    else {
      depth += sign === "{" || sign === "[" ? 1 : -1;
      place = index + 1;
      if (depth === 0) return place;
    }
  }
}

/** Returns what kind of value begins at a place: "object", "array", "string", "number", "word". */
export function kindAt(text, at) {
  return { "{": "object", "[": "array", '"': "string", t: "word", f: "word", n: "word" }[text[at]] ?? "number";
}

/** Reads one item of a container from where it begins: {name, start, end, next}; next: where the following one begins, -1: none. */
function itemAt(text, at, isObject) {
  let name = null;
  let start = at;
  if (isObject) {
    const colon = stringEnd(text, at);
    name = [at, colon];
    start = skipSpace(text, skipSpace(text, colon) + 1);
  }
  const end = endOf(text, start);
  const behind = skipSpace(text, end);
  return { name, start, end, next: text[behind] === "," ? skipSpace(text, behind + 1) : -1 };
}

function firstItem(text, at) {
  const place = skipSpace(text, at + 1);
  return text[place] === "}" || text[place] === "]" ? -1 : place;
}

/**
 * Looks through a container.
 *
 * @returns {{count: number, marks: number[]}} marks: where each hundredth item begins, so that any of them is found quickly
 */
export function indexOf(text, at) {
  const isObject = text[at] === "{";
  const marks = [];
  let count = 0;
  for (let place = firstItem(text, at); place >= 0; count++) {
    if (count % MARK_EVERY === 0) marks.push(place);
    place = itemAt(text, place, isObject).next;
  }
  return { count, marks };
}

/** Returns items [from, to) of a container: {name: string|null, start, end}. */
export function items(text, at, { marks }, from, to) {
  const isObject = text[at] === "{";
  const found = [];
  let number = Math.floor(from / MARK_EVERY) * MARK_EVERY;
  for (let place = marks[number / MARK_EVERY] ?? -1; place >= 0 && number < to; number++) {
    const { name, start, end, next } = itemAt(text, place, isObject);
    if (number >= from) found.push({ name: name && stringOf(text, ...name), start, end });
    place = next;
  }
  return found;
}

/** Returns what a string between two places says. */
export function stringOf(text, start, end) {
  const raw = text.slice(start + 1, end - 1);
  return raw.includes("\\") ? JSON.parse(text.slice(start, end)) : raw;
}

/** Returns the members of an object that is a whole text: [{name, text}], values as they are spelled. */
export function membersOf(text) {
  const at = skipSpace(text, 0);
  if (text[at] !== "{") return [];
  return items(text, at, indexOf(text, at), 0, Infinity).map(({ name, start, end }) => ({ name, text: text.slice(start, end) }));
}

/**
 * Finds names and values that contain a text, without regard to case.
 *
 * @returns {Generator<?number[]>} the way to each: numbers of items from the outermost container in; null now and then, so that
 *   who reads can stop for a moment
 */
export function* find(text, at, wanted) {
  const needle = wanted.toLowerCase();
  const has = (piece) => piece.toLowerCase().includes(needle);
  const way = [];
  const open = []; // {isObject, next, end}; end: behind the container, once its last item is passed
  let looked = 0;
  if (!["object", "array"].includes(kindAt(text, at))) {
    const said = text[at] === '"' ? stringOf(text, at, endOf(text, at)) : text.slice(at, endOf(text, at));
    if (has(said)) yield [];
    return;
  }
  open.push({ isObject: text[at] === "{", next: firstItem(text, at) });
  way.push(-1);
  while (open.length) {
    const container = open.at(-1);
    if (container.next < 0) {
      open.pop();
      way.pop();
      if (open.length) goOn(text, open.at(-1), container.end);
      continue;
    }
    way[way.length - 1]++;
    let start = container.next;
    let isFound = false;
    if (container.isObject) {
      const colon = stringEnd(text, start);
      isFound = has(stringOf(text, start, colon));
      start = skipSpace(text, skipSpace(text, colon) + 1);
    }
    const kind = kindAt(text, start);
    if (kind === "object" || kind === "array") {
      if (isFound) yield [...way];
      const first = firstItem(text, start);
      if (first < 0) goOn(text, container, skipSpace(text, start + 1) + 1);
      else {
        open.push({ isObject: kind === "object", next: first });
        way.push(-1);
      }
    } else {
      const end = endOf(text, start);
      if (isFound || has(kind === "string" ? stringOf(text, start, end) : text.slice(start, end))) yield [...way];
      goOn(text, container, end);
    }
    if (++looked % 2000 === 0) yield null;
  }
}

/** Goes behind an item that ends at a place: to the next one, or to the end of the container. */
function goOn(text, container, end) {
  const behind = skipSpace(text, end);
  if (text[behind] === ",") container.next = skipSpace(text, behind + 1);
  else Object.assign(container, { next: -1, end: behind + 1 });
}
