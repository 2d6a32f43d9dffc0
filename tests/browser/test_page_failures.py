"""Failures on the page: groups as the API has them, why, for whom and since when, and one click to exactly their logs."""

import re
from typing import Any
from urllib.parse import parse_qsl

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import FROM_MS, TO_MS, Site, enter

pytestmark = pytest.mark.real

MARKUP = "<script>alert(1)</script> & =1+1 \u202egnp"


def groups(site: Site, **params: Any) -> list[dict[str, Any]]:
    return list(site.stack.get("/v1/failures", **{"from": FROM_MS, "to": TO_MS, **params}).json()["groups"])


def rows_of(page: Page) -> list[dict[str, str]]:
    expect(page.locator(".failures-table .spark").first).to_be_visible()
    return page.locator(".failures-table tbody tr").evaluate_all(
        """rows => rows.map(row => ({
            failure_class: row.querySelector('.badge').textContent, tool: row.querySelector('.tool').textContent,
            message: row.querySelector('.message').textContent, calls: row.cells[2].querySelector('div').firstChild.textContent,
            users: row.cells[3].textContent, cause: row.cells[1].textContent, trend: row.cells[6].textContent,
            logs: row.querySelector('a.key').getAttribute('href'), example: row.querySelector('.links a').getAttribute('href'),
        }))"""
    )


def found_by(site: Site, address: str, key: str = "") -> int:
    """Count what the log search finds under the filters of an address of the view of logs."""
    params = [(name, value) for name, value in parse_qsl(address.partition("?")[2], keep_blank_values=True)]
    asked = dict(params)
    body: dict[str, Any] = {"time_range": {"from": int(asked["from"]), "to": int(asked["to"])}, "limit": 100}
    filters = [(name, value) for name, value in params if name not in ("project", "from", "to", "log", "tz")]
    body["filters"] = [{"field": name, "operator": "==", "value": value} for name, value in filters]
    return len(site.stack.post("/api/v3.1/logs/tool_execution", body, key=key).json()["logs"])


def test_groups_are_the_apis_and_each_leads_to_exactly_its_logs(opened, site):
    """Each group shows what the API says of it; its link finds as many logs as it counts; its order stands in the address."""
    expected = groups(site)
    opened.goto(site.address("failures"))
    shown = rows_of(opened)
    assert [(row["failure_class"], row["tool"], row["message"], row["calls"], row["users"]) for row in shown] == [
        (each["failure_class"], each["tool_slug"], each["message"], str(each["calls"]), str(each["users"])) for each in expected
    ]
    total = sum(each["calls"] for each in expected)
    expect(opened.locator(".summary")).to_have_text(f"{total} failures in {len(expected)} groups shown")
    by_pair: dict[tuple[str, str], int] = {}
    for each in expected:
        pair = (each["failure_class"], each["tool_slug"])
        by_pair[pair] = by_pair.get(pair, 0) + each["calls"]
    for row, group in zip(shown, expected, strict=True):
        assert group["likely_cause"] in row["cause"]
        assert group["action"] in row["cause"]
        assert found_by(site, row["logs"]) == group["calls"]
        assert f"log={group['example_log_id']}" in row["example"]
        # A trend that others are part of says so.
        together = by_pair[group["failure_class"], group["tool_slug"]]
        assert row["trend"].endswith("" if together == group["calls"] else f"all {together} of this class and tool")

    head = opened.get_by_role("columnheader", name="Last seen")
    head.get_by_role("link").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    newest = [each["message"] for each in sorted(expected, key=lambda each: each["last_seen"], reverse=True)]
    assert [row["message"] for row in rows_of(opened)] == newest
    opened.go_back()
    expect(opened.get_by_role("columnheader", name="Failures")).to_have_attribute("aria-sort", "descending")
    opened.locator("a.key").first.click()
    expect(opened).to_have_url(re.compile(r"#/logs\?.*failure_pattern="))


def test_no_failures_are_good_news(opened, site):
    """Where nothing failed the page says that calmly, without an alarm."""
    opened.goto(site.address("failures", **{"from": FROM_MS, "to": FROM_MS + 1000}))
    expect(opened.get_by_text("No failures in this range")).to_be_visible()
    assert opened.get_by_role("alert").count() == 0


def test_hostile_messages_are_only_text_and_still_found(page, site):
    """Markup, formulas and hidden characters in messages and names are shown, run nothing, and lead to exactly their logs."""
    key = site.stack.create_key("hostile-failures")
    events = [
        {
            "tool_slug": f"{MARKUP} TOOL", "toolkit_slug": "x", "status": "failed", "duration_ms": 5, "timestamp": FROM_MS + at,
            "error": {"message": f"{MARKUP} of user {at}"},
        }
        for at in range(3)
    ]  # fmt: skip
    assert site.stack.post("/v1/events", events, key=key).status_code == 202
    assert site.stack.proved().findings == ()
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    enter(page, site, key)
    page.goto(site.address("failures", project="hostile-failures"))
    (group,) = groups(site, key=key)
    (row,) = rows_of(page)
    assert row["message"] == group["message"].replace("\u202e", "⟨U+202E⟩")
    assert "<script>" in row["tool"]
    assert page.locator("main script").count() == 0
    assert found_by(site, row["logs"], key) == group["calls"] == 3
