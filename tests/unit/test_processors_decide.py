"""What a partition's owner does on assignment: D the last receipt, C the commit, F the start in its metadata."""

import pytest

from processors.opening import Found, Opening, Plan, Proof, decide


def found(
    proved: int | None,
    planned: int | None,
    first: int | None,
    *,
    log_start: int = 0,
    rewind: int = 0,
    holes: tuple[tuple[int, int], ...] = (),
    agrees: bool = True,
    remove_from: int | None = None,
) -> Found:
    """D, C and F of a partition whose receipts begin at 0; the clock says 100."""
    plan = None
    if first is not None:
        plan = Plan(first_offset=first, incarnation="i", rewind=rewind, began=0, partitions=4, remove_from=remove_from)
    proof = None
    if proved is not None:
        proof = Proof(began=0, next_offset=proved, newest_record_ms=0, holes=holes, agrees=agrees)
    return Found(proof=proof, planned=planned, plan=plan, log_start=log_start, fresh=100)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(
            found(None, None, None),
            Opening(start=0, rewind=100, began=0, remove_from=0),
            id="nothing was ever done: from the start of the log",
        ),
        pytest.param(
            found(None, None, None, log_start=7),
            Opening(start=7, rewind=100, began=7, remove_from=0),
            id="nothing was ever done, old records are gone: the receipts begin where the log does",
        ),
        pytest.param(found(50, 50, 40), Opening(start=50, rewind=0, began=0), id="D = C: nothing is open"),
        pytest.param(
            found(40, 50, 40),
            Opening(start=50, rewind=0, began=0, recover=(40, 50)),
            id="D = F: planned and not proved, exactly again",
        ),
        pytest.param(
            found(None, 50, 0),
            Opening(start=50, rewind=0, began=0, recover=(0, 50)),
            id="the first batch ever was planned and not proved",
        ),
        pytest.param(
            found(20, 50, 40),
            Opening(start=20, rewind=100, began=0, remove_from=20),
            id="D < F: receipts are missing, rewind to the last one",
        ),
        pytest.param(
            found(None, 50, 40),
            Opening(start=0, rewind=100, began=0, remove_from=0),
            id="no receipt and F > 0: ClickHouse was wiped",
        ),
        pytest.param(
            found(None, 50, 40, log_start=30),
            Opening(start=0, rewind=100, began=0, remove_from=0, lost=(0, 30)),
            id="wiped, and Kafka no longer has the beginning: lost, and on record",
        ),
        pytest.param(
            found(50, None, None),
            Opening(start=50, rewind=100, began=0, remove_from=50),
            id="offsets are gone: what a lost plan left goes",
        ),
        pytest.param(
            found(50, 30, 20),
            Opening(start=50, rewind=100, began=0, remove_from=50),
            id="C behind D: Kafka lost a plan, what it left goes",
        ),
        pytest.param(
            found(20, 50, 40, log_start=30),
            Opening(start=20, rewind=100, began=0, remove_from=20, lost=(20, 30)),
            id="Kafka no longer has what is missing",
        ),
        pytest.param(
            found(40, 50, 40, log_start=45),
            Opening(start=50, rewind=0, began=0, recover=(40, 50)),
            id="retention ate a part of the planned range: what landed of it decides",
        ),
        pytest.param(
            found(40, 50, 40, log_start=60),
            Opening(start=50, rewind=0, began=0, recover=(40, 50), lost=(50, 60)),
            id="retention ate more than the planned range",
        ),
        pytest.param(
            found(20, 50, 40, rewind=300),
            Opening(start=20, rewind=301, began=0, remove_from=20),
            id="each rewind has a number of its own, also where the clock went back",
        ),
        pytest.param(
            found(50, 50, 50, rewind=7, remove_from=20),
            Opening(start=50, rewind=100, began=0, remove_from=20),
            id="somebody died while taking rows away: it is done again",
        ),
        pytest.param(
            found(50, 50, 40, holes=((10, 20),)),
            Opening(start=50, rewind=100, began=0, fill=((10, 20),)),
            id="receipts in between are missing: the hole is filled",
        ),
        pytest.param(
            found(40, 50, 40, holes=((10, 20),), rewind=7),
            Opening(start=50, rewind=100, began=0, recover=(40, 50), fill=((10, 20),)),
            id="a hole and an open plan",
        ),
        pytest.param(
            found(50, 50, 40, holes=((10, 20),), agrees=False),
            Opening(start=50, rewind=0, began=0),
            id="the sums hold what no receipt proves: filling would count it twice, so it is left to people",
        ),
    ],
)
def test_every_row_of_the_table(case: Found, expected: Opening) -> None:
    """Each thing that can have happened leads to the one way of going on that keeps the counts exact."""
    assert decide(case) == expected


def test_a_commit_of_somebody_else_is_no_plan() -> None:
    """Metadata that is not ours says nothing about a plan."""
    assert Plan.parse("") is None
    assert Plan.parse('{"first_offset":"x"}') is None
    assert Plan.parse(Plan(first_offset=3, incarnation="i", rewind=2).encode()) == Plan(
        first_offset=3, incarnation="i", rewind=2
    )
