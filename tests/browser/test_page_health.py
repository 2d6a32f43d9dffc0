"""Health: what it warns of, what it says of the last proof, and dead letters from being seen to being replayed."""

import asyncio
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest
from aiokafka import AIOKafkaProducer
from playwright.sync_api import Page, Route, expect

from ingest.contract.topics import HEADER_PROJECT, TOOL_EXECUTIONS
from tests.browser.conftest import PROJECT, Site, enter
from tests.support.pipeline import eventually

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

NOW_MS: Final = 1_793_600_000_000
DAY_MS: Final = 86_400_000
EVENT: Final = {"tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 12}


def poison(site: Site, project: str, payloads: Sequence[bytes]) -> None:
    """Write what is no event straight to Kafka."""

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=site.stack.up.ready["kafka"])  # type: ignore[union-attr]
        await producer.start()
        try:
            for payload in payloads:
                await producer.send_and_wait(
                    TOOL_EXECUTIONS, payload, headers=[(HEADER_PROJECT, project.encode())], partition=0
                )
        finally:
            await producer.stop()

    # In a thread of its own: Playwright's loop runs in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, send()).result()


def letters(site: Site, key: str) -> list[dict[str, Any]]:
    found = site.stack.get("/v1/dead-letters", key=key, limit=100).json()["dead_letters"]
    assert isinstance(found, list)
    return found


def without_date(route: Route) -> None:
    """Let the server answer without the time it is there, so that the page goes by the clock the test turns."""
    answer = route.fetch()
    route.fulfill(response=answer, headers={name: value for name, value in answer.headers.items() if name != "date"})


def section(page: Page, name: str) -> Any:
    return page.get_by_role("region", name=name, exact=True)


def test_it_says_that_all_is_well_and_what_the_last_proof_was(page: Page, site: Site) -> None:
    """In words, with the project's own totals, after `toolledger verify` has run; its own answer is as ever."""
    said = json.loads(site.stack.toolledger("verify", "--json"))
    assert said["proved"]
    (of_project,) = [each for each in said["projects"] if each["project_id"] == PROJECT]
    enter(page, site, site.key)
    page.get_by_role("link", name="Health").click()
    expect(section(page, "Warnings")).to_contain_text("All is well")
    proof = section(page, "Last proof")
    expect(proof).to_contain_text("proved")
    expect(proof).to_contain_text(
        f"{of_project['accepted']} accepted = {of_project['rows']} logs = {of_project['calls']} calls"
    )
    expect(section(page, "Complete until")).to_contain_text("which is as it should be. No record waits.")
    expect(section(page, "Calls per second")).to_contain_text("in the last whole minute")
    expect(section(page, "Dead letters")).to_contain_text("No dead letters")
    expect(page.locator(".bar")).to_have_count(0)


def _asked_again(page: Page) -> None:
    """Let the time pass until the view asks again; it counts from its last answer, which may not be there yet."""
    with page.expect_response("**/v1/verification") as answered:
        while not answered.is_done():
            page.clock.fast_forward(11_000)


