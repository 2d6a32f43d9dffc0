// One dead letter: its bytes, why it is none of the events, and its way back.

import { link, read } from "../../address.js";
import { ask, get } from "../../api.js";
import { copy, h, replace, say } from "../../dom.js";
import { ago, count, moment } from "../../format.js";
import { failed, loading } from "../../states.js";
import { bytesOf, hexDump, textOf } from "./bytes.js";

// More is not drawn, but downloaded: a dump of a megabyte is five of text.
const DRAWN_BYTES = 64 * 1024;
const LOOK_AGAIN_MS = 1_000;
const LOOKS = 30;

const WHAT_TO_DO = {
  invalid_json: "Mend the JSON below, or the producer that wrote it.",
  invalid_encoding: "The bytes are no UTF-8: have the producer write JSON in UTF-8, and replay a mended body.",
  invalid_member: "A member has another type or form than it must have: mend it below.",
  missing_member: "An event needs tool_slug, status and duration_ms: add what is missing.",
  unknown_status: "status is success or failed.",
  event_too_large: "Make it smaller: large requests and responses belong elsewhere, with a link to them.",
  nested_too_deep: "Make what is nested flatter.",
  past_retention: "The project keeps nothing of that time any more (projects set --retention-days).",
  timestamp_out_of_range: "The timestamp must lie between 2015 and a day after it was accepted, in epoch milliseconds or ISO 8601.",
  timestamp_unreadable: "A timestamp is epoch milliseconds, or ISO 8601.",
  project_missing: "Name the project: in the record's header project_id, or in the body.",
  project_invalid: "A project's name holds letters, digits and _ . : - only.",
  project_mismatch: "The body names another project than the key or the header: take one of them away.",
  record_empty: "There is nothing in it to replay: look at what produced it.",
  too_many_pieces: "Send fewer events in one record.",
  invalid_cloudevent: "The CloudEvent lacks an attribute or holds no event: mend it below.",
};

/**
 * Opens one.
 *
 * @param {{zone: string, may: boolean, onclose: function(): void, onreplay: function(): void}} how may: whether the key may send
 * @returns {function(): void} closes it without `onclose`
 */
export function openLetter(id, { zone, may, onclose, onreplay }) {
  const asking = new AbortController();
  const content = h("div", {}, loading());
  const dialog = h("dialog.letter", { "aria-label": "Dead letter", onclose: () => { end(); onclose(); }, onclick: (event) => event.target === dialog && dialog.close() },
    h("div.row", {}, h("h2", {}, "Dead letter"), h("span.grow"), h("button", { type: "button", onclick: () => dialog.close() }, "Close")),
    content);

  async function load() {
    replace(content, loading());
    try {
      const letter = await get(`v1/dead-letters/${encodeURIComponent(id)}`, {}, { signal: asking.signal });
      replace(content, facts(letter, zone), bytes(letter), way(letter, { may, signal: asking.signal, onreplay }));
    } catch (error) {
      if (error.name !== "AbortError") replace(content, failed(error, error.status === 404 ? null : load));
    }
  }

  function end() {
    asking.abort();
    dialog.remove();
  }

  document.body.append(dialog);
  dialog.showModal();
  load();
  return end;
}

