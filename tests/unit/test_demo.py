"""What `up --demo` makes of an answer to its recorded tool calls."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.api import Answer
from deploy.demo import import_recorded
from ingest.contract.errors import LedgerError


class Answering:
    """Stands in for `Api`: gives one answer."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self._answer = Answer(status=status, headers={}, body=json.dumps(body).encode())

    def send(self, *_: Any) -> Answer:
        return self._answer


def refused(*codes: str) -> dict[str, Any]:
    error = {"message": "none of 2 events was accepted", "suggested_fix": "", "slug": "X", "code": 1, "status": 400}
    return {"error": error, "rejected": [{"index": place, "code": code} for place, code in enumerate(codes)]}


def test_calls_past_the_demos_retention_do_not_keep_the_stack_from_starting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where retention has taken their time away they stay away; any other refusal is a fault."""
    recorded = tmp_path / "calls.ndjson"
    recorded.write_text("{}\n{}\n")
    assert import_recorded(Answering(400, refused("past_retention", "past_retention")), recorded) == 0  # type: ignore[arg-type]
    assert "past the project's retention" in capsys.readouterr().out
    with pytest.raises(LedgerError, match="none of 2 events was accepted"):
        import_recorded(Answering(400, refused("past_retention", "invalid_json")), recorded)  # type: ignore[arg-type]
