"""Made-up tool calls: valid, repeatable, and with every kind of failure people look for."""

import json
from collections import Counter

from deploy.simulator import Simulator
from ingest.contract.event import check_timestamp, decode_event, timestamp_ms
from processors.enrich import failure_of

_NOW_MS = 1_795_000_000_000


def _events(seed: int, count: int) -> list[dict]:
    simulator = Simulator(seed)
    return [simulator.next(_NOW_MS + 200 * number) for number in range(count)]


def test_every_made_up_call_is_a_valid_event() -> None:
    for event in _events(7, 2_000):
        decoded = decode_event(json.dumps(event).encode())
        assert decoded.timestamp is not None
        check_timestamp(timestamp_ms(decoded.timestamp), accepted_ms=_NOW_MS + 1_000_000)


def test_the_same_seed_gives_the_same_calls_and_another_seed_others() -> None:
    assert _events(7, 200) == _events(7, 200)
    assert _events(7, 200) != _events(8, 200)


def test_ids_never_repeat() -> None:
    events = _events(7, 5_000)
    assert len({event["id"] for event in events}) == len(events)


def test_the_documented_failure_patterns_all_occur_among_mostly_good_calls() -> None:
    events = _events(7, 5_000)
    classes = Counter(failure_of(decode_event(json.dumps(event).encode()))[4] for event in events)
    assert classes.keys() >= {
        "unauthorized", "forbidden", "invalid_input", "tool_not_found", "no_connected_account", "rate_limited",
        "upstream_error", "timeout",
    }  # fmt: skip
    assert 0.85 < classes[""] / len(events) < 0.97


def test_there_are_several_toolkits_users_and_sessions_of_several_calls() -> None:
    events = _events(7, 2_000)
    assert len({event["toolkit_slug"] for event in events}) >= 5
    assert len({event["user_id"] for event in events}) >= 10
    sessions = Counter(event["session_id"] for event in events)
    assert 2 <= len(events) / len(sessions) <= 14
    owners = {(event["session_id"], event["user_id"]) for event in events}
    assert len(owners) == len(sessions)
