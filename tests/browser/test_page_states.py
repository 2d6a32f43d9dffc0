"""What the page says where an answer is refused, and how it goes on."""

from typing import Final

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Site

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

# How many parts of each ask by themselves what is refused here.
VIEWS: Final = {"Logs": 1, "Usage": 2, "Failures": 1, "Health": 2}
_QUESTIONS: Final = ("**/v1/usage?**", "**/v1/failures?**", "**/v1/verification", "**/api/v3.1/logs/tool_execution")


def refuse(page: Page, status: int, **headers: str) -> None:
    """From now on questions of views are refused; whether all is complete is still told."""
    said = {"message": "Said by the server.", "suggested_fix": "Do this.", "request_id": "req_of_the_refusal"}
    error = {**said, "code": status, "status": status}

    def answer(route: Route) -> None:
        route.fulfill(status=status, json={"error": error}, headers=headers)

    for pattern in _QUESTIONS:
        page.route(pattern, answer)


def allow(page: Page) -> None:
    for pattern in _QUESTIONS:
        page.unroute(pattern)


def go(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Views").get_by_role("link", name=name).click()


def is_answered(page: Page, name: str) -> None:
    """The view shows what it is for, and no error."""
    expect(page.get_by_role("main").get_by_role("alert")).to_have_count(0)
    shown = {
        "Logs": page.get_by_role("grid", name="Logs, newest first"),
        "Usage": page.get_by_role("table").first,
        "Failures": page.get_by_role("table").first,
        "Health": page.get_by_role("region", name="Last proof").locator(".reading"),
    }
    expect(shown[name]).to_be_visible()


@pytest.mark.parametrize(
    ("status", "title"),
    [
        (403, "This key may not read this"),
        (500, "That did not work"),
        (504, "That took too long"),
    ],
)
def test_a_refusal_says_why_what_to_do_and_by_which_id_it_is_found(opened: Page, site: Site, status: int, title: str) -> None:
    """Each view shows the server's own words beside a title of its status, and asks again when told to."""
    for name, parts in VIEWS.items():
        opened.goto(site.address("health" if name == "Logs" else "logs"))
        refuse(opened, status)
        go(opened, name)
        alerts = opened.get_by_role("main").get_by_role("alert")
        expect(alerts).to_have_count(parts)
        for text in (title, "Said by the server.", "Do this.", "Request req_of_the_refusal"):
            expect(alerts.first).to_contain_text(text)
        expect(opened.locator(".freshness")).to_contain_text("omplete until")
        allow(opened)
        for _ in range(parts if name == "Usage" else 1):
            opened.get_by_role("main").get_by_role("button", name="Try again").first.click()
        is_answered(opened, name)


@pytest.mark.parametrize("name", ["Logs", "Usage", "Failures"])
@pytest.mark.parametrize(
    ("status", "title"),
    [(429, "Too many requests for this key"), (503, "That did not work"), (None, "The server does not answer")],
)
def test_what_passes_by_itself_is_asked_again_without_a_click(
    opened: Page, site: Site, name: str, status: int | None, title: str
) -> None:
    """A server that restarts, or is asked too much, costs nobody who looks a click."""
    opened.goto(site.address("health"))
    if status is None:
        for pattern in _QUESTIONS:
            opened.route(pattern, lambda route: route.abort())
    else:
        refuse(opened, status, **{"retry-after": "1"})
    go(opened, name)
    expect(opened.get_by_role("main").get_by_role("alert").first).to_contain_text(title)
    allow(opened)
    is_answered(opened, name)
