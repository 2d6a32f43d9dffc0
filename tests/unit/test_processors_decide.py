"""What a partition's owner does on assignment: D the last receipt, C the commit, F the start in its metadata."""

import pytest

from processors.ledger import Found, Opening, Plan, decide


def found(proved: int | None, planned: int | None, first: int | None, *, log_start: int = 0, rewind: int = 0) -> Found:
    plan = None if first is None else Plan(first_offset=first, incarnation="i", rewind=rewind)
    return Found(proved=proved, planned=planned, plan=plan, log_start=log_start)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(
            found(None, None, None),
            Opening(start=0, rewind=0, remove_from=0),
            id="nothing was ever done: from the start of the log",
        ),
        pytest.param(
            found(None, None, None, log_start=7),
            Opening(start=7, rewind=0, remove_from=0),
            id="nothing was ever done, old records are gone",
        ),
        pytest.param(found(50, 50, 40), Opening(start=50, rewind=0), id="D = C: nothing is open"),
        pytest.param(
            found(40, 50, 40), Opening(start=50, rewind=0, recover=(40, 50)), id="D = F: planned and not proved, exactly again"
        ),
        pytest.param(
            found(None, 50, 0),
            Opening(start=50, rewind=0, recover=(0, 50)),
            id="the first batch ever was planned and not proved",
        ),
        pytest.param(
            found(20, 50, 40),
            Opening(start=20, rewind=1, remove_from=20),
            id="D < F: receipts are missing, rewind to the last one",
        ),
        pytest.param(
            found(None, 50, 40), Opening(start=0, rewind=1, remove_from=0), id="no receipt and F > 0: ClickHouse was wiped"
        ),
        pytest.param(
            found(50, None, None),
            Opening(start=50, rewind=1, remove_from=50),
            id="offsets are gone: what a lost plan left goes",
        ),
        pytest.param(found(50, 30, 20), Opening(start=50, rewind=0), id="C behind D: the receipt decides"),
        pytest.param(
            found(20, 50, 40, log_start=30),
            Opening(start=30, rewind=1, remove_from=20, gap=(20, 30)),
            id="Kafka no longer has what is missing: a gap, said aloud",
        ),
        pytest.param(
            found(40, 50, 40, log_start=45),
            Opening(start=50, rewind=0, recover=(40, 50), gap=(40, 45)),
            id="retention ate a part of the planned range",
        ),
        pytest.param(
            found(20, 50, 40, rewind=3), Opening(start=20, rewind=4, remove_from=20), id="each rewind has a number of its own"
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
