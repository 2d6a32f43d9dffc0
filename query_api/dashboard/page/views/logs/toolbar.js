// Above the list: following, looking again, and how much there is.

import { h, replace } from "../../dom.js";
import { count, duration } from "../../format.js";

/** Returns {element, told(state)}. */
export function toolbar({ toggle, refresh }) {
  const live = h("button.live", { type: "button", "aria-keyshortcuts": "l", onclick: toggle });
  const again = h("button.quiet", { type: "button", title: "Look again (r)", "aria-keyshortcuts": "r", onclick: refresh }, "↻ Refresh");
  const said = h("span.quiet.said");
  const element = h("div.row.log-bar", { role: "toolbar", "aria-label": "Logs" }, live, again, said);
  return {
    element,
    /** Draws {question, tailState, rows, isAll}. */
    told({ question, tailState, rows, isAll }) {
      live.setAttribute("aria-pressed", String(question.live));
      live.title = question.live ? "Pause (l)" : question.isUpToNow ? "Follow calls as they come in (l)" : "Follow calls as they come in, from the beginning of this time on (l)";
      replace(live, question.live ? "❚❚ Pause" : "▶ Live");
      replace(said, [following(question, tailState), rows > 0 && (isAll ? `${count(rows)} calls` : `${count(rows)} calls so far; more below`)].filter(Boolean).flatMap((each, number) => (number ? [" · ", each] : [each])));
    },
  };
}

function following(question, tailState) {
  if (!question.live || tailState === null) return null;
  const { name, error, waitMs } = tailState;
  if (name === "open") return h("span.following", {}, "● following");
  if (name === "refused") return h("span.error", {}, `Not following: ${error.message} ${error.fix}`);
  if (name === "waiting") return h("span.error", {}, `The connection broke${error?.status ? `: ${error.message}` : ""}. Trying again in ${duration(Math.ceil(waitMs / 1000) * 1000)}.`);
  return "connecting …";
}
