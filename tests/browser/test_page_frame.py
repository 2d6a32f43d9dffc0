"""What stands around every view: a key, projects, the address, the time, filters, keys, and whether all of it is up to date."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import PROJECT, Site, enter
from tests.support.plain_http import HTTP

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

VIEWS: Final = ("Logs", "Usage", "Failures", "Health")
# WCAG 2.1 to level AA.
_RULES: Final = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}


def asked_for(page: Page) -> dict[str, list[str]]:
    """Return the parameters that stand in the address."""
    return parse_qs(urlsplit(page.url).fragment.partition("?")[2], keep_blank_values=True)


def view(page: Page) -> str:
    """Return the view that stands in the address."""
    return urlsplit(page.url).fragment.partition("?")[0].strip("/")


def try_key(page: Page, key: str) -> None:
    page.get_by_label("Key of the project").fill(key)
    page.get_by_role("button", name="Open").click()


def kept(page: Page) -> dict[str, Any]:
    """Return everything that the browser keeps for the page."""
    found = page.evaluate("({session: {...sessionStorage}, local: {...localStorage}, cookies: document.cookie})")
    assert isinstance(found, dict)
    return found


def accessible(page: Page) -> None:
    """Nothing of WCAG 2.1 A and AA is violated by what is seen now."""
    found = Axe().run(page, options=_RULES)
    assert found.violations_count == 0, found.generate_report()


@contextmanager
def themes(page: Page) -> Iterator[Iterator[str]]:
    """Show the page as people have it: light, dark, and on a phone."""

    def each() -> Iterator[str]:
        for name, scheme, width in (("light", "light", 1280), ("dark", "dark", 1280), ("narrow", "dark", 360)):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.set_viewport_size({"width": width, "height": 800})
            yield name
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name}: wider than the window"

    yield each()
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 800})


def test_a_key_lets_in_and_stays_in_its_tab(page: Page, site: Site) -> None:
    """A key that is none, a revoked one and one that may only send are refused in words; a good one is kept nowhere else."""
    made = {}
    for name, more in (("revoked", ()), ("ingest", ("--scope", "ingest"))):
        made[name] = json.loads(site.stack.toolledger("keys", "create", "--project", PROJECT, "--json", *more))
    site.stack.toolledger("keys", "revoke", made["revoked"]["id"])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site.url)
    said = page.get_by_role("alert")
    try_key(page, "ключ")
    expect(said).to_contain_text("This is no key")
    try_key(page, "ak_of_nobody")
    expect(said).to_contain_text("Invalid API key")
    try_key(page, made["revoked"]["key"])
    expect(said).to_contain_text("Invalid API key")
    expect(said).to_contain_text("toolledger keys create")
    try_key(page, made["ingest"]["key"])
    expect(said).to_contain_text("may only send events")
    assert kept(page) == {"session": {}, "local": {}, "cookies": ""}
    try_key(page, f"  {site.key} ")
    page.get_by_role("navigation", name="Views").wait_for()
    assert (view(page), asked_for(page)) == ("logs", {"project": [PROJECT]})
    expect(page).to_have_title(f"Logs · {PROJECT} · toolledger")
    page.reload()
    page.get_by_role("navigation", name="Views").wait_for()
    assert site.key in str(kept(page)["session"])
    assert (kept(page)["local"], kept(page)["cookies"]) == ({}, "")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.get_by_label("Key of the project")).to_be_focused()
    expect(other.get_by_text(f"This link is about project {PROJECT}.")).to_be_visible()
    other.close()
    page.get_by_role("button", name="Leave").click()
    expect(page.get_by_label("Key of the project")).to_be_focused()
    assert site.key not in str(kept(page))
    page.go_back()
    expect(page.get_by_label("Key of the project")).to_be_visible()
    assert not [url for url in asked if site.key in url or made["ingest"]["key"] in url]


def test_a_link_asks_for_the_key_of_its_project_and_then_shows_what_it_says(page: Page, site: Site) -> None:
    """Another project's key does not open it; between projects one switches, and the range goes along, filters do not."""
    link = site.address("logs", status="failed", **{"tool_slug!": "book_reservation"})
    page.goto(link)
    expect(page.get_by_text(f"This link is about project {PROJECT}.")).to_be_visible()
    try_key(page, site.empty_key)
    expect(page.get_by_role("alert")).to_contain_text(f"This key is of project empty; the link is about {PROJECT}.")
    try_key(page, site.key)
    chips = page.get_by_role("list", name="Filters")
    expect(chips).to_contain_text("status is failed")
    expect(chips).to_contain_text("tool is not book_reservation")
    assert asked_for(page) == parse_qs(urlsplit(link).fragment.partition("?")[2])

    projects = page.get_by_label("Project", exact=True)
    projects.select_option("+ another project")
    page.get_by_role("button", name="Back").click()
    expect(chips).to_contain_text("status is failed")
    projects.select_option("+ another project")
    try_key(page, site.empty_key)
    expect(projects).to_have_value("empty")
    assert asked_for(page).keys() == {"project", "from", "to"}
    projects.focus()
    projects.select_option(PROJECT)
    expect(page).to_have_title(f"Logs · {PROJECT} · toolledger")
    expect(projects).to_be_focused()
    page.go_back()
    expect(projects).to_have_value("empty")
    page.goto(site.address("usage", project="nobody's"))
    expect(page.get_by_text("This link is about project nobody's.")).to_be_visible()
    page.get_by_role("button", name="Back").click()
    expect(page).to_have_title("Usage · empty · toolledger")
    page.get_by_role("button", name="Leave").click()
    expect(projects).to_have_value(PROJECT)


