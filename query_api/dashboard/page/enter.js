// Where nobody has entered a key yet.

import { get } from "./api.js";
import { h, replace } from "./dom.js";
import { add } from "./keys.js";

/**
 * Returns a form that asks for a key.
 *
 * @param {string|null} project that a link names, if one does
 * @param {function({project: string, scope: string}): void} done
 * @param {(function(): void)|null} [back] to where the reader came from, if there is such a place
 */
export function enter(project, done, back = null) {
  const input = h("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true, placeholder: "ak_…" });
  const said = h("div", { role: "alert" });
  const button = h("button.primary", { type: "submit" }, "Open");
  const submit = async (event) => {
    event.preventDefault();
    const key = input.value.trim();
    if (!key) return input.focus();
    if (!/^[\x21-\x7e]+$/.test(key)) {
      replace(said, h("p.error", {}, "This is no key: a key holds only letters, digits, - and _."));
      return input.select();
    }
    button.disabled = true;
    try {
      const found = await get("v1/key", {}, { key });
      if (project !== null && found.project_id !== project) {
        replace(said, h("p.error", {}, `This key is of project ${found.project_id}; the link is about ${project}.`));
        return input.select();
      }
      add({ project: found.project_id, key, scope: found.scope });
      done({ project: found.project_id, scope: found.scope });
    } catch (error) {
      const advice = error.status === 401 ? "Check it for what is missing at its ends, or make a new one: toolledger keys create --project NAME." : error.fix;
      replace(said, h("p.error", {}, error.message), advice && h("p.quiet", {}, advice));
      input.select();
    } finally {
      button.disabled = false;
    }
  };
  queueMicrotask(() => input.focus());
  return h("form.enter", { onsubmit: submit },
    h("h1", {}, "toolledger"),
    h("p", {}, project === null ? "What failed, since when, for whom, and why." : `This link is about project ${project}.`),
    h("label", { for: "key" }, "Key of the project"),
    h("div.row", {}, input, button, back && h("button", { type: "button", onclick: back }, "Back")),
    said,
    h("p.quiet", {}, "It stays in this tab until you close it, and is never part of an address."));
}
