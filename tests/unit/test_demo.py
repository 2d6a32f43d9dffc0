"""What `up --demo` makes of an answer to its recorded tool calls."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.api import Answer
from deploy.demo import RECORDED, import_recorded
from ingest.contract.errors import LedgerError
from query_api.usage.grains import DAY_MS


class Answering:
    """Stands in for `Api`: gives one answer."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self._answer = Answer(status=status, headers={}, body=json.dumps(body).encode())
        self.sent: list[list[dict[str, Any]]] = []

    def send(self, _method: str, _path: str, body: bytes, _headers: dict[str, str]) -> Answer:
        self.sent.append([json.loads(line) for line in body.splitlines()])
        return self._answer


def refused(*codes: str) -> dict[str, Any]:
    error = {"message": "none of 2 events was accepted", "suggested_fix": "", "slug": "X", "code": 1, "status": 400}
    return {"error": error, "rejected": [{"index": place, "code": code} for place, code in enumerate(codes)]}


def test_calls_past_the_demos_retention_do_not_keep_the_stack_from_starting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where retention has taken their time away they stay away; any other refusal is a fault."""
    recorded = tmp_path / "calls.ndjson"
    recorded.write_text('{"timestamp":1}\n{"timestamp":2}\n')
    past = Answering(400, refused("past_retention", "past_retention"))
    assert import_recorded(past, tmp_path, recorded) == 0  # type: ignore[arg-type]
    assert "past the project's retention" in capsys.readouterr().out
    with pytest.raises(LedgerError, match="none of 2 events was accepted"):
        import_recorded(Answering(400, refused("past_retention", "invalid_json")), tmp_path, recorded)  # type: ignore[arg-type]


def test_the_recorded_calls_end_in_the_day_before_the_first_start_and_stay_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole days are added, or taken away where the clock is behind; a later start sends the very same times."""
    calls = [json.loads(line) for line in RECORDED.read_bytes().splitlines()]
    last_ms = max(call["timestamp"] for call in calls)
    starts = {
        "later": last_ms + 400 * DAY_MS + 5,
        "at once": last_ms,
        "before": last_ms - 1,
        "long before": last_ms - 90 * DAY_MS,
    }
    for name, now_ms in starts.items():
        api, data = Answering(202, {"ids": []}), tmp_path / name
        data.mkdir()
        for start_ms in (now_ms, now_ms + 40 * DAY_MS):
            monkeypatch.setattr("time.time_ns", lambda start_ms=start_ms: start_ms * 1_000_000)
            import_recorded(api, data)  # type: ignore[arg-type]
        first, second = api.sent
        assert first == second
        assert now_ms - DAY_MS < max(call["timestamp"] for call in first) <= now_ms
        moved = {(sent["timestamp"] - call["timestamp"]) / DAY_MS for sent, call in zip(first, calls, strict=True)}
        assert len(moved) == 1
        assert moved.pop().is_integer()
        assert [{**sent, "timestamp": 0} for sent in first] == [{**call, "timestamp": 0} for call in calls]
