"""What the client says of itself, where, and how often."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.client import diagnostics

ROOT = Path(__file__).parents[2]

_PROGRAM = """
import logging, sys
if sys.argv[1:]:
    logging.basicConfig(level=logging.INFO, format="root %(name)s %(message)s")
from ingest.client import ToolLedger
for _ in range(2):
    ledger = ToolLedger(api_key="ak_secret", base_url="http://127.0.0.1:9", spool=False, close_timeout_s=0)
with ledger.session(user_id="u"), ledger.execution("A_TOOL", arguments={"words": "of a payload"}):
    pass
ledger.close()
"""


def said(*arguments: str, **environment: str) -> str:
    """Return what a program with a client writes to standard error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOOLLEDGER_")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stderr


def test_the_environment_asks_for_lines_on_standard_error() -> None:
    """With debug each call and session is told of, once, without payloads and keys."""
    lines = said(TOOLLEDGER_LOG_LEVEL="debug")
    assert lines.count("A_TOOL succeeded after") == 1
    assert "session ses_" in lines
    assert "payload" not in lines
    assert "ak_secret" not in lines


def test_without_being_asked_it_says_only_what_went_wrong() -> None:
    """Calls that were lost, and nothing else; silent means silent, and a level that is none changes nothing."""
    assert said().splitlines() == ["calls were dropped: closed (1 calls)"]
    assert said(TOOLLEDGER_LOG_LEVEL="silent") == ""
    assert said(TOOLLEDGER_LOG_LEVEL="loud").splitlines() == ["calls were dropped: closed (1 calls)"]


def test_an_application_that_configures_logging_gets_each_line_once() -> None:
    """By its own handlers and in its own form, at the level that the environment asks for."""
    lines = said("configured", TOOLLEDGER_LOG_LEVEL="debug").splitlines()
    assert all(line.startswith("root toolledger ") for line in lines)
    assert len([line for line in lines if "A_TOOL succeeded" in line]) == 1


def test_the_same_is_said_once_in_a_while_with_what_it_was_about(caplog: pytest.LogCaptureFixture) -> None:
    """Numbers add up over the times it was not said; other things are said meanwhile."""
    now_s = [0.0]
    seldom = diagnostics.Seldom(lambda: now_s[0])
    with caplog.at_level(logging.WARNING, "toolledger"):
        for events in (1, 2, 3):
            seldom.warn("lost: %s", "why", events=events)
        seldom.warn("something else")
        now_s[0] = 31
        seldom.warn("lost: %s", "why", events=4)
    assert [record.getMessage() for record in caplog.records] == [
        "lost: why (1 calls)",
        "something else",
        "lost: why (9 calls)",
    ]
