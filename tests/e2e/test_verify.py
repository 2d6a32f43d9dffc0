"""`verify` finds what was done by hand behind the ledger's back, and says nothing beside live traffic."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_ledger_crashes import recorded
from tests.support.pipeline import Pipeline

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    made = Pipeline(Path(tmp_path_factory.mktemp("verify")))
    try:
        made.start()
        made.start_worker()
        made.send(recorded(300, salt="a"), pack=10)
        assert made.settled().findings == ()
        yield made
    finally:
        made.stop()


def kinds(pipeline: Pipeline) -> set[str]:
    return {finding.kind for finding in pipeline.verify().findings}


def test_it_says_nothing_while_events_arrive(pipeline: Pipeline) -> None:
    """Batches land between its questions, and none of them is a finding."""
    for number in range(5):
        pipeline.send(recorded(200, salt=f"live{number}"), pack=5)
        assert pipeline.verify().findings == ()
    assert pipeline.settled().accepted == 1300


def test_it_finds_what_was_done_by_hand(pipeline: Pipeline) -> None:
    """A row deleted, a usage row doubled, a receipt removed: each is found, by its own name."""
    pipeline.settled()
    ids = pipeline.rows("SELECT id FROM tool_executions LIMIT 1")[0][0]
    pipeline.rows(f"ALTER TABLE tool_executions DELETE WHERE id = '{ids}' SETTINGS mutations_sync = 2")
    assert {"missing_rows", "usage_differs"} <= kinds(pipeline)
    receipt = (
        "kind = 'receipt' AND (kafka_partition, first_offset) IN (SELECT kafka_partition, max(first_offset) FROM usage_windows"
        " WHERE kind = 'receipt' AND first_offset < (SELECT max(first_offset) FROM usage_windows) GROUP BY 1 LIMIT 1)"
    )
    pipeline.rows(f"INSERT INTO usage_windows SELECT * FROM usage_windows WHERE {receipt}")
    assert "doubled_receipt" in kinds(pipeline)
    pipeline.rows(
        f"ALTER TABLE usage_windows DELETE WHERE {receipt} SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1"
    )
    assert kinds(pipeline) & {"gap", "surplus_rows", "missing_rows", "usage_differs"}
    first = "kind = 'receipt' AND kafka_partition = 1 AND first_offset = 0"
    pipeline.rows(f"ALTER TABLE usage_windows DELETE WHERE {first} SETTINGS mutations_sync = 2")
    pipeline.rows("INSERT INTO usage_windows SELECT * FROM usage_windows WHERE kind = 'user_hour' LIMIT 1")
    assert "usage_differs" in kinds(pipeline)
