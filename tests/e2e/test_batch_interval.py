"""Records that come in drops share batches; those of a backlog are written as fast as they can be."""

import json
import time

import pytest

from tests.support.pipeline import Pipeline, eventually

pytestmark = pytest.mark.real

INTERVAL_S = 1.5
RECEIPTS = "SELECT sum(receipts), sum(accepted) FROM usage_windows WHERE kind = 'receipt'"


def _events(salt: str, count: int) -> list[tuple[str, bytes]]:
    made = [{"id": f"{salt}-{n}", "tool_slug": "T", "status": "success", "duration_ms": 1} for n in range(count)]
    return [(str(event["id"]), json.dumps(event).encode()) for event in made]


def test_drops_share_batches_and_a_backlog_does_not_wait(pipeline: Pipeline) -> None:
    """A partition begins one batch an interval at the log's end, the first one at once; and all is counted."""
    pipeline.send(_events("backlog", 1_000), pack=1)
    # One that waited for an interval here would not come to an end.
    worker = pipeline.start_worker(TOOLLEDGER_BATCH_INTERVAL_MS="3600000", TOOLLEDGER_FETCH_RECORDS="100")
    report = pipeline.settled()
    assert report.findings == ()
    ((backlog_batches, accepted),) = pipeline.rows(RECEIPTS)
    assert accepted == report.rows == 1_000
    worker.end()

    worker = pipeline.start_worker(TOOLLEDGER_BATCH_INTERVAL_MS=str(int(INTERVAL_S * 1000)))
    began = time.monotonic()
    pipeline.send(_events("drops", 400), pack=1)
    eventually("all are counted", lambda: pipeline.rows(RECEIPTS)[0][1] == 1_400)
    elapsed_s = time.monotonic() - began
    batches = pipeline.rows(RECEIPTS)[0][0] - backlog_batches
    # The first at once, one an interval, and one for what came in since the last of these.
    assert batches <= pipeline.partitions * (elapsed_s / INTERVAL_S + 2)
    assert pipeline.settled().findings == ()
    worker.end()