def test_it_warns_plainly(page: Page, site: Site) -> None:
    """Behind, standing still, growing dead letters, an old proof, none, and one that failed: each in a sentence."""
    freshness = {
        "complete_until": "2026-11-01T22:11:40Z",
        "complete_until_ms": NOW_MS - 100_000,
        "lag_ms": 100_000,
        "partitions": [
            {"partition": 0, "next_offset": 5, "end_offset": 9, "lag_records": 4, "complete_until_ms": NOW_MS - 100_000},
            {"partition": 1, "next_offset": 7, "end_offset": 7, "lag_records": 0, "complete_until_ms": NOW_MS - 1_000},
        ],
    }
    none = dict.fromkeys(("events", "accepted", "duplicates", "conflicts", "dead_letters", "forwarded", "rows", "calls"), 0)
    outcome: dict[str, Any] = {
        "verified_at": "2026-10-30T22:13:20Z",
        "verified_at_ms": NOW_MS - 2 * DAY_MS,
        "proved": False,
        "totals": {**none, "events": 7, "accepted": 7, "rows": 6, "calls": 7},
        "findings": [{"kind": "usage_differs", "text": "<b>6 logs</b>, 7 calls", "action": "restore all tables"}],
        "findings_count": 21,
        "ledger_findings_count": 2,
    }
    answers = {"verification": outcome}
    letter = {
        "id": "x-0-1-0", "reason": "invalid_json", "message": "not JSON", "accepted_at": "2026-11-01T22:00:00Z",
        "origin": {"topic": "t", "partition": 0, "offset": 1, "index": 0}, "bytes": 3, "payload": "abc", "encoding": "utf-8",
        "truncated": False, "replayed": False,
    }  # fmt: skip
    page.clock.install(time=NOW_MS / 1000)
    page.route("**/v1/**", without_date)
    page.route("**/v1/freshness", lambda route: route.fulfill(json=freshness))
    page.route("**/v1/verification", lambda route: route.fulfill(json={**answers, "complete_until": "2026-11-01T00:00:00Z"}))
    page.route("**/v1/dead-letters?*", lambda route: route.fulfill(json={"dead_letters": [letter], "next_cursor": "more"}))
    enter(page, site, site.key)
    page.get_by_role("link", name="Health").click()
    warnings = section(page, "Warnings")
    expect(warnings).to_contain_text("Behind by 1 min 40 s: what was accepted since")
    expect(warnings).to_contain_text("The last proof failed 2 days ago: 21 findings in this project.")
    expect(warnings).to_contain_text("The last proof is older than a day (2 days ago): run toolledger verify.")
    expect(warnings).to_contain_text("More than 1 dead letter in the last hour")
    proof = section(page, "Last proof")
    expect(proof).to_contain_text("not proved")
    expect(proof).to_contain_text("7 accepted, 6 logs, 7 calls in usage.")
    expect(proof).to_contain_text("usage_differs: <b>6 logs</b>, 7 calls")
    expect(proof).to_contain_text("2 findings are of the ledger as a whole")
    rows = section(page, "Complete until").get_by_role("row")
    expect(rows.nth(1)).to_contain_text(re.compile(r"behind by 1 min \d\d s"))
    expect(rows.nth(2)).to_contain_text("up to date")
    expect(warnings).not_to_contain_text("still")
    for _ in range(3):
        _asked_again(page)
    expect(rows.nth(1)).to_contain_text("stands still")
    expect(warnings).to_contain_text("Partition 0 stands still: look at the log of the worker that has it")
    answers["verification"] = None  # type: ignore[assignment]
    _asked_again(page)
    expect(warnings).to_contain_text("No proof yet: toolledger verify never ran.")
    page.route("**/v1/verification", lambda route: route.abort())
    page.clock.fast_forward(11_000)
    expect(proof.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(section(page, "Dead letters")).to_contain_text("not JSON")


def test_a_dead_letter_is_found_seen_mended_and_replayed(page: Page, site: Site) -> None:
    """All of a project's, page after page and by reason; bytes that are no text too; once mended it is a log, once."""
    key = site.stack.create_key("poison")
    hostile = b'{"tool_slug": "<script>alert(1)</script>\xe2\x80\xae", "status": "success"}'
    poison(site, "poison", [*(b"[%d" % number for number in range(30)), b'{"a": "\xff\xfe\x00"}', hostile])
    eventually("they are there", lambda: len(letters(site, key)) == 32)
    enter(page, site, key)
    page.get_by_role("link", name="Health").click()
    expect(section(page, "Warnings")).to_contain_text("32 dead letters in the last hour")
    table = section(page, "List of dead letters").get_by_role("table")
    expect(table.get_by_role("row")).to_have_count(26)
    page.get_by_role("button", name="Show more").click()
    expect(table.get_by_role("row")).to_have_count(33)
    expect(page.get_by_role("button", name="Show more")).to_have_count(0)
    expect(table).to_contain_text("<script>alert(1)</script>⟨U+202E⟩")
    # A link shows a colleague the same.
    table.get_by_role("button", name="missing_member").click()
    expect(table.get_by_role("row")).to_have_count(2)
    page.get_by_role("link", name="Remove: reason is missing_member").click()
    expect(table.get_by_role("row")).to_have_count(26)

    see_bytes(page, site, key)
    mend_and_replay(page, site, key, hostile.decode())


def see_bytes(page: Page, site: Site, key: str) -> None:
    (binary,) = [each["id"] for each in letters(site, key) if each["encoding"] == "base64"]
    page.goto(site.address("health", "poison", letter=binary))
    dialog = page.get_by_role("dialog", name="Dead letter")
    expect(dialog).to_contain_text("It is no UTF-8")
    dump = dialog.get_by_label("Hex dump")
    expect(dump).to_contain_text('7b 22 61 22 3a 20 22 ff fe 00 22 7d {"a": "..."}')
    with page.expect_download() as saved:
        dialog.get_by_role("button", name="Download the bytes").click()
    assert saved.value.path().read_bytes() == b'{"a": "\xff\xfe\x00"}'
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page).not_to_have_url(re.compile("letter="))
    page.go_back()
    expect(dialog).to_contain_text("It is no UTF-8")


