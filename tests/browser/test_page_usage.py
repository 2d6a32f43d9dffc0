"""Usage on the page: the figures are the API's and those of a plain count, and every way to look closer is in the address."""

import csv
import io
import json
import re
from collections import Counter
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import FROM_MS, PROJECT, RECORDED, TO_MS, Site, enter

pytestmark = pytest.mark.real

DAY_MS = 86_400_000
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    '=HYPERLINK("http://example.org","x")',
    "@SUM(A1)",
    'A "quoted", comma',
    "TOOL_\u202egnp.exe",
)


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDED.read_text().splitlines()]


def params_of(page: Page) -> dict[str, list[str]]:
    return parse_qs(page.evaluate("location.hash").partition("?")[2], keep_blank_values=True)


def usage(site: Site, **params: Any) -> Any:
    return site.stack.get("/v1/usage", **{"from": FROM_MS, "to": TO_MS, **params}).json()


def figure(page: Page, metric: str) -> Locator:
    return page.locator(f"[data-metric={metric}] .figure-value")


def rows_of(page: Page) -> list[list[str]]:
    """Return the texts of the table's cells, once all of them are there."""
    expect(page.locator(".table-part [aria-busy]")).to_have_count(0)
    expect(page.locator(".usage-table tbody tr").first).to_be_visible()
    expect(page.locator(".usage-table .loading")).to_have_count(0)
    expect(page.locator(".usage-table .spark").first).to_be_visible()
    return page.locator(".usage-table tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
    )


def downloaded(page: Page) -> list[list[str]]:
    with page.expect_download() as found:
        page.get_by_role("button", name="Download CSV").click()
    with open(found.value.path(), encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(io.StringIO(file.read())))


def test_figures_charts_table_and_file_say_what_the_api_and_a_plain_count_say(opened, site):
    """Totals, each row, the charts' own tables and the CSV are equal to `/v1/usage` and to a count over the recorded calls."""
    events = recorded()
    opened.goto(site.address("usage"))
    totals = usage(site)["totals"]
    expect(figure(opened, "calls")).to_have_text(f"{len(events):,}")
    expect(figure(opened, "active_users")).to_have_text(str(len({each["user_id"] for each in events})))
    expect(figure(opened, "sessions")).to_have_text(str(len({each["session_id"] for each in events})))
    expect(figure(opened, "error_rate")).to_have_text(f"{totals['error_rate']:.1%}")
    expect(figure(opened, "p95_ms")).to_have_text(
        f"{round(totals['p95_ms'])} ms" if totals["p95_ms"] < 1000 else re.compile(" s")
    )

    calls, failed = (
        Counter(each["tool_slug"] for each in events),
        Counter(each["tool_slug"] for each in events if each["status"] == "failed"),
    )
    users = {tool: len({each["user_id"] for each in events if each["tool_slug"] == tool}) for tool in calls}
    shown = rows_of(opened)
    assert [(row[0], row[1], row[2]) for row in shown] == [
        (tool, str(many), str(failed[tool])) for tool, many in _ordered(calls)
    ]
    assert {row[0]: int(row[7]) for row in shown} == users

    # The chart's text alternative: calls a day, by the reader's clock, as the API has them.
    chart = opened.locator("figure", has_text="succeeded, failed").or_(opened.locator("figure")).first
    chart.get_by_text("As a table").click()
    interval = usage(site, interval="hour", timezone="Europe/Berlin")["rows"]
    # Charts come after the table.
    expect(chart.locator("tbody tr")).to_have_count(len(interval))
    cells = chart.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].slice(1).map(cell => Number(cell.textContent.replaceAll(',', ''))))"
    )
    assert cells == [[row["calls"] - row["failed"], row["failed"]] for row in interval]
    expect(opened.locator(".js-plotly-plot .main-svg").first).to_be_visible()

    # Its colours are those of the reader's theme, also when that changes.
    mark = opened.locator(".js-plotly-plot .xtick text").first
    expect(mark).to_have_css("fill", "rgb(89, 96, 110)")
    opened.emulate_media(color_scheme="dark")
    expect(mark).to_have_css("fill", "rgb(162, 170, 184)")

    header, *lines = downloaded(opened)
    answer = usage(site, group_by="tool_slug", limit=10_000)["rows"]
    assert header == [
        "tool_slug",
        "calls",
        "failed",
        "error_rate",
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "active_users",
        "active_sessions",
    ]
    assert [[line[0], *map(float, line[1:])] for line in lines] == [[row[name] for name in header] for row in answer]


