"""The recorded tool calls through the whole stack: what comes back equals a plain count over the file, whatever happens."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pipeline import eventually
from tests.support.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

RECORDED = Path(__file__).parents[1] / "data" / "airline_tool_calls.ndjson"
LINES = RECORDED.read_bytes().splitlines()
EVENTS = [json.loads(line) for line in LINES]
# All of the recording, and nothing of anything else.
FROM_MS, TO_MS = 1793404800000, 1793923200000
SEARCH = "/api/v3.1/logs/tool_execution"
USAGE = "/api/v3.1/project/usage"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("recorded"))
    made.start()
    try:
        made.key = made.create_key("airline")
        answer = made.post("/v1/events", RECORDED.read_bytes(), **{"content-type": "application/x-ndjson"})
        assert answer.status_code == 202, answer.text
        assert answer.json()["accepted"] == len(EVENTS)
        assert made.proved().proved
        yield made
    finally:
        made.stop()


def pages(stack: Stack, limit: int, **body: Any) -> list[dict[str, Any]]:
    logs: list[dict[str, Any]] = []
    cursor = None
    while True:
        answer = stack.post(SEARCH, {"limit": limit, "cursor": cursor, **body})
        assert answer.status_code == 200, answer.text
        logs += answer.json()["logs"]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return logs


def everything(stack: Stack) -> dict[str, Any]:
    """Every answer that must not move, whatever happens to the stack."""
    span = {"from": FROM_MS, "to": TO_MS}
    return {
        "logs": pages(stack, 100),
        "summary": stack.post(f"{USAGE}/summary", span).json(),
        "by": {
            entity: stack.post(f"{USAGE}/{entity}", {**span, "limit": 1000}).json()
            for entity in ("tool", "toolkit", "user", "session")
        },
        "usage": [
            row for row in stack.get("/v1/usage", **span, group_by="tool_slug", interval="hour", limit=10_000).json()["rows"]
        ],
    }


def data_of(line: bytes) -> bytes:
    """Cut out the very bytes of an event's `data`."""
    start = line.index(b'"data":') + len(b'"data":')
    _, end = json.JSONDecoder().raw_decode(line[start:].decode())
    return line[start : start + end]


def test_every_log_comes_back_byte_for_byte(stack: Stack) -> None:
    """The export holds the very bytes of `data` that were sent, of all logs."""
    exported = stack.get("/v1/logs/export", data="true", **{"from": FROM_MS, "to": TO_MS}).content.splitlines()
    found = {json.loads(line)["id"]: line for line in exported}
    assert len(exported) == len(EVENTS)
    for line, event in zip(LINES, EVENTS, strict=True):
        assert data_of(line) in found[event["id"]]


def test_a_log_has_all_that_was_said(stack: Stack) -> None:
    """The detail of every sixth log, and of each that failed, holds the bytes of `data` and all that was said beside."""
    asked = [
        each for number, each in enumerate(zip(LINES, EVENTS, strict=True)) if number % 6 == 0 or each[1]["status"] == "failed"
    ]
    for line, event in asked:
        answer = stack.get(f"{SEARCH}/{event['id']}")
        assert answer.status_code == 200, answer.text
        assert data_of(line) in answer.content
        log = answer.json()
        assert log["data"] == event["data"]
        assert log["status"] == event["status"]
        assert log["metrics"]["duration_ms"] == event["duration_ms"]
        assert log["timings"] == {"start_time": event["timestamp"], "end_time": event["timestamp"] + event["duration_ms"]}
        assert log["context"] == {**event["context"], "session_id": event["session_id"]}
        assert log["source"] == event["source"]
        assert log["metadata"]["tool_slug"] == log["metadata"]["tool"]["slug"] == event["tool_slug"]
        assert log["metadata"]["user_id"] == event["user_id"]


