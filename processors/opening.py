"""How to go on with a partition that was just assigned: from what ClickHouse proves and what Kafka promises. Pure.

The rows of DESIGN section 5: D is the next offset of the last receipt, C Kafka's committed offset, F the start of its plan.
"""

from dataclasses import dataclass

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """The metadata of a planned commit: all that whoever writes the batch again must not decide anew.

    Args:
        first_offset: where the batch begins; the committed offset is where it ends.
        incarnation: of the topic.
        rewind: larger each time this partition went back to an older receipt.
        began: where the receipts of this partition begin; None: a version committed that did not say.
        month: the table partition of the batch, yyyymm; 0: that of its first record.
        partitions: how many the topic had, which decides who was at home; 0: not settled yet.
        newest_before_ms: the latest record time before the batch, which decides who is late.
        remove_from: the partition went back: rows at or above this offset, of before `rewind`, are being taken away.
    """

    first_offset: int
    incarnation: str
    rewind: int = 0
    began: int | None = None
    month: int = 0
    partitions: int = 0
    newest_before_ms: int = 0
    remove_from: int | None = None

    def encode(self) -> str:
        """Return the text Kafka keeps beside the offset."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def parse(metadata: str) -> "Plan | None":
        """Return the plan of a commit, None if somebody else committed."""
        try:
            return msgspec.json.decode(metadata, type=Plan)
        except msgspec.MsgspecError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the receipts of a partition prove.

    Args:
        began: where the receipts should begin; a hole is there if they do not.
        next_offset: next offset of the last one.
        newest_record_ms: acceptance of the newest record they cover.
        holes: ranges in between that no receipt covers, in order; receipts were lost while workers went on.
        agrees: whether the sums hold as many calls as the receipts accepted; asked only where there are holes.
    """

    began: int
    next_offset: int
    newest_record_ms: int
    holes: tuple[tuple[int, int], ...] = ()
    agrees: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is known of a partition when it is assigned; offsets, None where there is nothing."""

    proof: Proof | None
    planned: int | None  # C: the group's committed offset
    plan: Plan | None  # F and more, from the metadata of C; None unless it is of this incarnation
    log_start: int  # what Kafka still has begins here
    fresh: int = 0  # larger than any rewind before: tokens that carry it were never used


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How to go on, in this order.

    Args:
        remove_from: take away what lies at or above this offset, it will be written again.
        recover: write exactly this range again, as one batch.
        fill: ranges below the last receipt to be written again.
        start: everything below is proved once that is done; `lost` begins here if there is one, else fetching does.
        lost: Kafka no longer has it and no receipt proves it.
        rewind: for the tokens of what is written from now on.
        began: where the receipts begin.
    """

    start: int
    rewind: int
    began: int
    remove_from: int | None = None
    recover: tuple[int, int] | None = None
    fill: tuple[tuple[int, int], ...] = ()
    lost: tuple[int, int] | None = None


def decide(found: Found) -> Opening:
    """Decide how to go on with a partition."""
    plan, planned, proof = found.plan, found.planned, found.proof
    rewind = plan.rewind if plan is not None else 0
    # ClickHouse may remember tokens of what it no longer holds, so whoever starts anew takes tokens of his own.
    anew = max(rewind + 1, found.fresh)
    if plan is None or planned is None:
        if proof is None:
            # A first start, or a plan that was lost together with the group's offsets: what it may have left goes.
            return Opening(start=found.log_start, rewind=found.fresh, began=found.log_start, remove_from=0)
        # Offsets expired or reset. A plan that is lost with them may have left rows: they go, under another token.
        return _go_on(found, proof.next_offset, rewind=anew, began=proof.began, remove_from=proof.next_offset)
    # Without receipts, either the plan is of the first batch ever, or ClickHouse was wiped.
    began, proved = (proof.began, proof.next_offset) if proof is not None else (plan.began or 0, plan.began or 0)
    if planned == proved and plan.remove_from is not None:
        # Whoever went back may have died before all was taken away.
        return _go_on(found, proved, rewind=anew, began=began, remove_from=plan.remove_from)
    if planned == proved:
        return _go_on(found, proved, rewind=rewind, began=began)
    if plan.first_offset == proved < planned:
        return _go_on(found, planned, rewind=rewind, began=began, recover=(proved, planned))
    # ClickHouse lost receipts (wiped, or restored from a backup), or Kafka an offset: what was written above D goes.
    return _go_on(found, proved, rewind=anew, began=began, remove_from=proved)


def _go_on(
    found: Found, start: int, *, rewind: int, began: int, remove_from: int | None = None, recover: tuple[int, int] | None = None
) -> Opening:
    holes = found.proof.holes if found.proof is not None and found.proof.agrees else ()
    return Opening(
        start=start,
        rewind=max(rewind, found.fresh) if holes else rewind,
        began=began,
        remove_from=remove_from,
        recover=recover,
        fill=holes,
        lost=(start, found.log_start) if found.log_start > start else None,
    )