def test_every_column_sorts_and_the_order_is_in_the_address(opened, site):
    """A click on a column's head sorts by it, a second one turns it round; a link keeps it."""
    opened.goto(site.address("usage", by="user"))
    rows_of(opened)
    orders = {
        "p95": ("p95_ms", "desc", "asc"),
        "Active sessions": ("active_sessions", "desc", "asc"),
        "User": ("key", "asc", "desc"),
    }
    for label, (name, *directions) in orders.items():
        head = opened.get_by_role("columnheader", name=label, exact=True)
        for direction in directions:
            head.get_by_role("link").click()
            expect(head).to_have_attribute("aria-sort", f"{direction}ending")
            expected = usage(site, group_by="user_id", order_by=name, order_direction=direction)["rows"]
            expect(opened.locator(".usage-table tbody a.key").first).to_have_text(expected[0]["user_id"])
            assert [row[0] for row in rows_of(opened)] == [row["user_id"] for row in expected]
    opened.reload()
    assert [row[0] for row in rows_of(opened)] == [row["user_id"] for row in expected]

    # More rows than are shown at first: that is said, and they can be had.
    opened.get_by_role("link", name="By session").click()
    expect(opened.locator(".usage-table tbody tr")).to_have_count(100)
    opened.get_by_role("button", name="Show up to 1,000").click()
    expect(opened.locator(".usage-table tbody tr")).to_have_count(136)
    expect(opened.get_by_text("All 136 shown.")).to_be_visible()


def test_dragging_over_a_chart_sets_the_range_everywhere_and_back_undoes_it(opened, site):
    """A drag narrows address, figures and table down to what was marked; three ways of going back undo it."""
    opened.goto(site.address("usage"))
    plot = opened.locator(".js-plotly-plot .nsewdrag").first
    whole = figure(opened, "calls")
    expect(whole).to_have_text("898")
    before = opened.evaluate("location.hash")
    for undo in (
        opened.go_back,
        opened.get_by_role("button", name="Back to the range before").click,
        plot.dblclick,
    ):
        rows_of(opened)
        drag(opened, plot, 0.45, 0.7)
        opened.wait_for_function("before => location.hash !== before", arg=before)
        asked = params_of(opened)
        from_ms, to_ms = int(asked["from"][0]), int(asked["to"][0])
        assert "since" not in asked
        assert from_ms == pytest.approx(FROM_MS + 0.45 * (TO_MS - FROM_MS), abs=0.02 * (TO_MS - FROM_MS))
        assert to_ms == pytest.approx(FROM_MS + 0.7 * (TO_MS - FROM_MS), abs=0.02 * (TO_MS - FROM_MS))
        narrowed = sum(from_ms <= each["timestamp"] < to_ms for each in recorded())
        expect(whole).to_have_text(str(narrowed))
        assert sum(int(row[1]) for row in rows_of(opened)) == narrowed
        undo()
        expect(whole).to_have_text("898")
        assert opened.evaluate("location.hash") == before


