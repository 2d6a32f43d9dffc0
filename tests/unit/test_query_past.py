"""What decides how sessions are counted: the calls of days before a range against those of its own, kept for an hour."""

from typing import Any

import pytest

from query_api.past import Days, Past
from query_api.tenant import Tenant

DAY_MS = 86_400_000


class Reader:
    """Answers with as many days of one call as it was asked times."""

    def __init__(self) -> None:
        self.asked = 0

    async def rows(self, statement: Any) -> list[list[int]]:
        assert "WHERE project_id = {tenant:String}" in statement.text
        self.asked += 1
        return [[day * DAY_MS, 1] for day in range(self.asked)]


def tenant(name: str = "a") -> Tenant:
    return Tenant(projects=(name,), key_hash="h")


@pytest.mark.parametrize(
    ("from_ms", "to_ms", "outweighed"),
    [
        (0, 100 * DAY_MS, False),
        (99 * DAY_MS, 100 * DAY_MS, True),
        (95 * DAY_MS, 100 * DAY_MS, False),
        # A day that is cut counts as one of the range.
        (96 * DAY_MS + 1, 100 * DAY_MS, True),
        (95 * DAY_MS + 1, 100 * DAY_MS, False),
        (50 * DAY_MS, 50 * DAY_MS + 1, True),
        (200 * DAY_MS, 201 * DAY_MS, True),
        (99 * DAY_MS, 99 * DAY_MS, True),
        (0, 0, False),
    ],
)
def test_days_before_a_range_outweigh_it_from_twenty_times_its_calls_on(from_ms: int, to_ms: int, outweighed: bool) -> None:
    """Of a hundred days with a call each."""
    assert Days([(day * DAY_MS, 1) for day in range(100)]).outweigh(from_ms, to_ms) is outweighed


def test_who_has_no_calls_has_no_past() -> None:
    """Nor does an empty range of such a project."""
    assert not Days([]).outweigh(0, DAY_MS)
    assert not Days([]).outweigh(DAY_MS, DAY_MS)


async def test_days_are_asked_for_once_an_hour_and_project() -> None:
    """Each project's own; nothing is asked within the hour."""
    reader, now = Reader(), 0.0
    past = Past(reader, monotonic=lambda: now)  # type: ignore[arg-type]
    first = await past.of(tenant())
    now = 3599.0
    assert await past.of(tenant()) is first
    assert await past.of(tenant("b")) is not first
    assert reader.asked == 2
    now = 3600.0
    assert await past.of(tenant()) is not first
    assert reader.asked == 3


async def test_only_the_tenants_that_asked_last_are_kept() -> None:
    """A thousand of them, whatever comes."""
    reader = Reader()
    past = Past(reader)  # type: ignore[arg-type]
    for name in range(1000):
        await past.of(tenant(str(name)))
    await past.of(tenant("0"))
    await past.of(tenant("more"))
    asked = reader.asked
    await past.of(tenant("0"))
    assert reader.asked == asked
    await past.of(tenant("1"))
    assert reader.asked == asked + 1
