"""The outcome of a run as Markdown. Pure."""

from collections.abc import Sequence
from typing import Any

from tests.support.soak.faults import Fault
from tests.support.soak.judge import Verdict
from tests.support.soak.parts import Part


def table(faults: Sequence[Fault], verdict: Verdict, *, parts: Sequence[Part], verified: int, seed: int, seconds: float) -> str:
    """Write one line a kind of fault; what was lost or doubled belongs to the last fault before its acknowledgement."""
    names = sorted({fault.name for fault in faults})
    lost = _by_fault(faults, verdict.lost)
    doubled = _by_fault(faults, verdict.doubled)
    lines = [
        "| fault | times tried | lost | doubled | longest time until caught up |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        of_kind = [fault for fault in faults if fault.name == name]
        spans = [fault.caught_up_s - fault.began_s for fault in of_kind if fault.caught_up_s is not None]
        longest = f"{max(spans):.1f} s" if spans else "-"
        lines.append(f"| {name} | {len(of_kind)} | {lost.get(name, 0)} | {doubled.get(name, 0)} | {longest} |")
    spans = [fault.caught_up_s - fault.began_s for fault in faults if fault.caught_up_s is not None]
    longest = f"{max(spans):.1f} s" if spans else "-"
    lines.append(f"| all | {len(faults)} | {len(verdict.lost)} | {len(verdict.doubled)} | {longest} |")
    by_itself = ", ".join(f"{part.name} {part.ended_by_itself}" for part in parts if part.ended_by_itself)
    return "\n".join(
        [
            *lines,
            "",
            f"Seed {seed}, {seconds:.0f} s, {seconds / max(1, len(faults)):.1f} s a fault; {verdict.events} events there once"
            f" each, {verdict.unacknowledged} sent and never acknowledged; `verify` asked {verified} times, beside traffic too."
            + (f" Ended by themselves and started again: {by_itself}." if by_itself else ""),
            "Caught up: from the blow until everything Kafka had when the part was back is proved; faults overlap.",
            *([""] if not verdict.clean else []),
            *(f"- {line}" for line in verdict.lines()),
            "",
        ]
    )


def _by_fault(faults: Sequence[Fault], moments: dict[str, Any]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for moment_s in moments.values():
        before = [fault for fault in faults if fault.began_s <= moment_s]
        name = before[-1].name if before else "before any fault"
        counts[name] = counts.get(name, 0) + 1
    return counts
