// One log in full, beside the list.

import { ask, get } from "../../api.js";
import { copy, h, replace, say } from "../../dom.js";
import { failed, loading } from "../../states.js";
import { curlOf } from "./curl.js";
import { whole } from "./detail.js";
import { membersOf } from "./json_text.js";

const PATH = "api/v3.1/logs/tool_execution/";

/**
 * Makes the drawer.
 *
 * @param {Object} does
 * @param {function(): void} does.close
 * @param {function(number): void} does.step to the next (1) or the previous (-1) row
 * @param {function(string): void} does.open another log
 */
export function drawer({ close, step, open }) {
  const title = h("h2", { tabindex: "-1", id: "drawer-title" });
  const content = h("div.drawer-content");
  const curl = h("button", { type: "button" }, "Copy as curl");
  const address = h("button", { type: "button", onclick: () => copy(location.href, address) }, "Copy link");
  const element = h("section.drawer", { hidden: true, "aria-labelledby": "drawer-title" },
    h("div.drawer-head", {},
      title,
      h("div.row", {},
        h("button", { type: "button", "aria-label": "Previous row", title: "Previous row (k)", onclick: () => step(-1) }, "↑"),
        h("button", { type: "button", "aria-label": "Next row", title: "Next row (j)", onclick: () => step(1) }, "↓"),
        curl, address, h("span.grow"),
        h("button", { type: "button", "aria-label": "Close", title: "Close (Esc)", onclick: close }, "×"))),
    content);
  let shown = null; // {id, zone, question}
  let asking = null;
  curl.addEventListener("click", () => shown && copy(curlOf(shown.id), curl));

  async function load() {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    const { id } = shown;
    replace(content, loading("Fetching the log"));
    try {
      const text = await (await ask(PATH + encodeURIComponent(id), { signal })).text();
      if (signal.aborted) return;
      const log = read(text);
      replace(title, h("bdi", {}, log.metadata.tool_slug || id));
      replace(content, whole(log, { zone: shown.zone, question: shown.question, signal, open }));
      content.scrollTop = 0;
      say(`${log.metadata.tool_slug ?? "Log"}, ${log.status}`);
      if (log.status === "failed") tellCause(log, signal);
    } catch (error) {
      if (signal.aborted) return;
      const said = error.status === 404 ? Object.assign(error, { fix: "It may be past its retention, or of another project." }) : error;
      replace(content, failed(said, error.status === 404 ? undefined : load));
    }
  }

  /** Adds what most likely lies behind a failure: the failures of its class and tool at its moment tell. */
  async function tellCause(log, signal) {
    const place = content.querySelector(".cause");
    const ms = Date.parse(log.timestamp);
    const { failure_class, tool_slug } = log.metadata;
    try {
      const { groups } = await get("v1/failures", { from: ms, to: ms + 1, failure_class, tool_slug }, { signal });
      const group = groups.find((each) => each.example_log_id === log.id) ?? groups[0];
      if (signal.aborted || !group) return;
      replace(place,
        h("h3", {}, "Likely cause"), h("p", {}, group.likely_cause),
        h("h3", {}, "What to do"), h("p", {}, group.action));
    } catch (error) {
      if (!signal.aborted) replace(place, h("p.quiet", {}, `Its likely cause could not be fetched: ${error.message}`));
    }
  }

  return {
    element,
    /** Shows a log, or with null none; `back` gets the focus then. */
    show(id, question, back) {
      const before = shown;
      if (id === null) {
        if (before === null) return;
        const hadFocus = element.contains(document.activeElement) || document.activeElement === document.body;
        shown = null;
        asking?.abort();
        element.hidden = true;
        replace(content);
        if (hadFocus) back?.focus({ preventScroll: true });
        return;
      }
      if (before?.id === id && before.zone === question.zone && before.key === question.key) return;
      shown = { id, zone: question.zone, key: question.key, question };
      element.hidden = false;
      if (before?.id !== id) replace(title, h("bdi", {}, id));
      if (before === null) title.focus({ preventScroll: true });
      load();
    },
    close() {
      asking?.abort();
    },
  };
}

/** Reads a log; its data and metadata stay as they were sent, beside the values of metadata that are read. */
function read(text) {
  const log = {};
  for (const { name, text: raw } of membersOf(text)) {
    if (name === "data") log.dataText = raw;
    else log[name] = JSON.parse(raw);
    if (name === "metadata") log.metadataText = raw;
  }
  return log;
}