def drag(page: Page, plot: Locator, start: float, end: float) -> None:
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + start * box["width"], box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + (start + end) / 2 * box["width"], box["y"] + box["height"] / 2 + 3, steps=4)
    page.mouse.move(box["x"] + end * box["width"], box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()


def test_the_period_before_is_compared_and_a_row_narrows_everything_down(opened, site):
    """Compare shows each figure beside the one of the period before; a click on a row filters by it, logs included."""
    third = FROM_MS + 3 * DAY_MS
    opened.goto(site.address("usage", **{"from": third, "to": third + DAY_MS}))
    opened.get_by_role("switch", name="Compare").click()
    assert params_of(opened)["compare"] == ["1"]
    day = lambda number: [each for each in recorded() if number <= (each["timestamp"] - FROM_MS) / DAY_MS < number + 1]  # noqa: E731
    now, then = len(day(3)), len(day(2))
    expect(figure(opened, "calls")).to_have_text(str(now))
    change = opened.locator("[data-metric=calls] .figure-change")
    expect(change).to_have_text(re.compile(rf"^\+{(now - then) / then:.1%} \(before: {then}\)$".replace("%", r"\s?%")))
    expect(opened.locator("[data-metric=sessions] .figure-change")).to_contain_text("before: ")

    tool = "AIRLINE_BOOK_RESERVATION"
    its_then = sum(each["tool_slug"] == tool for each in day(2))
    expect(opened.locator("tr", has_text=tool).locator(".change").first).to_contain_text(f"(before: {its_then})")
    people = opened.get_by_role("figure").filter(has_text="Users and sessions")
    expect(people.locator(".js-plotly-plot")).to_contain_text("Users before")
    opened.locator("tr", has_text=tool).locator("td").nth(1).click()
    expect(opened.get_by_role("list", name="Filters")).to_contain_text(tool)
    assert params_of(opened)["tool_slug"] == [tool]
    expect(figure(opened, "calls")).to_have_text(str(sum(each["tool_slug"] == tool for each in day(3))))
    assert [row[0] for row in rows_of(opened)] == [tool]
    opened.keyboard.press("j")
    expect(opened.locator("a.key")).to_be_focused()
    opened.get_by_role("link", name=f"Logs of {tool}").click()
    assert {"tool_slug": [tool], "from": [str(third)]}.items() <= params_of(opened).items()


def test_names_that_would_be_markup_or_formulas_are_only_text(page, site, context):
    """Hostile names are shown as they are, run nothing, are safe in a spreadsheet, and filter by exactly themselves."""
    key = site.stack.create_key("hostile-usage")
    events = [
        {
            "tool_slug": name,
            "toolkit_slug": "x",
            "status": "success",
            "duration_ms": 5,
            "timestamp": FROM_MS + at,
            "user_id": name,
        }
        for at, name in enumerate(HOSTILE)
    ]
    assert site.stack.post("/v1/events", events, key=key).status_code == 202
    assert site.stack.proved().findings == ()
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    enter(page, site, key)
    page.goto(site.address("usage", project="hostile-usage", sort="key:asc"))
    shown = [row[0] for row in rows_of(page)]
    assert sorted(shown) == sorted(name.replace("\u202e", "⟨U+202E⟩") for name in HOSTILE)
    assert page.locator("main img").count() == 0
    lines = downloaded(page)[1:]
    assert sorted(line[0] for line in lines) == sorted(f"'{name}" if name[0] in "=@" else name for name in HOSTILE)
    for name in HOSTILE:
        page.goto(site.address("usage", project="hostile-usage"))
        page.locator("a.key", has_text=name.replace("\u202e", "⟨U+202E⟩")).click()
        expect(figure(page, "calls")).to_have_text("1")
        assert params_of(page)["tool_slug"] == [name]


def test_nothing_found_and_filters_that_do_not_apply_are_said(opened, site):
    """A range without calls says so in the table's place; a filter that only logs can apply is named as not applied."""
    opened.goto(f"{site.url}/#/usage?{urlencode({'project': PROJECT, 'from': 1, 'to': DAY_MS, 'text~': 'balance'})}")
    expect(opened.get_by_text("No calls in this range")).to_be_visible()
    expect(figure(opened, "calls")).to_have_text("0")
    expect(figure(opened, "p50_ms")).to_have_text("\u2013")
    expect(opened.get_by_role("note")).to_contain_text("text contains balance")


def _ordered(counted: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counted.items(), key=lambda each: (-each[1], each[0]))
