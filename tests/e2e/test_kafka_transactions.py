"""Transactional producers of any client: what was aborted never counts, and marks, aborted and open ones hold nothing up."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from query_api.progress import progress
from tests.support.kafka_clients import CODECS, TRANSACTIONAL, KafkaClient, Sent, config, owned
from tests.support.kafka_truth import Books
from tests.support.pipeline import Pipeline, at_work, eventually

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with at_work(Path(tmp_path_factory.mktemp("transactions"))) as made:
        yield made


@pytest.fixture(params=TRANSACTIONAL)
def client(request: pytest.FixtureRequest, pipeline: Pipeline) -> Iterator[KafkaClient]:
    """Each kind of client in turn."""
    with KafkaClient(request.param, pipeline.kafka.address) as made:
        yield made


def settings(kind: str, name: str, codec: str = "none", *, timeout_ms: int = 60_000) -> dict[str, Any]:
    """Spell a transactional producer's settings as a client does."""
    spelt = {
        "confluent": {"transactional__id": name, "transaction__timeout__ms": timeout_ms},
        "aiokafka": {"transactional_id": name, "transaction_timeout_ms": timeout_ms},
        "kafka-python": {"transactional_id": name, "transaction_timeout_ms": timeout_ms},
    }
    return config(kind, codec, **spelt[kind])


def records(project: str, ids: list[str], *, partition: int | None = None) -> list[Sent]:
    return [
        Sent(
            value=json.dumps({"id": one, "tool_slug": "GMAIL_SEND", "status": "success", "duration_ms": 1}).encode(),
            headers=owned(project),
            partition=partition,
        )
        for one in ids
    ]


def freshness(pipeline: Pipeline) -> tuple[int, int]:
    """Return (complete until, epoch ms; records that are not proved) as the query service would say it."""
    heartbeats = pipeline.rows(
        "SELECT incarnation, kafka_partition, partitions, next_offset, end_offset, toUnixTimestamp64Milli(complete_until),"
        " toUnixTimestamp64Milli(reported_at) FROM progress"
        " ORDER BY reported_at DESC LIMIT 1 BY incarnation, kafka_partition"
    )
    found = progress(heartbeats, now_ms=now_ms())
    return found.complete_until_ms, sum(one.end_offset - one.next_offset for one in found.partitions)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def fresh(pipeline: Pipeline) -> None:
    """Wait until everything that was accepted before this moment is called complete."""
    at_ms = now_ms()
    eventually("complete until now", lambda: freshness(pipeline)[0] >= at_ms)


def test_what_was_aborted_never_counts(pipeline: Pipeline, client: KafkaClient) -> None:
    """Committed and aborted transactions in turn, of every codec, small and large, beside plain records in between."""
    books = Books(pipeline)
    project = f"aborted-{client.kind}"
    sent: list[str] = []
    with KafkaClient("confluent", pipeline.kafka.address) as plain:
        for codec in CODECS:
            for number, (end, count) in enumerate((("commit", 40), ("abort", 40), ("abort", 1), ("commit", 1), ("abort", 400))):
                ids = [f"{codec}-{number}-{each}" for each in range(count)]
                chosen = settings(client.kind, f"{project}-{codec}-{number}", codec)
                client.send(records(project, ids), transaction=end, **chosen)  # type: ignore[arg-type]
                beside = [f"{codec}-{number}-beside"]
                plain.send(records(project, beside))
                sent += ids * (end == "commit") + beside
    counted = books.counted()
    assert (counted.accepted, counted.duplicates, counted.dead_letters) == (len(sent), 0, 0)
    assert books.logs(project) == sorted(sent)
    assert books.calls(project) == len(sent)
    fresh(pipeline)


def test_what_was_aborted_counts_when_it_is_sent_again(pipeline: Pipeline, client: KafkaClient) -> None:
    """An aborted event makes no claim to its id, nor does the worker take what comes after it for a copy."""
    books = Books(pipeline)
    project = f"again-{client.kind}"
    ids = [f"{number}" for number in range(50)]
    for number, end in enumerate(("abort", "abort", "commit", "commit")):
        client.send(records(project, ids), transaction=end, **settings(client.kind, f"{project}-{number}"))  # type: ignore[arg-type]
    counted = books.counted()
    assert (counted.accepted, counted.duplicates) == (50, 50)
    assert books.logs(project) == sorted(ids)


