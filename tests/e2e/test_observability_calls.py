"""The calls that the incumbent's page on observability gives its users, word for word, against the running stack."""

import json
import shlex
import shutil
import subprocess
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.plain_http import HTTP
from tests.support.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

CALLS = (Path(__file__).parents[1] / "data" / "observability_calls.txt").read_text().strip().split("\n\n")
# What stands in them.
ADDRESS, KEY = "https://backend.composio.dev", "YOUR_PROJECT_API_KEY"
DAY = (1_744_848_000_000, 1_744_934_400_000)
WEEK = (1_744_243_200_000, 1_744_848_000_000)
LOG_ID = "log_-jRTWClpBoVo"


def made() -> list[dict[str, Any]]:
    """Calls at and around the borders of both ranges, and some of the last days; one of them the page's own."""
    now_ms = time.time_ns() // 1_000_000
    at = [border + shift for border in (*DAY, *WEEK) for shift in (-1, 0, 1)]
    at += [now_ms - hours * 3_600_000 for hours in range(1, 15)]
    slugs = ("GMAIL_SEND_EMAIL", "GMAIL_FETCH_EMAILS", "SLACK_SEND_MESSAGE")
    events = [
        {
            "id": f"log_{index}",
            "timestamp": timestamp,
            "tool_slug": slugs[index % 3],
            "status": "failed" if index % 2 else "success",
            "user_id": f"user_{123 + index % 4}",
            "session_id": f"ses_{index % 5}",
            "duration_ms": 100 + index,
        }
        for index, timestamp in enumerate(at)
    ]
    page = {
        "id": LOG_ID,
        "timestamp": "2025-04-17T10:25:00.000Z",
        "tool_slug": "GMAIL_SEND_EMAIL",
        "status": "failed",
        "message": "GMAIL_SEND_EMAIL failed: invalid recipient",
        "user_id": "user_123",
        "session_id": "ses_abc123",
        "duration_ms": 202,
        "data": {"request": {"payload": {"to": "x"}}, "response": {"body": {"error": "invalid recipient"}}},
        "context": {"trace_id": "t", "request_id": "r"},
        "source": {"framework": "openai", "language": "python", "host": "sdk"},
    }
    return [*events, page]


EVENTS = made()


def toolkit(event: dict[str, Any]) -> str:
    return str(event["tool_slug"]).split("_")[0].lower()


def between(span: tuple[int, int]) -> list[dict[str, Any]]:
    page_ms = 1_744_885_500_000
    return [event for event in EVENTS if span[0] <= (page_ms if event["id"] == LOG_ID else event["timestamp"]) < span[1]]


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    shared_stack.key = shared_stack.create_key("observed")
    assert shared_stack.post("/v1/events", json.dumps(EVENTS).encode()).json()["accepted"] == len(EVENTS)
    assert shared_stack.proved().proved
    return shared_stack


def call(stack: Stack, text: str) -> Any:
    """Make a call as it stands but for address and key, with curl where there is one."""
    assert stack.up is not None
    # As a shell reads it: a backslash at the end of a line joins it with the next.
    arguments = shlex.split(text.replace("\\\n", "").replace(ADDRESS, stack.up.ready["url"]).replace(KEY, stack.key))
    if shutil.which("curl"):
        done = subprocess.run([*arguments, "--silent", "--show-error", "--fail"], capture_output=True, check=True, timeout=60)
        return json.loads(done.stdout)
    url = next(one for one in arguments if one.startswith("http"))
    pairs = list(pairwise(arguments))
    headers = dict(value.split(": ", 1) for option, value in pairs if option == "-H")
    body = next((value for option, value in pairs if option == "-d"), None)
    answer = HTTP.request("GET" if body is None else "POST", url, headers=headers, content=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_calls_answer_what_the_page_says(stack: Stack) -> None:
    """Two searches, a log in full, a summary with `time_range`, and breakdowns by toolkit and by user."""
    found, log, summary, toolkits, users, failures = [call(stack, text) for text in CALLS]
    failed_mail = [event["id"] for event in between(DAY) if toolkit(event) == "gmail" and event["status"] == "failed"]
    assert Counter(one["id"] for one in found["logs"]) == Counter(failed_mail)
    assert found["next_cursor"] is None
    mine = next(one for one in found["logs"] if one["id"] == LOG_ID)
    metadata = {"tool_slug": "GMAIL_SEND_EMAIL", "toolkit_slug": "gmail", "user_id": "user_123", "session_id": "ses_abc123"}
    assert metadata.items() <= mine["metadata"].items()
    assert mine["timestamp"] == "2025-04-17T10:25:00.000Z"
    assert (mine["type"], mine["status"], mine["level"]) == ("tool.execution", "failed", "error")
    assert mine["message"] == "GMAIL_SEND_EMAIL failed: invalid recipient"
    assert mine["metrics"] == {"duration_ms": 202}
    assert log["data"] == EVENTS[-1]["data"]
    assert log["timings"] == {"start_time": 1_744_885_500_000, "end_time": 1_744_885_500_202}
    assert log["context"] == {"session_id": "ses_abc123", "trace_id": "t", "request_id": "r"}
    assert log["source"] == EVENTS[-1]["source"]
    assert summary["entities"]["tool_calls"] == {
        "unit": "count",
        "total_quantity": str(len(between(WEEK))),
        "event_count": len(between(WEEK)),
    }
    # Without a range: the thirty days before now.
    recent = between((1_750_000_000_000, 2**50))
    for answer, key in ((toolkits, toolkit), (users, lambda event: event["user_id"])):
        counted = Counter(key(event) for event in recent)
        assert {group["key"]: group["event_count"] for group in answer["groups"]} == counted
        assert answer["event_count"] == len(recent)
    assert (toolkits["entity_type"], users["entity_type"]) == ("toolkit", "user")
    of_user = [event["id"] for event in EVENTS if event["user_id"] == "user_123" and event["status"] == "failed"]
    assert Counter(one["id"] for one in failures["logs"]) == Counter(of_user)
