// What `toolledger verify` found the last time it ran.

import { h } from "../../dom.js";
import { ago, count, moment } from "../../format.js";

const DAY_MS = 86_400_000;
const HOW = "Run it: toolledger verify. Its outcome shows here.";

/** Returns {content, warnings} of the last outcome, null where there is none. */
export function proof(last, { nowMs, zone }) {
  if (last === null) {
    return {
      content: [h("p.reading", {}, "never"), h("p", {}, "Whether anything is missing or counted twice was never checked. ", HOW)],
      warnings: ["No proof yet: toolledger verify never ran."],
    };
  }
  const warnings = [];
  const own = last.findings_count;
  const others = last.ledger_findings_count;
  if (!last.proved) warnings.push(`The last proof failed ${ago(last.verified_at_ms, nowMs)}: ${own ? `${count(own)} findings in this project` : others ? `${count(others)} findings in the ledger as a whole` : "what was found is not of this project"}.`);
  if (nowMs - last.verified_at_ms > DAY_MS) warnings.push(`The last proof is older than a day (${ago(last.verified_at_ms, nowMs)}): run toolledger verify.`);
  const content = [
    h("p.reading", {}, h(last.proved ? "span.badge.success" : "span.badge.failed", {}, last.proved ? "proved" : "not proved")),
    h("p", {}, last.proved ? "Nothing was missing, nothing counted twice, " : "Not everything is as it must be, as of ", h("time", { datetime: last.verified_at, title: moment(last.verified_at_ms, zone) }, ago(last.verified_at_ms, nowMs)), "."),
    last.totals ? totals(last.totals) : h("p", {}, "This project had no events then."),
    own > 0 && h("p", {}, `${count(own)} findings in this project${own > last.findings.length ? `; the first ${count(last.findings.length)}` : ""}:`),
    own > 0 && h("ul.findings", {}, last.findings.map((each) => h("li", {}, h("strong", {}, `${each.kind}: `), h("bdi", {}, each.text), h("p.quiet", {}, each.action)))),
    others > 0 && h("p", {}, `${count(others)} findings are of the ledger as a whole (partitions and receipts): toolledger verify names them.`),
    !last.proved && own === 0 && others === 0 && h("p", {}, "What was found is not of this project."),
  ];
  return { content, warnings };
}

function totals(of) {
  const same = of.accepted === of.rows + of.purged && of.rows === of.calls;
  const past = of.purged > 0 ? ` + ${count(of.purged)} past retention` : "";
  return [
    h("p", {}, `${count(of.events)} events = ${count(of.accepted)} accepted + ${count(of.duplicates)} duplicates + ${count(of.dead_letters)} dead letters + ${count(of.forwarded)} forwarded.`),
    h("p", {}, same ? `${count(of.accepted)} accepted = ${count(of.rows)} logs${past} = ${count(of.calls)} calls in usage${past}.` : `${count(of.accepted)} accepted, ${count(of.rows)} logs, ${count(of.calls)} calls in usage${past}.`),
    of.conflicts > 0 && h("p.quiet", {}, `${count(of.conflicts)} duplicates had other content than the first of their id, which was kept.`),
  ];
}