def test_transactions_that_overlap_in_one_partition(pipeline: Pipeline) -> None:
    """Each client has one open at once in the same partition, and they end in another order than they began."""
    books = Books(pipeline)
    project = "overlap"
    partition = 2
    open_ones = [KafkaClient(kind, pipeline.kafka.address) for kind in TRANSACTIONAL]
    try:
        for one in open_ones:
            with one:
                pass  # skips where it cannot be had
        for number, one in enumerate(open_ones):
            ids = [f"open-{number}-{each}" for each in range(10)]
            chosen = settings(one.kind, f"{project}-{number}", "lz4", timeout_ms=2_000)
            one.send(records(project, ids, partition=partition), transaction="open", **chosen)
            with KafkaClient("confluent", pipeline.kafka.address) as other:
                between = [f"between-{number}-{each}" for each in range(10)]
                chosen = settings("confluent", f"{project}-between-{number}", "zstd")
                end = "commit" if number % 2 else "abort"
                other.send(records(project, between, partition=partition), transaction=end, **chosen)  # type: ignore[arg-type]
    finally:
        for one in open_ones:
            one.kill()
    books.counted()
    # Those that were left open end when their time is over.
    eventually("nothing is left", lambda: not pipeline.verify().lag_records)
    assert books.logs(project) == sorted(f"between-1-{each}" for each in range(10))
    fresh(pipeline)


def test_hanging_transactions_are_told_and_pass(pipeline: Pipeline) -> None:
    """While one of each client hangs, freshness stands before it, lag tells of it, and other partitions go on; then all do."""
    books = Books(pipeline)
    project = "hanging"
    fresh(pipeline)
    before_ms = now_ms()
    *held, free = range(pipeline.partitions)
    for kind, partition in zip(TRANSACTIONAL, held, strict=True):
        with KafkaClient(kind, pipeline.kafka.address) as client:
            chosen = settings(kind, f"{project}-{kind}", timeout_ms=15_000)
            never = records(project, [f"never-{kind}-a", f"never-{kind}-b"], partition=partition)
            client.send(never, transaction="open", **chosen)
            hung_ms = now_ms()
            client.kill()
    with KafkaClient("confluent", pipeline.kafka.address) as plain:
        for partition in held:
            plain.send(records(project, [f"behind-{partition}-{number}" for number in range(20)], partition=partition))
        plain.send(records(project, [f"elsewhere-{number}" for number in range(20)], partition=free))
    waiting = 22 * len(held)
    eventually("lag tells of them", lambda: freshness(pipeline)[1] >= waiting)
    query = f"SELECT count() FROM tool_executions WHERE project_id = '{project}' AND startsWith(id, 'elsewhere')"
    eventually("others go on", lambda: pipeline.rows(query) == [(20,)])
    until_ms, lag = freshness(pipeline)
    assert before_ms - 60_000 < until_ms <= hung_ms, "nothing behind them is called complete"
    assert lag >= waiting
    fresh(pipeline)
    assert freshness(pipeline)[1] == 0
    counted = books.counted()
    assert (counted.accepted, counted.duplicates, counted.dead_letters) == (20 * len(held) + 20, 0, 0)
    assert not [one for one in books.logs(project) if one.startswith("never")]


def test_a_worker_that_starts_over_transactions_finds_the_same(pipeline: Pipeline) -> None:
    """Killed in the midst of them, with aborted records in its open batch, the next one writes the same once."""
    books = Books(pipeline)
    project = "killed"
    sent = []
    with KafkaClient("confluent", pipeline.kafka.address) as client:
        for number in range(6):
            ids = [f"{number}-{each}" for each in range(200)]
            end = "abort" if number % 2 else "commit"
            client.send(records(project, ids), transaction=end, **settings("confluent", f"{project}-{number}", "lz4"))  # type: ignore[arg-type]
            sent += ids * (end == "commit")
            if number % 2:
                pipeline.workers[-1].end(9)  # type: ignore[arg-type]
                pipeline.start_worker()
    counted = books.counted()
    # Strays that were sent home before the kill are sent again, and are copies there.
    assert (counted.accepted, counted.dead_letters) == (len(sent), 0)
    assert books.logs(project) == sorted(sent)
    fresh(pipeline)