@pytest.mark.parametrize("limit", [1, 7, 20, 100])
def test_paging_gives_each_id_once_in_order(stack: Stack, limit: int) -> None:
    """Newest first by timestamp, then id descending, each once, whatever the page's size."""
    ordered = sorted(EVENTS, key=lambda event: (event["timestamp"], event["id"].encode()), reverse=True)
    filters = [{"field": "status", "operator": "==", "value": "failed"}] if limit == 1 else []
    wanted = [event["id"] for event in ordered if not filters or event["status"] == "failed"]
    assert [log["id"] for log in pages(stack, limit, filters=filters)] == wanted


@pytest.mark.parametrize(
    ("entity", "member"),
    [("tool", "tool_slug"), ("toolkit", "toolkit_slug"), ("user", "user_id"), ("session", "session_id")],
)
def test_usage_equals_a_plain_count(stack: Stack, entity: str, member: str) -> None:
    """Calls by tool, toolkit, user and session are those of the file, in total and in each group."""
    answer = stack.post(f"{USAGE}/{entity}", {"from": FROM_MS, "to": TO_MS, "limit": 1000}).json()
    counted = Counter(event[member] for event in EVENTS)
    assert {group["key"]: group["event_count"] for group in answer["groups"]} == counted
    assert answer["event_count"] == len(EVENTS)
    assert answer["total_quantity"] == str(len(EVENTS))


# What each recorded failure says, read by hand: the rule behind it, whatever flight, price or card it was about.
SAYS = {
    "not available on date": "Error: flight <*> not available on date <*>",
    "does not add up": "Error: payment amount does not add up, total price is <*>, but paid <*>",
    "gift card balance": "Error: gift card balance is not enough",
    "certificate cannot": "Error: certificate cannot be used to update reservation",
    "payment method not": "Error: payment method not found",
    "payment method certificate": "Error: payment method <*> not found",
    "not enough seats": "Error: not enough seats on flight <*>",
    "not enough balance": "Error: not enough balance in payment method <*>",
}


def test_failures_are_grouped_as_by_hand(stack: Stack) -> None:
    """Each of the airline's refusals is one group a tool, all of them of its own making, with all its calls and users."""
    counted: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for event in EVENTS:
        if event["status"] == "failed":
            (said,) = [text for part, text in SAYS.items() if part in event["error"]["message"]]
            counted["other", event["tool_slug"], said].append(event)
    groups = stack.get("/v1/failures", **{"from": FROM_MS, "to": TO_MS}).json()["groups"]
    found = {(one["failure_class"], one["tool_slug"], one["message"]): (one["calls"], one["users"]) for one in groups}
    assert found == {key: (len(calls), len({call["user_id"] for call in calls})) for key, calls in counted.items()}
    assert sum(one["calls"] for one in groups) == 52


def test_any_range_in_milliseconds_is_exact(stack: Stack) -> None:
    """Ragged ranges count what lies in [from, to), with sessions by their first call and users by their keys."""
    stamps = sorted(event["timestamp"] for event in EVENTS)
    first_calls: dict[str, tuple[int, str]] = {}
    for event in EVENTS:
        first = (event["timestamp"], event["id"])
        first_calls[event["session_id"]] = min(first, first_calls.get(event["session_id"], first))
    for start, end in [(0, 1), (3, 400), (17, 18), (100, 897), (250, 251), (5, 500)]:
        from_ms, to_ms = stamps[start], stamps[end]
        inside = [event for event in EVENTS if from_ms <= event["timestamp"] < to_ms]
        totals = stack.get("/v1/usage", **{"from": from_ms, "to": to_ms}).json()["totals"]
        assert totals["calls"] == len(inside)
        assert totals["failed"] == sum(event["status"] == "failed" for event in inside)
        assert totals["active_users"] == len({event["user_id"] for event in inside})
        assert totals["active_sessions"] == len({event["session_id"] for event in inside})
        assert totals["sessions"] == sum(from_ms <= first < to_ms for first, _ in first_calls.values())