def test_where_one_is_stands_in_the_address(opened: Page, site: Site) -> None:
    """Views, the back button, ranges and zones: a link shows a colleague the same, wherever and whenever that is."""
    page = opened
    page.goto(site.address("logs", user_id="mia_li_3668"))
    for name in VIEWS[1:]:
        page.get_by_role("navigation", name="Views").get_by_role("link", name=name).click()
        expect(page).to_have_title(re.compile(f"^{name} "))
        assert asked_for(page)["user_id"] == ["mia_li_3668"]
    for name in reversed(VIEWS[:-1]):
        page.go_back()
        expect(page).to_have_title(re.compile(f"^{name} "))
        current = page.get_by_role("navigation", name="Views").locator("[aria-current=page]")
        expect(current).to_have_text(name)

    ranges = page.get_by_label("Time range", exact=True)
    ranges.focus()
    ranges.select_option("7d")
    assert asked_for(page) == {"project": [PROJECT], "user_id": ["mia_li_3668"], "since": ["7d"]}
    expect(page.get_by_label("Time range", exact=True)).to_be_focused()
    page.goto(site.address("logs", since="90m"))
    expect(ranges).to_have_value("90m")
    ranges.select_option("15m")

    # On this day the clocks of Berlin are put forward at two in the morning, and those of New York two weeks before.
    for zone, written, expected in (
        ("Europe/Berlin", "2026-03-29T01:30:00", "2026-03-29T00:30:00Z"),
        ("Europe/Berlin", "2026-03-29T02:30:00", "2026-03-29T01:30:00Z"),
        ("Europe/Berlin", "2026-03-29T12:00:00", "2026-03-29T10:00:00Z"),
        ("Europe/Berlin", "2026-10-25T02:30:00", "2026-10-25T00:30:00Z"),
        ("America/New_York", "2026-03-08T02:30:00", "2026-03-08T07:30:00Z"),
        ("America/New_York", "2026-11-01T01:30:00", "2026-11-01T05:30:00Z"),
        ("Asia/Kathmandu", "2026-01-01T00:00:00", "2025-12-31T18:15:00Z"),
        ("UTC", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z"),
    ):
        instant = page.evaluate(
            "async ([text, zone]) => (await import('./dashboard/range.js')).instantIn(text, zone)", [written, zone]
        )
        at = page.evaluate("text => Date.parse(text)", expected)
        assert instant == at, (zone, written)

    ranges.select_option("Custom …")
    dialog = page.get_by_role("dialog", name="Time range")
    dialog.get_by_label("From").fill("2026-11-01T01:30:00")
    dialog.get_by_label("To (empty: now)").fill("2026-11-01T01:00:00")
    dialog.get_by_label("Time zone").fill("Mars/Olympus")
    dialog.get_by_role("button", name="Show").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Mars/Olympus is not a time zone")
    dialog.get_by_label("Time zone").fill("America/New_York")
    dialog.get_by_role("button", name="Show").click()
    expect(dialog.get_by_role("alert")).to_contain_text("To must be after from.")
    dialog.get_by_label("To (empty: now)").fill("2026-11-01T03:00:00")
    dialog.get_by_role("button", name="Show").click()
    expect(dialog).to_have_count(0)
    assert asked_for(page) == {
        "project": [PROJECT], "from": ["1793511000000"], "to": ["1793520000000"], "tz": ["America/New_York"],
    }  # fmt: skip
    expect(page.get_by_title("Time zone of all times")).to_contain_text("New York")
    expect(ranges.locator("option:checked")).to_have_text(re.compile(r"^01/11/2026, 01:30:00 . 01/11/2026, 03:00:00$"))
    link = page.url
    page.go_back()
    expect(ranges).to_have_value("15m")
    with page.context.expect_page() as colleague:
        page.evaluate("link => window.open(link)", link)
    # A tab that was opened from here has the key too.
    expect(colleague.value.get_by_label("Time range", exact=True).locator("option:checked")).to_contain_text("03:00:00")
    colleague.value.close()
    page.goto(site.address("nonsense", tz="Nowhere/Land", since="soon"))
    expect(page).to_have_title(re.compile("^Logs "))
    expect(ranges).to_have_value("1h")


def test_what_every_object_has_is_no_view_no_filter_and_no_grouping(opened: Page, site: Site) -> None:
    """`constructor` in an address is as any other word that means nothing there: left aside."""
    page = opened
    page.goto(site.address("usage", by="constructor"))
    expect(page.get_by_role("link", name="By tool", exact=True)).to_have_attribute("aria-current", "true")
    page.goto(site.address("constructor", constructor="x", __proto__="x"))
    expect(page).to_have_title(re.compile("^Logs "))
    expect(page.locator("[data-log]").first).to_be_visible()


def test_filters_are_chips(opened: Page, site: Site) -> None:
    """Added by hand, by search and by link; taken away one by one or all; the text of a value is never more than text."""
    page = opened
    page.goto(site.address("logs"))
    chips = page.get_by_role("list", name="Filters")
    expect(chips).to_have_count(0)
    page.get_by_text("+ Filter").click()
    page.get_by_label("Field", exact=True).select_option("status")
    page.get_by_label("Value", exact=True).select_option("failed")
    page.get_by_role("button", name="Add").click()
    expect(chips).to_contain_text("status is failed")
    hostile = "<img src=x onerror=alert(1)>\u202egnp.exe\u0000"
    page.get_by_text("+ Filter").click()
    page.get_by_label("Field", exact=True).select_option("user")
    page.get_by_label("Operator", exact=True).select_option("is not")
    page.get_by_label("Value", exact=True).fill(hostile)
    page.get_by_role("button", name="Add").click()
    assert asked_for(page)["user_id!"] == [hostile]
    expect(chips).to_contain_text("<img src=x onerror=alert(1)>⟨U+202E⟩gnp.exe⟨U+0000⟩")
    assert page.locator("img").count() == 0
    page.get_by_role("searchbox").fill("  no seats ")
    page.keyboard.press("Enter")
    expect(chips).to_contain_text("text contains no seats")
    page.goto(site.address("logs", user_id=""))
    expect(chips).to_contain_text("user is empty")
    page.go_back()
    expect(chips.get_by_role("listitem")).to_have_count(4)
    page.get_by_role("link", name="Usage").click()
    expect(page.locator(".chip.idle")).to_have_count(2)
    page.go_back()
    page.get_by_role("link", name="Remove: status is failed").click()
    assert "status" not in asked_for(page)
    expect(chips.get_by_role("listitem")).to_have_count(3)
    page.get_by_role("link", name="Clear all").click()
    expect(chips).to_have_count(0)
    assert asked_for(page).keys() == {"project", "from", "to"}


def test_keys_do_what_the_sheet_says(opened: Page, site: Site) -> None:
    """`/` searches, Esc leaves, `?` shows the keys; none of them takes a letter from somebody who is writing."""
    page = opened
    page.goto(site.address("logs"))
    page.get_by_role("navigation", name="Views").wait_for()
    page.keyboard.press("/")
    search = page.get_by_role("searchbox")
    expect(search).to_be_focused()
    page.keyboard.type("a?/b")
    expect(search).to_have_value("a?/b")
    page.keyboard.press("Escape")
    expect(search).not_to_be_focused()
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog", name="Keys")
    expect(sheet).to_contain_text("next, previous row")
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)
    page.keyboard.press("Control+/")
    expect(search).not_to_be_focused()
    page.goto(site.address("failures", user_id="mia_li_3668"))
    expect(page).to_have_title(re.compile("^Failures "))
    page.get_by_role("link", name="Skip to content").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    assert (view(page), asked_for(page)["user_id"]) == ("failures", ["mia_li_3668"])


