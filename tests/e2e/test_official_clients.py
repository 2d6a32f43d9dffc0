"""The incumbent's official clients, unmodified, against the running stack: their answers equal a plain count over the input."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support import official_clients
from tests.support.client_api import (
    AWKWARD_IDS,
    FROM_MS,
    NAMES,
    TO_MS,
    awkward,
    first_calls,
    holds,
    newest_first,
    odd,
    pages,
    recorded,
    value_of,
)
from tests.support.client_site import Site
from tests.support.faulty_clickhouse import TIMEOUT_EXCEEDED, Fault, FaultyClickHouse
from tests.support.plain_http import HTTP

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

EVENTS = [*recorded(), *awkward()]
BY_ID = {event["id"]: event for event in EVENTS}
OTHERS = recorded("other-")[:60]
ODD = odd()
SPAN = {"from": FROM_MS, "to": TO_MS}
FILTERS = {
    "tool_slug": "AIRLINE_BOOK_RESERVATION",
    "toolkit_slug": "airline",
    "connected_account_id": "ca_4",
    "auth_config_id": "ac_2",
    "status": "failed",
    "user_id": "mia_li_3668",
    "session_id": EVENTS[100]["session_id"],
    "sandbox_id": "sb_1%",
    "request_id": EVENTS[7]["context"]["request_id"],
    "log_id": EVENTS[5]["id"],
}
GROUPS = ("tool_slug", "toolkit_slug", "connected_account_id", "user_id", "session_id")
# The asynchronous client speaks as the other one of its package does: it only shows that it does.
KINDS = tuple(kind for kind, names in NAMES.items() if names.search and kind != "rc22-async")
WITH_ORGANISATION = tuple(kind for kind in KINDS if NAMES[kind].org_summary)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if os.environ.get(official_clients.SKIP) == "no":
        pytest.skip(f"not run: {official_clients.HOW}")
    try:
        commands = official_clients.commands()
    except official_clients.RegistryUnreachable:
        pytest.skip(f"not run: {official_clients.HOW}")
    made = Site(tmp_path_factory.mktemp("clients"), commands)
    try:
        made.start(airline=EVENTS, other=OTHERS, odd=ODD)
        yield made
    finally:
        made.stop()


def test_that_no_registry_answers_is_told_from_a_failed_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a registry the clients are "not to be had", which is no error of theirs; a pin that does not exist is one."""
    monkeypatch.setenv("TOOLLEDGER_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert official_clients.main() == official_clients.UNREACHABLE
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(AssertionError, match="No matching distribution"):
        official_clients.main()


@pytest.mark.parametrize("kind", [*KINDS, "rc22-async"])
def test_paging_to_the_end_gives_each_log_once(site: Site, kind: str) -> None:
    """From an explicit `cursor: null` with `limit: 100.0` on, and by default twenty a page, until next_cursor is null."""
    api = site.api(kind)
    found = pages(lambda cursor: api.ask("search", body={"cursor": cursor, "limit": 100.0}), "logs", "next_cursor", None)
    assert [log["id"] for page in found for log in page] == newest_first(EVENTS)
    assert [len(page) for page in found[:-1]] == [100] * (len(found) - 1)
    first = api.ask("search", body={"filters": None, "time_range": None, "limit": None})
    assert first == api.ask("search")
    assert [log["id"] for log in first["logs"]] == newest_first(EVENTS)[:20]
    assert first["next_cursor"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", FILTERS)
def test_each_filter_finds_what_a_plain_comparison_finds(site: Site, kind: str, field: str) -> None:
    """Ten fields, four operators, alone and within a range of time."""
    api = site.api(kind)
    for operator in ("==", "!=", "contains", "not_contains"):
        wanted = FILTERS[field] if "=" in operator else FILTERS[field][1:].swapcase()
        matching = newest_first(event for event in EVENTS if holds(event, field, operator, wanted))
        filters = [{"field": field, "operator": operator, "value": wanted}]
        page = api.ask("search", body={"filters": filters, "limit": 100})
        assert [log["id"] for log in page["logs"]] == matching[:100]
        assert (page["next_cursor"] is None) == (len(matching) <= 100)
    low, high = EVENTS[300]["timestamp"], EVENTS[350]["timestamp"]
    filters = [
        {"field": field, "operator": "!=", "value": FILTERS[field]},
        {"field": "status", "operator": "==", "value": "success"},
    ]
    page = api.ask("search", body={"filters": filters, "time_range": {"from": low, "to": high}, "limit": 100})
    assert [log["id"] for log in page["logs"]] == newest_first(
        event
        for event in EVENTS
        if low <= event["timestamp"] < high and event["status"] == "success" and value_of(event, field) != FILTERS[field]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_log_in_full(site: Site, kind: str) -> None:
    """Data, timings, context, source and parent are those of the event, also where its id must be percent-encoded."""
    api = site.api(kind)
    failed = next(event for event in EVENTS if event["status"] == "failed" and "sandbox_id" in event)
    for name in (*AWKWARD_IDS, EVENTS[0]["id"], EVENTS[1]["id"], failed["id"]):
        event = BY_ID[name]
        log = api.ask("detail", name)
        assert (log["id"], log["type"], log["status"]) == (name, "tool.execution", event["status"])
        assert log["level"] == ("error" if event["status"] == "failed" else "info")
        assert log["data"] == event["data"]
        assert log["timings"] == {"start_time": event["timestamp"], "end_time": event["timestamp"] + event["duration_ms"]}
        assert log["context"] == {**event["context"], "session_id": event["session_id"]}
        assert log["source"] == event["source"]
        assert log["parent"] == event.get("parent")
        assert log["metrics"] == {"duration_ms": event["duration_ms"]}
        assert log["metadata"]["tool_slug"] == log["metadata"]["tool"]["slug"] == event["tool_slug"]
        assert log["metadata"]["credential_source"] == "custom_auth"
        assert log["metadata"].get("connected_account_id") == event.get("connected_account_id")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "js"])
def test_attributes_are_of_the_kinds_that_the_models_promise(site: Site, kind: str) -> None:
    """A timestamp is a datetime, durations are numbers, open metadata is read as attributes."""
    peek = ["logs.0.timestamp", "logs.0.metadata.tool_slug", "logs.0.metrics.duration_ms", "next_cursor"]
    api = site.api(kind)
    said = api.raw(api.names.search, body={"limit": 1}, peek=peek)
    newest = BY_ID[newest_first(EVENTS)[0]]
    assert [name for name, _ in said["peeked"]] == ["datetime", "str", "int", "str"]
    assert said["peeked"][1][1] == newest["tool_slug"]


@pytest.mark.parametrize("kind", KINDS)
def test_no_event_keeps_a_client_from_reading(site: Site, kind: str) -> None:
    """Whatever was taken of producers can be read by every client, the one that checks answers too, in both shapes."""
    api = site.api(kind, key="odd")
    assert [log["id"] for log in api.ask("search", body={"limit": 100})["logs"]] == newest_first(ODD)
    assert [log["id"] for log in api.ask("listing", body={"cursor": 0, "limit": 100})["data"]] == newest_first(ODD)
    for event in ODD:
        assert api.ask("detail", event["id"])["data"] == event["data"]
        assert api.ask("listed", event["id"])["actionId"] == event["tool_slug"]


def quantity(count: int) -> dict[str, Any]:
    return {"total_quantity": str(count), "event_count": count}


@pytest.mark.parametrize("kind", KINDS)
def test_a_summary_is_a_count(site: Site, kind: str) -> None:
    """Calls and sessions, with filters, explicit nulls, one entity alone, and nothing in an empty range."""
    api = site.api(kind)
    created = first_calls(EVENTS)
    whole = api.ask("summary", body=SPAN)
    assert whole["instant_charge"] == "0"
    assert whole["entities"]["tool_calls"] == quantity(len(EVENTS)) | {"unit": "count"}
    assert whole["entities"]["sessions"] == quantity(len(created)) | {"unit": "count"}
    users = ["mia_li_3668", EVENTS[0]["user_id"]]
    part = api.ask("summary", body={**SPAN, "filters": {"user_id": users, "session_id": None, "project_id": None}})
    assert part["entities"]["tool_calls"]["event_count"] == sum(event["user_id"] in users for event in EVENTS)
    assert part["entities"]["sessions"]["event_count"] == sum(event["user_id"] in users for event in created)
    assert list(api.ask("summary", body={**SPAN, "entity_types": ["sessions"]})["entities"]) == ["sessions"]
    empty = api.ask("summary", body={"from": FROM_MS, "to": FROM_MS})
    assert {entity["total_quantity"] for entity in empty["entities"].values()} == {"0"}
    # Without a range: the thirty days before now.
    assert set(api.ask("summary")["entities"]) == {"tool_calls", "sessions"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group_by", [*GROUPS, "sessions"])
def test_a_breakdown_is_a_count_by_group(site: Site, kind: str, group_by: str) -> None:
    """Each grouping in each order, both ways, with and without a limit; totals are of everything."""
    api = site.api(kind)
    entity, events = ("sessions", first_calls(EVENTS)) if group_by == "sessions" else ("tool_calls", EVENTS)
    member = "user_id" if group_by == "sessions" else group_by
    counted = Counter(event.get(member, "") for event in events)
    for order_by in ("key", "total_quantity", "event_count"):
        for direction in ("asc", "desc"):
            turn = -1 if direction == "desc" else 1
            ranked = sorted(counted.items(), key=lambda pair: pair[0].encode(), reverse=order_by == "key" and turn == -1)
            if order_by != "key":
                ranked.sort(key=lambda pair: turn * pair[1])
            for limit in (3, 1000):
                body = {**SPAN, "group_by": member, "order_by": order_by, "order_direction": direction, "limit": limit}
                found = api.ask("breakdown", entity, body=body)
                groups = [{"key": key, **quantity(count)} for key, count in ranked[:limit]]
                assert found == {"entity_type": entity, "unit": "count", **quantity(len(events)), "groups": groups}
    one = EVENTS[0]["session_id"]
    filtered = api.ask("breakdown", "tool_calls", body={**SPAN, "filters": {"session_id": [one]}})
    assert filtered["event_count"] == sum(event["session_id"] == one for event in EVENTS)
    assert {group["key"] for group in filtered["groups"]} == {
        event["tool_slug"] for event in EVENTS if event["session_id"] == one
    }


@pytest.mark.parametrize("kind", WITH_ORGANISATION)
def test_an_organisation_reads_all_its_projects(site: Site, kind: str) -> None:
    """Its key alone, grouped by project, and narrowed by a filter; a project that is not its own is not found."""
    api = site.api(kind, key="acme")
    summary = api.ask("org_summary", body=SPAN)
    assert summary["entities"]["tool_calls"]["event_count"] == len(EVENTS) + len(OTHERS)
    sessions = {"airline": len(first_calls(EVENTS)), "other": len(first_calls(OTHERS))}
    assert summary["entities"]["sessions"]["event_count"] == sum(sessions.values())
    for entity, counts in (("tool_calls", {"airline": len(EVENTS), "other": len(OTHERS)}), ("sessions", sessions)):
        found = api.ask("org_breakdown", entity, body={**SPAN, "group_by": "project_id"})
        assert {group["key"]: group["event_count"] for group in found["groups"]} == counts
    narrowed = api.ask("org_summary", body={**SPAN, "filters": {"project_id": ["other"]}})
    assert narrowed["entities"]["tool_calls"]["event_count"] == len(OTHERS)
    error = api.error("org_summary", body={**SPAN, "filters": {"project_id": ["of_somebody_else"]}})
    assert (error["class"], error["details"]["message"]) == ("NotFoundError", "Project not found")
    # Each route takes its own kind of key.
    assert site.api(kind).error("org_summary")["class"] == "PermissionDeniedError"
    # The JavaScript client does not even send an organisation's key there.
    assert api.error("search")["class"] == ("AuthenticationError" if kind == "js" else "PermissionDeniedError")


@pytest.mark.parametrize("kind", ["rc22", "js"])
def test_a_client_with_both_keys_sends_the_one_that_a_route_takes(site: Site, kind: str) -> None:
    """Two credentials on one request would be refused; each route gets its own."""
    project, organization = site.keys["other"], site.keys["acme"]
    if kind == "js":
        api = site.api(kind, key="other", orgApiKey=organization)
    else:
        api = site.api(kind, auth="AutoAuth", key={"project": project, "organization": organization})
    assert api.ask("summary", body=SPAN)["entities"]["tool_calls"]["event_count"] == len(OTHERS)
    assert api.ask("org_summary", body=SPAN)["entities"]["tool_calls"]["event_count"] == len(EVENTS) + len(OTHERS)


@pytest.mark.parametrize("kind", ["rc22", "rc22-strict"])
def test_a_scope_says_which_project_of_an_organisation(site: Site, kind: str) -> None:
    """An organisation's usage is of the project in x-project-id; beside a project's key its own changes nothing."""
    scope = {"organization_id": "acme", "project_id": "other"}
    narrowed = site.api(kind, key="acme", scope=scope).ask("org_summary", body=SPAN)
    assert narrowed["entities"]["tool_calls"]["event_count"] == len(OTHERS)
    assert len(site.api(kind, key="other", scope=scope).ask("search", body={"limit": 100})["logs"]) == len(OTHERS)
    unknown = site.api(kind, key="acme", scope={"project_id": "of_somebody_else"}).error("org_summary", body=SPAN)
    assert unknown["class"] == "NotFoundError"


@pytest.mark.parametrize("kind", [*KINDS, "rc22-async"])
def test_errors_become_the_clients_own(site: Site, kind: str) -> None:
    """Each status is its class, with details, a request id in both places, and a text that says what was wrong."""
    refused = [
        ("BadRequestError", 400, site.api(kind).error("search", body={"limit": 101})),
        ("BadRequestError", 400, site.api(kind).error("search", body={"cursor": "nonsense"})),
        ("BadRequestError", 400, site.api(kind).error("breakdown", "nonsense")),
        ("AuthenticationError", 401, site.api(kind, key="ak_of_nobody_at_all").error("search")),
        ("PermissionDeniedError", 403, site.api(kind, key="ingest").error("search")),
        ("NotFoundError", 404, site.api(kind).error("detail", "log_that_never_was")),
        ("NotFoundError", 404, site.api(kind).error("detail", OTHERS[0]["id"])),
    ]
    for name, status, error in refused:
        assert (error["class"], error["status"]) == (name, status)
        details = error["details"]
        assert (details["status"], details["code"]) == (status, 10_000 + status)
        assert details["slug"].startswith("HTTP_")
        assert details["request_id"] == error["headers"]["x-request-id"]
        assert details["message"] in error["text"]
        assert error["headers"]["x-ratelimit-window-size"] == "60s"
        if kind != "js":
            assert error["request_id"] == details["request_id"]
        if kind == "sdk":
            assert "composio.exceptions.ComposioError" in error["bases"]
            # It names every request itself, and finds the name again.
            assert len(error["request_id"]) == 32
    assert "ak_of_nobody" not in refused[3][2]["text"]


@pytest.mark.parametrize("kind", ["rc22", "js"])
def test_headers_that_clients_read(site: Site, kind: str) -> None:
    """The request id comes back as it was sent, the rate limit is told, and so is until when the answer is complete."""
    api = site.api(kind, **{"default_headers" if kind == "rc22" else "defaultHeaders": {"x-request-id": "of-mine.1"}})
    name = api.names.search if kind == "js" else "logs.with_raw_response.create_tool_execution"
    headers = api.raw(name, body={"limit": 1})["headers"]
    assert headers["x-request-id"] == "of-mine.1"
    assert int(headers["x-ratelimit"]) >= int(headers["x-ratelimit-remaining"]) > 0
    assert headers["x-ratelimit-window-size"] == "60s"
    assert headers["x-complete-until"].endswith("Z")
    assert not {"deprecation", "sunset", "x-should-retry", "retry-after"} & set(headers)


def test_a_rate_limit_becomes_the_clients_error(site: Site) -> None:
    """The request over the limit is a RateLimitError with details, and says when to come back, in less than a minute."""
    with site.query(rate_limit_per_minute="3") as url:
        for kind, key in (("rc22", "airline"), ("js", "other")):
            options = {"max_retries": 0} if kind == "rc22" else {"maxRetries": 0}
            api = site.api(kind, key=key, url=url, **options)
            for _ in range(3):
                api.ask("search", body={"limit": 1})
            error = api.error("search", body={"limit": 1})
            assert (error["class"], error["status"]) == ("RateLimitError", 429)
            assert error["details"]["slug"] == "HTTP_TooManyRequests"
            assert "Limit: 3 requests per 1 minutes" in error["text"]
            assert error["headers"]["x-ratelimit-remaining"] == "0"
            assert 1 <= int(error["headers"]["retry-after"]) < 60


def test_what_may_work_later_is_tried_again_when_it_was_asked_to(site: Site) -> None:
    """While ClickHouse is away a client waits for what Retry-After says before each new try, and then raises its own error."""
    with site.query(clickhouse="http://127.0.0.1:9", query_retry_after_s="1") as url:
        began = time.monotonic()
        error = site.api("rc22", url=url, max_retries=1).error("search")
        assert time.monotonic() - began >= 1
        assert (error["class"], error["status"], error["headers"]["retry-after"]) == ("InternalServerError", 503, "1")
        assert error["details"]["slug"] == "HTTP_ServiceUnavailable"
        # By the SDK of another language, without a new try.
        assert site.api("js", url=url, maxRetries=0).error("search")["class"] == "InternalServerError"


def test_a_question_that_is_too_slow_is_asked_once(site: Site) -> None:
    """A client would ask twice more after any 504, each time at the full cost, if it were not told that this is no use."""
    server = urlsplit(site.clickhouse)
    assert server.port is not None
    proxy = FaultyClickHouse(server.port)
    proxy.start()
    try:
        with site.query(clickhouse=proxy.url + server.path) as url, proxy.broken(Fault(how="error", code=TIMEOUT_EXCEEDED)):
            errors = [site.api(kind, url=url).error("listing", body={"cursor": 0}) for kind in ("rc22", "js", "old")]
            counted = HTTP.get(f"{url}/metrics").text
    finally:
        proxy.stop()
    for error in errors:
        assert (error["class"], error["status"]) == ("InternalServerError", 504)
        assert error["headers"]["x-should-retry"] == "false"
    assert errors[0]["details"]["slug"] == "Query_TooSlow"
    route = 'route="/api/v3.1/internal/action_execution/logs",service="query",status="504"'
    assert f"toolledger_http_seconds_count{{{route}}} {len(errors)}.0" in counted


@pytest.mark.parametrize("kind", NAMES)
def test_the_older_listing(site: Site, kind: str) -> None:
    """Page by number to the end, search by the command line's names, open one: what the newer routes say of the same logs."""
    api = site.api(kind)
    found = pages(lambda cursor: api.ask("listing", body={"cursor": cursor, "limit": 100}), "data", "nextCursor", None)
    assert [item["id"] for page in found for item in page] == newest_first(EVENTS)
    tools = ["AIRLINE_BOOK_RESERVATION", "airline_cancel_reservation"]
    searched = [{"field": "action_key", "operation": "==", "value": tool} for tool in tools]
    searched += [{"field": "execution_status", "operation": "==", "value": "failed"}]
    low, high = EVENTS[100]["timestamp"], EVENTS[700]["timestamp"]
    body = {"cursor": None, "from": low, "to": high, "limit": 1000, "case_sensitive": False, "search_params": searched}
    matching = [
        event
        for event in EVENTS
        if event["tool_slug"].lower() in (tools[0].lower(), tools[1])
        and event["status"] == "failed"
        and low <= event["timestamp"] < high
    ]
    page = api.ask("listing", body=body)
    assert [item["id"] for item in page["data"]] == newest_first(matching)
    event = matching[-1]
    item = next(item for item in page["data"] if item["id"] == event["id"])
    assert (item["actionKey"], item["appKey"], item["status"]) == (event["tool_slug"], "airline", "failed")
    assert (item["createdAt"], item["executionTime"], item["entityId"]) == (
        event["timestamp"],
        event["duration_ms"],
        event["user_id"],
    )
    log = api.ask("listed", event["id"])
    assert (log["actionLogId"], log["actionId"], log["status"]) == (event["id"], event["tool_slug"], "error")
    assert log["payloadReceived"] == event["data"]["request"]
    assert log["response"] == event["data"]["response"]
    assert log["totalDuration"] == str(event["duration_ms"])
    for error in (api.error("listed", "log_that_never_was"), api.error("listing", body={"cursor": 5})):
        assert error["class"] == ("NotFoundError" if error["status"] == 404 else "BadRequestError")


@pytest.mark.parametrize(
    ("kind", "logs"), [("rc22-strict", "_internal.logs"), ("sdk", "client.logs"), ("js", "logs"), ("old", "logs")]
)
def test_no_trigger_is_recorded_and_fields_are_listed(site: Site, kind: str, logs: str) -> None:
    """An empty list, a 404, and the fields that the older listing can be searched by."""
    api = site.api(kind)
    assert api.raw(f"{logs}.triggers.list", body={"time": "1d", "status": "all"})["result"] == {"data": []}
    assert api.raw(f"{logs}.triggers.retrieve", "tl_1")["error"]["class"] == "NotFoundError"
    if kind != "old":
        fields = api.raw(f"{logs}.tools.{'listFields' if kind == 'js' else 'list_fields'}")["result"]["fields"]
        assert {"action_key", "execution_status"} <= {field["id"] for field in fields["action_execution"]}