def test_percentiles_are_within_one_percent(stack: Stack) -> None:
    """p50, p95 and p99 of each tool lie within 1 % of the duration at that rank."""
    rows = stack.get("/v1/usage", **{"from": FROM_MS, "to": TO_MS}, group_by="tool_slug").json()["rows"]
    assert len(rows) == len({event["tool_slug"] for event in EVENTS})
    for row in rows:
        durations = sorted(event["duration_ms"] for event in EVENTS if event["tool_slug"] == row["tool_slug"])
        for name, q in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            exact = durations[max(1, math.ceil(q * len(durations))) - 1]
            assert row[name] == pytest.approx(exact, rel=0.01), (row["tool_slug"], name)


def test_sent_twice_no_number_moves(stack: Stack) -> None:
    """The second time all are duplicates: the receipts say so, and every answer is the same."""
    before, report = everything(stack), stack.proved()
    answer = stack.post("/v1/events", RECORDED.read_bytes(), **{"content-type": "application/x-ndjson"})
    assert answer.status_code == 202
    after = stack.proved()
    assert after.findings == ()
    assert (after.accepted, after.rows, after.calls) == (report.accepted, report.rows, report.calls)
    assert after.duplicates == report.duplicates + len(EVENTS)
    assert after.conflicts == report.conflicts
    assert everything(stack) == before


def test_stopped_and_started_the_answers_are_the_same(stack: Stack) -> None:
    """A clean stop and a start on the same data change nothing."""
    before = everything(stack)
    stack.stop()
    stack.start()
    eventually("the key is read again", lambda: stack.get("/v1/freshness").status_code == 200)
    assert everything(stack) == before
    assert stack.proved().proved


def test_a_worker_killed_in_the_middle_of_its_work_changes_nothing(stack: Stack) -> None:
    """kill -9 of the worker while new events arrive: it is started again, and old and new answers are exact."""
    before = everything(stack)
    key = stack.create_key("other")
    lines = [json.dumps({**event, "id": f"again-{event['id']}"}).encode() for event in EVENTS]
    for start in range(0, len(lines), 150):
        body = b"\n".join(lines[start : start + 150])
        assert stack.post("/v1/events", body, key=key, **{"content-type": "application/x-ndjson"}).status_code == 202
        if start == 300:
            assert stack.up is not None
            stack.up.parts["toolledger worker"].kill()
    report = stack.proved()
    assert report.findings == ()
    assert everything(stack) == before
    summary = stack.post(f"{USAGE}/summary", {"from": FROM_MS, "to": TO_MS}, key=key).json()
    assert summary["entities"]["tool_calls"]["event_count"] == len(EVENTS)
    # The one project's key never sees the other's logs.
    assert stack.get(f"{SEARCH}/again-{EVENTS[0]['id']}").status_code == 404


def test_a_project_that_stores_no_payloads_keeps_the_log_without_them(stack: Stack) -> None:
    """Once the rule is in force the log is there, its request and response are not; and it counts like any other."""
    key = stack.create_key("discreet")
    stack.toolledger("projects", "set", "discreet", "--store-payloads", "no")
    sent: list[str] = []

    def left_out() -> bool:
        # The worker follows the rule within a second; until then another call is entered.
        sent.append(f"discreet-{len(sent)}")
        body = json.dumps({**EVENTS[0], "id": sent[-1]}).encode()
        assert stack.post("/v1/events", body, key=key, **{"content-type": "application/json"}).status_code == 202
        eventually("the log is there", lambda: stack.get(f"{SEARCH}/{sent[-1]}", key=key).status_code == 200)
        return bool(stack.get(f"{SEARCH}/{sent[-1]}", key=key).json()["data"] == {})

    eventually("payloads are left out", left_out)
    # A log is there a moment before it is counted.
    assert stack.proved().proved
    totals = stack.get("/v1/usage", key=key, **{"from": FROM_MS, "to": TO_MS}).json()["totals"]
    assert totals["calls"] == len(sent)