function facts(letter, zone) {
  const { topic, partition, offset, index } = letter.origin;
  const atMs = Date.parse(letter.accepted_at);
  const told = [
    ["Reason", [h("code", {}, letter.reason), " ", h("bdi", {}, letter.message)]],
    ["What to do", WHAT_TO_DO[letter.reason] ?? "Mend it below, or what produced it."],
    ["Accepted", [h("time", { datetime: letter.accepted_at }, moment(atMs, zone)), ` (${ago(atMs)})`]],
    ["Origin", [h("bdi", {}, topic), `, partition ${partition}, offset ${offset}, item ${index}`]],
    ["Id", h("code", {}, letter.id)],
    ["State", letter.replayed ? h("span.badge.success", {}, "replayed") : "kept, not replayed"],
  ];
  return h("dl", {}, told.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function bytes(letter) {
  const all = bytesOf(letter);
  const drawn = all.subarray(0, DRAWN_BYTES);
  const cut = all.length > drawn.length && h("p.quiet", {}, `The first ${count(drawn.length)} of ${count(all.length)} bytes; the download has all.`);
  const save = h("button", { type: "button", onclick: () => download(all, letter.id) }, "Download the bytes");
  const copied = h("button", { type: "button", onclick: () => copy(textOf(all), copied) }, "Copy as text");
  return [
    h("details", { open: true }, h("summary", {}, `Text, ${count(all.length)} bytes`),
      letter.encoding !== "utf-8" && h("p", {}, "It is no UTF-8: � stands for bytes that are no text."),
      h("pre.bytes", { tabindex: "0", "aria-label": "Text" }, textOf(drawn)), cut && cut.cloneNode(true)),
    h("details", { open: letter.encoding !== "utf-8" }, h("summary", {}, "Hex dump"), h("pre.bytes", { tabindex: "0", "aria-label": "Hex dump" }, hexDump(drawn)), cut),
    h("div.row", {}, copied, save),
  ];
}

function download(all, id) {
  const url = URL.createObjectURL(new Blob([all], { type: "application/octet-stream" }));
  h("a", { href: url, download: `dead-letter-${id}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** The way back: as it is, or mended; asked for twice. */
function way(letter, { may, signal, onreplay }) {
  if (!may) return h("section", {}, h("h3", {}, "Replay"), h("button", { type: "button", disabled: true }, "Replay"), h("p.quiet", {}, "This key may only read, and a replay sends events: enter a key of scope full, or ask somebody who has one."));
  const original = textOf(bytesOf(letter));
  const readable = letter.encoding === "utf-8";
  const area = h("textarea.mono", { id: "mended", rows: "8", spellcheck: "false" });
  area.value = readable ? original : "";
  const said = h("div");
  const sure = h("div.row", { hidden: true }, h("span", {}), h("button.primary", { type: "button", onclick: send }, "Yes, send it"), h("button", { type: "button", onclick: () => settle(true) }, "No"));
  const start = h("button", { type: "button", onclick: () => settle(false) }, "Replay …");

  function mended() {
    return area.value.trim() === "" || (readable && area.value === original) ? null : area.value;
  }
  function settle(closed) {
    replace(sure.firstChild, mended() === null ? "Send it again as it is?" : "Send the mended body in its place?", letter.replayed ? " It was replayed before; an event counts once all the same." : " It counts once, however often it is sent.");
    sure.hidden = closed;
    start.hidden = !closed;
    (closed ? start : sure.children[1]).focus();
  }
  async function send() {
    const body = mended();
    settle(true);
    start.disabled = true;
    replace(said, loading("Sending"));
    try {
      const answer = await ask(`v1/dead-letters/${encodeURIComponent(letter.id)}/replay`, { method: "POST", signal, ...(body === null ? {} : { body }) });
      const { ids } = await answer.json();
      const state = h("p.quiet", {}, "Kafka has it; it becomes a log within a moment.");
      replace(said, h("p", { role: "status" }, `Sent as ${ids.length === 1 ? "an event" : `${count(ids.length)} events`}: `, ids.map((each) => [h("a", { href: link("logs", { project: read().params.get("project"), since: "30d", log: each }) }, each), " "])), state);
      await follow(letter.id, signal, state);
      onreplay();
    } catch (error) {
      if (error.name !== "AbortError") replace(said, failed(error));
    } finally {
      start.disabled = false;
    }
  }
  return h("section", {}, h("h3", {}, "Replay"), h("label", { for: "mended" }, readable ? "As it is, or mended (an event, or an array of events)" : "The mended event, or an array of events, in place of the bytes"),
    area, h("div.row", {}, start), sure, said);
}

async function follow(id, signal, state) {
  for (let look = 0; look < LOOKS; look += 1) {
    await new Promise((resolve) => { setTimeout(resolve, LOOK_AGAIN_MS); });
    if ((await get(`v1/dead-letters/${encodeURIComponent(id)}`, {}, { signal })).replayed) {
      replace(state, "It is in the logs now.");
      return say("The dead letter is in the logs now.");
    }
  }
  replace(state, "It is not in the logs yet: see above how far behind they are, and look again later.");
}
