// The keys, on a sheet of their own.

import { h } from "./dom.js";

const KEYS = [
  ["/", "search"],
  ["j  k", "next, previous row"],
  ["Enter", "open the row"],
  ["Esc", "close what is open, leave a field"],
  ["l", "follow as calls come in, or pause (logs)"],
  ["?", "this sheet"],
];

/** Opens or closes it. */
export function toggleHelp() {
  const open = document.querySelector("dialog.help");
  if (open) return open.close();
  const dialog = h("dialog.help", { "aria-label": "Keys", onclose: () => dialog.remove(), onclick: (event) => event.target === dialog && dialog.close() },
    h("h2", {}, "Keys"),
    h("dl", {}, KEYS.map(([key, does]) => [h("dt", {}, key.split("  ").map((each) => h("kbd", {}, each))), h("dd", {}, does)])),
    h("button", { type: "button", onclick: () => dialog.close() }, "Close"));
  document.body.append(dialog);
  dialog.showModal();
}
