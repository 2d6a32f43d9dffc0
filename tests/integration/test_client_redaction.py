"""What may be secret leaves a client neither by wire nor by disk nor by log."""

import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.client import ConfigurationError
from tests.support.answering import Answering
from tests.support.recording import Make, call, making


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as running:
        yield running


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with making(tmp_path / "spool") as made:
        yield made


def test_secrets_leave_neither_by_wire_nor_by_disk_nor_by_log(
    server: Answering, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name and by look, in arguments, results and errors; payloads are in the log only where asked for."""
    monkeypatch.setenv("TOOLLEDGER_LOG_PAYLOADS", "yes")
    caplog.set_level(logging.DEBUG, "toolledger")
    away = make(spool=tmp_path / "away")
    for ledger in (make(server), away):
        with ledger.execution("A_TOOL", arguments={"password": "hunter2-secret"}) as execution:
            execution.result = {"headers": {"Authorization": "Bearer hunter2-secret"}}
            execution.fail(RuntimeError("refused: Bearer hunter2-secret"))
        ledger.flush(1)
    away.close(0)
    everything = json.dumps(server.accepted) + caplog.text
    everything += "".join(gzip.decompress(path.read_bytes()).decode() for path in (tmp_path / "away").iterdir())
    assert "A_TOOL" in caplog.text
    assert everything.count("[redacted]") >= 6
    assert "hunter2" not in everything
    assert "ak_test" not in caplog.text


def test_own_names_and_patterns_are_redacted_too(server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """By argument or setting; one that cannot be used is told of when the client is made."""
    monkeypatch.setenv("TOOLLEDGER_REDACT_NAMES", "colour")
    ledger = make(server, redact_patterns=["staff-[0-9]+"])
    ledger.record("A_TOOL", duration_ms=1, arguments={"colour": "red", "text": "ask staff-123"}, user_id="staff-9")
    assert ledger.flush()
    (event,) = server.accepted
    assert event["data"]["request"]["payload"] == {"colour": "[redacted]", "text": "ask [redacted]"}
    # What names a call and places it is no payload.
    assert event["user_id"] == "staff-9"
    with pytest.raises(ConfigurationError, match="pattern 1"):
        make(server, redact_patterns=["("])


def test_calls_that_cannot_be_looked_through_go_without_what_may_be_secret(
    server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in redaction costs the payload, not the count."""
    ledger = make(server)

    def fails(event: bytes) -> bytes:
        if b"odd" in event:
            raise RuntimeError
        return event

    monkeypatch.setattr(ledger.recorder._delivery, "_redact", fails)
    ledger.record("A_TOOL", duration_ms=1, arguments="odd", error="odd", metadata={"a": "odd"}, user_id="u")
    call(ledger)
    assert ledger.flush()
    odd, even = server.accepted
    assert (odd["status"], odd["user_id"], "data" in odd, "metadata" in odd) == ("failed", "u", False, False)
    assert "data" in even
