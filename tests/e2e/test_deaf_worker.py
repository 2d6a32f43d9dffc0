"""A worker whose consumer has stopped fetching, as aiokafka's does after a fault of its own, without a word to anybody."""

import json
from pathlib import Path

import pytest

from tests.support.pipeline import Pipeline, eventually

pytestmark = pytest.mark.real

# Loaded by every Python that finds it; the consumer's fetching fails once the file is there.
_FAULT = """
import os
from aiokafka.consumer.fetcher import Fetcher

works = Fetcher._get_actions_per_node

def fails(fetcher, assignment):
    if os.path.exists({flag!r}):
        raise KeyError("a fault of the library's")
    return works(fetcher, assignment)

Fetcher._get_actions_per_node = fails
"""


def calls(first: int) -> list[tuple[str, bytes]]:
    call = {"tool_slug": "GMAIL_SEND", "status": "success", "duration_ms": 1}
    return [(f"call-{number}", json.dumps({**call, "id": f"call-{number}"}).encode()) for number in range(first, first + 50)]


def test_a_worker_that_hears_nothing_any_more_ends(pipeline: Pipeline, tmp_path: Path) -> None:
    """So that it is started again: alive, it would keep its partitions, and their events would wait for ever."""
    flag = tmp_path / "fails"
    (tmp_path / "sitecustomize.py").write_text(_FAULT.format(flag=str(flag)))
    worker = pipeline.start_worker(PYTHONPATH=str(tmp_path))
    pipeline.send(calls(0))
    assert pipeline.settled().rows == 50
    flag.touch()
    pipeline.send(calls(50))
    eventually("the worker has ended", lambda: not worker.alive)
    assert worker.process.returncode == 1
    assert "fetching has ended" in worker.said()
    flag.unlink()
    pipeline.start_worker()
    report = pipeline.settled()
    assert report.findings == ()
    assert (report.accepted, report.rows, report.calls) == (100, 100, 100)