def test_how_complete_it_is_always_stands_in_view(opened: Page, site: Site) -> None:
    """Up to date, behind, not answering, and well again: each in words, in every view."""
    page = opened
    line = page.locator(".freshness")
    for name in VIEWS:
        page.get_by_role("navigation", name="Views").get_by_role("link", name=name).click()
        expect(line).to_have_text(re.compile(r"^Complete until \d\d:\d\d:\d\d$"))

    def behind(route: Route) -> None:
        until = int(time.time() * 1000) - 100_000
        told = {"complete_until": "2026-11-29T12:00:00Z", "complete_until_ms": until, "lag_ms": 100_000, "partitions": []}
        route.fulfill(json=told)

    page.route("**/v1/freshness", behind)
    expect(line).to_contain_text(re.compile(r"Behind by 1 min 4\d s: Complete until .*; what came later may be missing here\."))
    page.unroute("**/v1/freshness")
    page.route("**/v1/**", lambda route: route.abort())
    expect(line).to_contain_text("Not up to date: The server does not answer.")
    expect(line).to_contain_text("What is shown was complete until")
    expect(line).to_be_in_viewport()
    page.unroute("**/v1/**")
    expect(line).to_have_text(re.compile(r"^Complete until \d\d:\d\d:\d\d$"))


