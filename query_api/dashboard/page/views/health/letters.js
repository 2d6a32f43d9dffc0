// Dead letters of the project, newest first, page after page.

import { change, link } from "../../address.js";
import { get } from "../../api.js";
import { h, put, replace } from "../../dom.js";
import { ago, count, moment } from "../../format.js";
import { zoneOf } from "../../range.js";
import { empty, failed, loading } from "../../states.js";

const PAGE = 25;

/** Returns {element, update(params), recent(body), again(), end()}. */
export function letterList() {
  const body = h("tbody");
  const news = h("p", { role: "status" });
  const more = h("div");
  const table = h("div.scroll", { tabindex: "0", role: "region", "aria-label": "List of dead letters" }, h("table.letters", {},
    h("thead", {}, h("tr", {}, ["Accepted", "Why", "Payload", "Origin", "Bytes", "State"].map((each) => h(each === "Bytes" ? "th.number" : "th", {}, each)))), body));
  const place = h("div", {}, loading());
  const element = h("div", {}, h("p.quiet", {}, "What could not become an event is kept with its bytes, and sent again when it is mended. A replay counts once."), news, place);
  let params = new URLSearchParams();
  let asking = new AbortController();
  let asked = null; // project and reason of what is shown
  let loaded = false;
  let newest = null; // id of the first that is shown

  async function page(cursor) {
    const { signal } = asking;
    replace(more, loading());
    try {
      const found = await get("v1/dead-letters", { limit: PAGE, cursor, reason: params.get("reason") }, { signal });
      const letters = found.dead_letters;
      if (cursor === null) {
        loaded = true;
        newest = letters[0]?.id ?? null;
        replace(body);
        replace(news);
        if (!letters.length) return replace(place, empty(params.get("reason") ? "None of this kind" : "No dead letters", "Everything that came in became an event."), filter());
        replace(place, filter(), table, more);
      }
      put(body, letters.map(row));
      replace(more, found.next_cursor && h("button", { type: "button", onclick: () => page(found.next_cursor) }, "Show more"));
    } catch (error) {
      if (error.name === "AbortError") return;
      replace(cursor === null ? place : more, failed(error, () => page(cursor)));
    }
  }

  function row(letter) {
    const zone = zoneOf(params);
    const atMs = Date.parse(letter.accepted_at);
    const { topic, partition, offset, index } = letter.origin;
    const head = letter.encoding === "utf-8" ? letter.payload.slice(0, 200) : "not UTF-8";
    return h("tr", {},
      h("td", {}, h("a", { href: link("health", [...params].filter(([name]) => name !== "letter").concat([["letter", letter.id]])), title: "Show it" }, h("time", { datetime: letter.accepted_at, title: ago(atMs) }, moment(atMs, zone)))),
      h("td", {}, h("button.value", { type: "button", title: "Only of this reason", onclick: () => change({ reason: letter.reason }) }, letter.reason), h("br"), h("bdi.quiet", {}, letter.message)),
      h("td.payload.mono", {}, letter.bytes === 0 ? h("span.quiet", {}, "empty") : h("bdi", {}, head)),
      h("td", {}, h("bdi", {}, topic), `, partition ${partition}, offset ${count(offset)}${index ? `, item ${index}` : ""}`),
      h("td.number", {}, count(letter.bytes)),
      h("td", {}, letter.replayed ? h("span.badge.success", {}, "replayed") : "kept"));
  }

  function filter() {
    const reason = params.get("reason");
    return reason && h("ul.chips", { "aria-label": "Filters" }, h("li.chip", {}, h("span.field", {}, "reason is "), h("bdi", {}, reason),
      h("a", { href: link("health", [...params].filter(([name]) => name !== "reason")), "aria-label": `Remove: reason is ${reason}` }, "×")));
  }

  function again() {
    asking.abort();
    asking = new AbortController();
    loaded = false;
    page(null);
  }

  return {
    element,
    again,
    update(now) {
      params = now;
      const wanted = JSON.stringify([now.get("project"), now.get("reason"), zoneOf(now)]);
      if (wanted === asked) return;
      asked = wanted;
      again();
    },
    /** Takes the dead letters of the last hour; returns warnings. */
    recent({ dead_letters: letters, next_cursor: next }) {
      const open = letters.filter((each) => !each.replayed).length;
      // What somebody reads is not moved about under their eyes.
      if (loaded && letters.length && letters[0].id !== newest && !params.get("reason")) {
        replace(news, h("button", { type: "button", onclick: again }, "New ones came in: show"));
      }
      return open ? [`${next ? "More than " : ""}${count(open)} dead ${open === 1 ? "letter" : "letters"} in the last hour: see below what they are.`] : [];
    },
    end: () => asking.abort(),
  };
}
