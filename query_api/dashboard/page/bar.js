// Above every view: the time that is looked at, and what it is narrowed down by.

import { change, go, link, read } from "./address.js";
import { h, replace } from "./dom.js";
import { moment, zoneName } from "./format.js";
import { CLASSES, FIELDS, filtersOf, OF_USAGE, WORDS, withFilter, without } from "./filters.js";
import { fixed, inputText, instantIn, isZone, OFFERED, ownZone, rangeOf, upToNow, zoneOf } from "./range.js";

/** Returns the bar of a view. */
export function bar(view, params) {
  if (view === "health") return null;
  return h("div.bar", {},
    h("div.row", {}, rangeSelect(params), view === "logs" && search(params), adder(view, params)),
    chips(view, params));
}

function rangeSelect(params) {
  const { fromMs, toMs, since, live } = rangeOf(params);
  const zone = zoneOf(params);
  const offered = OFFERED.some(([name]) => name === since) ? OFFERED : [...OFFERED, ...(since ? [[since, `Last ${since}`]] : [])];
  const own = since === null ? `${moment(fromMs, zone, { millis: false })} – ${live ? "now" : moment(toMs, zone, { millis: false })}` : null;
  const select = h("select", {
    "aria-label": "Time range",
    onchange: () => {
      if (select.value === "own") return;
      if (select.value === "custom") {
        select.value = since ?? "own";
        return custom(params);
      }
      change({ ...upToNow(select.value), log: null });
    },
  },
    own && h("option", { value: "own", selected: true }, own),
    offered.map(([name, label]) => h("option", { value: name, selected: name === since }, label)),
    h("option", { value: "custom" }, "Custom …"));
  return h("span.range", {}, select, h("span.zone", { title: "Time zone of all times" }, zoneName(zone)));
}

function custom(params) {
  const { fromMs, toMs } = rangeOf(params);
  const zone = zoneOf(params);
  const from = h("input", { id: "from", type: "datetime-local", step: "1", required: true, value: inputText(fromMs, zone) });
  const to = h("input", { id: "to", type: "datetime-local", step: "1", value: inputText(toMs, zone) });
  const zones = h("input", { id: "zone", list: "zones", value: zone, spellcheck: "false" });
  const list = h("datalist", { id: "zones" }, [ownZone(), "UTC", ...(Intl.supportedValuesOf?.("timeZone") ?? [])].map((each) => h("option", { value: each })));
  const said = h("p.error", { role: "alert" });
  const apply = (event) => {
    event.preventDefault();
    const named = zones.value.trim() || ownZone();
    if (!isZone(named)) return replace(said, `${named} is not a time zone: a name as Europe/Berlin.`);
    const [fromAt, toAt] = [instantIn(from.value, named), to.value ? instantIn(to.value, named) : null];
    if (fromAt === null) return replace(said, "From: a date and a time.");
    if (toAt !== null && toAt <= fromAt) return replace(said, "To must be after from.");
    dialog.close();
    change({
      ...(toAt === null ? { since: null, from: String(fromAt), to: null } : fixed(fromAt, toAt)),
      tz: named === ownZone() ? null : named, log: null,
    });
  };
  const dialog = h("dialog", { "aria-label": "Time range", onclose: () => dialog.remove() },
    h("form", { onsubmit: apply },
      h("h2", {}, "Time range"),
      h("label", { for: "from" }, "From"), from,
      h("label", { for: "to" }, "To (empty: now)"), to,
      h("label", { for: "zone" }, "Time zone"), zones, list, said,
      h("div.row", {}, h("button.primary", { type: "submit" }, "Show"), h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))));
  document.body.append(dialog);
  dialog.showModal();
}

function search(params) {
  const input = h("input", { type: "search", placeholder: "Search messages and errors  /", "aria-label": "Search messages and errors", maxlength: "4096", "aria-keyshortcuts": "/" });
  return h("form.search", {
    role: "search",
    onsubmit: (event) => {
      event.preventDefault();
      if (!input.value.trim()) return;
      const { view, params: now } = read();
      go(view, withoutLog(withFilter(now, { field: "text", operator: "contains", value: input.value.trim() })));
    },
  }, input);
}

function adder(view, params) {
  const names = view === "logs" ? Object.keys(FIELDS) : OF_USAGE;
  const field = h("select", { "aria-label": "Field", onchange: drawValue }, names.map((name) => h("option", { value: name }, FIELDS[name])));
  const operator = h("select", { "aria-label": "Operator" }, (view === "logs" ? Object.keys(WORDS) : ["=="]).map((each) => h("option", { value: each }, WORDS[each])));
  const place = h("span");
  function drawValue() {
    const offered = { status: ["failed", "success"], failure_class: CLASSES }[field.value];
    replace(place, offered
      ? h("select", { "aria-label": "Value" }, offered.map((each) => h("option", { value: each }, each)))
      : h("input", { "aria-label": "Value", placeholder: "value; empty: without", maxlength: "4096" }));
  }
  drawValue();
  const details = h("details.adder", { onkeydown: (event) => { if (event.key === "Escape") details.open = false; } },
    h("summary", {}, "+ Filter"),
    h("form.row", {
      onsubmit: (event) => {
        event.preventDefault();
        const { params: now } = read();
        go(view, withoutLog(withFilter(now, { field: field.value, operator: operator.value, value: place.firstChild.value })));
      },
    }, field, operator, place, h("button", { type: "submit" }, "Add")));
  return details;
}

function chips(view, params) {
  const filters = filtersOf(params);
  if (!filters.length) return null;
  return h("ul.chips", { "aria-label": "Filters" }, filters.map((each) => {
    const what = `${FIELDS[each.field]} ${WORDS[each.operator]} ${each.value === "" ? "empty" : each.value}`;
    const applies = view === "logs" || (each.operator === "==" && OF_USAGE.includes(each.field));
    return h(applies ? "li.chip" : "li.chip.idle", { title: applies ? what : `${what}: only logs can be narrowed by this` },
      h("span.field", {}, `${FIELDS[each.field]} ${WORDS[each.operator]} `), h("bdi", {}, each.value === "" ? "empty" : each.value),
      h("a", { href: link(view, withoutLog(without(params, each))), "aria-label": `Remove: ${what}` }, "×"));
  }), h("li", {}, h("a.quiet", { href: link(view, [...params].filter(([name]) => !filtersOf(new URLSearchParams([[name, ""]])).length)) }, "Clear all")));
}

function withoutLog(params) {
  params.delete("log");
  return params;
}