def mend_and_replay(page: Page, site: Site, key: str, payload: str) -> None:
    (wanted,) = [each["id"] for each in letters(site, key) if each["payload"] == payload]
    page.goto(site.address("health", "poison", letter=wanted))
    dialog = page.get_by_role("dialog", name="Dead letter")
    table = section(page, "List of dead letters").get_by_role("table")
    expect(dialog).to_contain_text("An event needs tool_slug, status and duration_ms: add what is missing.")
    dialog.get_by_role("button", name="Replay …").click()
    dialog.get_by_role("button", name="Yes, send it").click()
    expect(dialog.get_by_role("alert")).to_contain_text("It still cannot become an event")
    dialog.get_by_label("As it is, or mended").fill(json.dumps(EVENT))
    dialog.get_by_role("button", name="Replay …").click()
    expect(dialog).to_contain_text("Send the mended body in its place?")
    dialog.get_by_role("button", name="No").click()
    assert not [each for each in letters(site, key) if each["replayed"]]
    dialog.get_by_role("button", name="Replay …").click()
    dialog.get_by_role("button", name="Yes, send it").click()
    expect(dialog).to_contain_text("It is in the logs now.")
    expect(dialog.get_by_role("link")).to_have_attribute("href", re.compile(r"^#/logs\?.*log="))
    expect(table.get_by_text("replayed")).to_have_count(1)
    # A log is there a moment before it is counted.
    assert site.stack.proved().proved
    usage = site.stack.get("/v1/usage", key=key).json()
    assert usage["totals"]["calls"] == 1
    page.goto(site.address("health", "poison", letter="never-was"))
    expect(dialog.get_by_role("alert")).to_contain_text("Dead letter not found")


def test_who_may_only_read_is_told_why_he_cannot_replay(page: Page, site: Site) -> None:
    """The way back sends events, so it takes a key that may."""
    made = json.loads(site.stack.toolledger("keys", "create", "--project", "poisoned", "--scope", "read", "--json"))["key"]
    poison(site, "poisoned", [b"no JSON"])
    eventually("it is there", lambda: site.stack.get("/v1/key", key=made).status_code == 200 and letters(site, made))
    enter(page, site, made)
    page.get_by_role("link", name="Health").click()
    section(page, "List of dead letters").get_by_title("Show it").click()
    dialog = page.get_by_role("dialog", name="Dead letter")
    expect(dialog.get_by_label("Text")).to_have_text("no JSON")
    expect(dialog.get_by_role("button", name="Replay")).to_be_disabled()
    expect(dialog).to_contain_text("This key may only read")
    assert page.locator("textarea").count() == 0
