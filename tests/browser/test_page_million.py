"""The page over a million simulated calls: what it shows, counts and scrolls through is what a scan of all of them says."""

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from tests.benchmarks.seed_executions import PROJECTS, seed
from tests.benchmarks.seeded_stack import SeededStack, seeded_stack
from tests.browser.conftest import enter_at
from tests.browser.test_page_logs import ids, shows, step_through

pytestmark = pytest.mark.real

ROWS: Final = 1_000_000
PROJECT: Final = PROJECTS[0]
# So many rows are scrolled past, twice: more than the list keeps in memory.
PASSED: Final = 2_500
# Of a heap of a few MiB, after garbage collection.
GROWTH_BYTES_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class LongSite:
    """A stack with the calls, a key to half of them, and their time."""

    stack: SeededStack
    key: str
    from_ms: int
    to_ms: int

    def address(self, view: str, **params: object) -> str:
        first = {"project": PROJECT, "from": self.from_ms, "to": self.to_ms}
        return f"{self.stack.url}/#/{view}?{urlencode({**first, **params})}"

    def rows(self, select: str, where: str = "1", more: str = "") -> list[tuple[Any, ...]]:
        """Ask the raw rows of the project."""
        query = f"SELECT {select} FROM tool_executions WHERE project_id = '{PROJECT}' AND ({where}) {more}"
        return list(self.stack.pipeline.rows(query))

    def newest(self, where: str, count: int) -> list[dict[str, Any]]:
        found = self.rows("id", where, f"ORDER BY timestamp DESC, id DESC LIMIT {count}")
        return [{"id": log_id} for (log_id,) in found]


@pytest.fixture(scope="module")
def long_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongSite]:
    """All of it is started and ended by one thread, because a browser's event loop runs in this one."""
    with ThreadPoolExecutor(1) as thread, ExitStack() as started:

        def start() -> LongSite:
            folder = tmp_path_factory.mktemp("million") / "data"
            seed(folder, ROWS)
            stack = started.enter_context(seeded_stack(folder))
            ends = "SELECT toUnixTimestamp64Milli(min(timestamp)), toUnixTimestamp64Milli(max(timestamp)) FROM tool_executions"
            ((first_ms, last_ms),) = stack.pipeline.rows(ends)
            return LongSite(stack, stack.create_key(PROJECT), first_ms, last_ms + 1)

        try:
            yield thread.submit(start).result()
        finally:
            thread.submit(started.close).result()


@pytest.fixture
def opened(page: Page, long_site: LongSite) -> Page:
    enter_at(page, long_site.stack.url, long_site.key)
    return page


def test_every_filter_finds_the_newest_of_what_it_names(opened: Page, long_site: LongSite) -> None:
    """Common values, rare ones, texts and all of them together: the list begins with what a scan of all rows finds."""
    ((user, session, request),) = long_site.rows("user_id, session_id, request_id", "session_id != ''", "LIMIT 1 OFFSET 123456")
    for params, where in (
        ({}, "1"),
        ({"status": "failed"}, "status = 'failed'"),
        ({"toolkit_slug": "gmail"}, "toolkit_slug = 'gmail'"),
        ({"user_id": user}, f"user_id = '{user}'"),
        ({"session_id": session}, f"session_id = '{session}'"),
        ({"request_id": request}, f"request_id = '{request}'"),
        ({"failure_class": "rate_limited", "user_id!": user}, f"failure_class = 'rate_limited' AND user_id != '{user}'"),
        ({"text~": "RETRY AFTER 77"}, "error_message ILIKE '%retry after 77%'"),
        ({"text~": "flight", "status": "failed", "user_id": user}, f"error_message ILIKE '%flight%' AND user_id = '{user}'"),
    ):
        wanted = long_site.newest(where, 15)
        opened.goto(long_site.address("logs", **params))
        if wanted:
            shows(opened, wanted)
        if len(wanted) < 15:
            assert len(ids(opened)) == len(wanted), params
    opened.goto(long_site.address("logs", **{"text~": "nobody says this"}))
    expect(opened.get_by_text("No call fits these filters")).to_be_visible()


def test_scrolling_past_thousands_of_rows_holds_no_more_of_them(opened: Page, long_site: LongSite) -> None:
    """Each row comes once and in order, a few elements show them, and what the page holds is the same after twice as many."""
    wanted = [each["id"] for each in long_site.newest("1", 2 * PASSED + 200)]
    opened.goto(long_site.address("logs"))
    tools = opened.context.new_cdp_session(opened)
    tools.send("Performance.enable")
    held = []
    seen: dict[int, str] = {}
    for most in (PASSED, 2 * PASSED):
        seen |= step_through(opened, "PageDown", until=most)
        tools.send("HeapProfiler.collectGarbage")
        metrics = {each["name"]: each["value"] for each in tools.send("Performance.getMetrics")["metrics"]}
        held.append(metrics["JSHeapUsedSize"])
    assert [seen[number] for number in range(2 * PASSED)] == wanted[: 2 * PASSED]
    assert held[1] - held[0] < GROWTH_BYTES_MAX, held


def test_usage_and_failures_are_those_of_a_count_over_all_rows(opened: Page, long_site: LongSite) -> None:
    """Calls, failures, users, sessions, each tool's row and all groups of failures: to the last one."""
    ((calls, failed, users, sessions),) = long_site.rows(
        "count(), countIf(status = 'failed'), uniqExact(user_id), uniqExactIf(session_id, session_id != '')"
    )
    opened.goto(long_site.address("usage"))
    for metric, count in (("calls", calls), ("active_users", users), ("sessions", sessions)):
        expect(opened.locator(f"[data-metric={metric}] .figure-value")).to_have_text(f"{count:,}")
    expect(opened.locator("[data-metric=error_rate] .figure-value")).to_have_text(f"{failed / calls:.1%}".replace(".0", ""))
    expect(opened.locator(".table-part [aria-busy]")).to_have_count(0)
    by_tool = long_site.rows("tool_slug, count(), countIf(status = 'failed')", more="GROUP BY 1 ORDER BY 2 DESC, 1")
    table = opened.locator(".usage-table tbody tr")
    expect(table).to_have_count(len(by_tool))
    shown = table.evaluate_all("rows => rows.map(row => [...row.cells].slice(0, 3).map(cell => cell.textContent))")
    assert [[row[0], *(int(re.sub(r"\D.*", "", cell.replace(",", ""))) for cell in row[1:])] for row in shown] == [
        list(row) for row in by_tool
    ]

    groups = long_site.rows(
        "tool_slug, failure_class, count() AS calls, uniqExact(user_id)",
        "status = 'failed'",
        "GROUP BY tool_slug, failure_class, failure_pattern ORDER BY calls DESC",
    )
    opened.goto(long_site.address("failures"))
    expect(opened.locator(".failures-table .spark").first).to_be_visible()
    shown = opened.locator(".failures-table tbody tr").evaluate_all(
        "rows => rows.map(row => [row.querySelector('.tool').textContent, row.querySelector('.badge').textContent,"
        " row.cells[2].querySelector('div').firstChild.textContent, row.cells[3].textContent])"
    )
    found = [(*row[:2], *(int(cell.replace(",", "")) for cell in row[2:])) for row in shown]
    assert len(found) == min(100, len(groups))
    # Which of those with as many calls as the last one are shown is not said.
    assert [row[2] for row in found] == [row[2] for row in groups[: len(found)]]
    assert not Counter(found) - Counter(groups)