@pytest.mark.parametrize(
    ("ahead_ms", "told"), [(20 * 60_000, r"20 min \d s ahead of"), (-26 * 3_600_000 - 1_800_000, "1 d 2 h behind")]
)
def test_a_reader_whose_clock_is_wrong_sees_what_the_others_see(page: Page, site: Site, ahead_ms: int, told: str) -> None:
    """Ranges, delays and ages are by the server's clock: at the first look, followed, and after the page is loaded again."""
    key = site.stack.create_key(f"clock-{abs(ahead_ms)}")
    event = {"tool_slug": "GMAIL_SEND_EMAIL", "status": "failed", "duration_ms": 12, "error": {"message": "No room"}}
    assert site.stack.post("/v1/events", event, key=key).status_code == 202
    assert site.stack.proved().findings == ()
    page.clock.install(time=time.time() + ahead_ms / 1000)
    enter(page, site, key)
    line = page.locator(".freshness")
    for _ in range(2):
        for query in ("since=15m", "since=15m&live=1"):
            page.goto(f"{site.url}/#/logs?{query}")
            expect(page.locator("[data-log]")).to_have_count(1)
        page.goto(f"{site.url}/#/usage?since=15m")
        expect(page.locator("[data-metric=calls] dd").first).to_have_text("1")
        page.goto(f"{site.url}/#/failures?since=15m")
        expect(page.locator(".summary")).to_contain_text("1 failure in 1 group")
        page.goto(f"{site.url}/#/health?since=15m")
        expect(page.get_by_role("region", name="Calls per second")).to_contain_text("1 call since")
        expect(line).to_contain_text(re.compile(rf"^Complete until .*This computer's clock is {told} the server's"))
        page.reload()
    page.goto(f"{site.url}/#/logs?since=15m&live=1")
    expect(page.locator(".following")).to_be_visible()
    assert site.stack.post("/v1/events", event, key=key).status_code == 202
    expect(page.locator("[data-log]")).to_have_count(2)


def test_nobody_else_is_asked_and_nothing_inline_runs(page: Page, site: Site) -> None:
    """Everything comes from the page's own address, under a policy that allows nothing else; below a path too."""
    origins = set()
    page.on("request", lambda request: origins.add("{0.scheme}://{0.netloc}".format(urlsplit(request.url))))
    answer = HTTP.get(site.url)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|\bstyle=|https?://", answer.text)
    enter(page, site, site.key)
    for name in VIEWS:
        page.get_by_role("navigation", name="Views").get_by_role("link", name=name).click()
        page.wait_for_load_state("networkidle")
    assert origins == {site.url}
    # Its own window: what the policy stops is on the console, where the fixture looks for errors.
    other = page.context.new_page()
    other.goto(site.url)
    ran = other.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.ran = 1';"
        " document.body.append(script); return window.ran ?? 0; }"
    )
    assert ran == 0


def test_it_works_below_a_path(context: Any, site: Site) -> None:
    """Behind a proxy that puts it under a folder: all addresses within are relative."""
    page = context.new_page()
    prefix = f"{site.url}/tools/ledger/"
    outside = []
    page.on("request", lambda request: request.url.startswith(prefix) or outside.append(request.url))
    page.route(
        f"{prefix}**", lambda route: route.fulfill(response=route.fetch(url=route.request.url.replace("/tools/ledger", "")))
    )
    page.goto(prefix)
    try_key(page, site.key)
    expect(page.locator(".freshness")).to_have_text(re.compile(r"^Complete until"))
    assert outside == []
    # What is on its way when the window closes is nobody's any more.
    page.unroute_all(behavior="ignoreErrors")


@pytest.mark.parametrize("name", ["entry", "logs", "usage", "failures", "health"])
def test_everybody_can_read_it(browser: Browser, page: Page, site: Site, name: str) -> None:
    """WCAG 2.1 to AA, light and dark, and no wider than a phone."""
    if name == "entry":
        page.goto(site.url)
        try_key(page, "ak_of_nobody")
        expect(page.get_by_role("alert")).to_contain_text("Invalid API key")
    else:
        enter(page, site, site.key)
        page.goto(site.address(name, status="failed"))
        page.wait_for_load_state("networkidle")
        expect(page.locator("main .loading")).to_have_count(0)
    with themes(page) as each:
        for _ in each:
            accessible(page)
