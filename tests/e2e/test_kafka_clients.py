"""Straight to Kafka from any client, unmodified: however it writes, each event is a log and a counted call exactly once."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest.contract.partitioning import event_key
from tests.support.kafka_clients import CODECS, KCAT, KINDS, KafkaClient, Sent, config, owned
from tests.support.kafka_truth import Books, Counted
from tests.support.pipeline import Pipeline, at_work

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with at_work(Path(tmp_path_factory.mktemp("clients"))) as made:
        yield made


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, pipeline: Pipeline) -> Iterator[KafkaClient]:
    """Each kind of client in turn."""
    with KafkaClient(request.param, pipeline.kafka.address) as made:
        yield made


def event(event_id: str | None, **members: Any) -> bytes:
    made = {"tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 7, "user_id": "u", **members}
    return json.dumps(made if event_id is None else {"id": event_id, **made}).encode()


def forms(ids: Sequence[str], **members: Any) -> list[bytes]:
    """Write events as values of every form: singles, arrays and lines."""
    third = len(ids) // 3
    singles = [event(one, **members) for one in ids[:third]]
    array = b"[" + b", ".join(event(one, **members) for one in ids[third : 2 * third]) + b"]"
    lines = b"\r\n".join(event(one, **members) for one in ids[2 * third :]) + b"\n"
    return [*singles, array, lines]


def test_every_codec_form_and_key(pipeline: Pipeline, client: KafkaClient) -> None:
    """Singles, arrays and NDJSON, with each codec, with keys and without, the project in the header or in the body."""
    books = Books(pipeline)
    project = f"forms-{client.kind}"
    sent: list[str] = []
    for codec in CODECS:
        records: list[Sent] = []
        for way, headers, members in (("header", owned(project), {}), ("body", [], {"project_id": project})):
            for keyed in (True, False):
                ids = [f"{codec}-{way}-{keyed}-{number}" for number in range(30)]
                sent += ids
                values = forms(ids, **members)
                keys = [event_key(project, one) if keyed else None for one in [*ids[: len(values) - 2], "array", "lines"]]
                records += [Sent(value=value, key=key, headers=headers) for value, key in zip(values, keys, strict=True)]
        client.send(records, **config(client.kind, codec))
    assert books.counted() == Counted(
        accepted=len(sent), duplicates=0, dead_letters=0, forwarded=(strays := books.strays(project))
    )
    assert strays > 0
    assert books.logs(project) == sorted(sent)
    assert books.calls(project) == len(sent)


@pytest.mark.parametrize(
    "partitioner",
    ["consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random", "random", "sticky"],
)
def test_any_partitioner(pipeline: Pipeline, partitioner: str) -> None:
    """With murmur2 and the recommended key an event lands at home; with another it is sent home, and counts once."""
    books = Books(pipeline)
    project = f"partitioner-{partitioner}"
    ids = [f"{partitioner}-{number}" for number in range(200)]
    keyed = partitioner != "sticky"
    settings = {"partitioner": partitioner} if keyed else {"sticky__partitioning__linger__ms": 5}
    with KafkaClient("confluent", pipeline.kafka.address) as client:
        client.send(
            [Sent(value=event(one), key=event_key(project, one) if keyed else None, headers=owned(project)) for one in ids],
            **config("confluent", "lz4", **settings),
        )
    strays = books.strays(project)
    assert books.counted() == Counted(accepted=len(ids), duplicates=0, dead_letters=0, forwarded=strays)
    assert (strays == 0) == partitioner.startswith("murmur2")
    assert books.logs(project) == sorted(ids)


@pytest.mark.parametrize("kind", ["aiokafka", "kafka-python", "kafka-python-ng"])
def test_the_partitioner_of_these_clients_is_home(pipeline: Pipeline, kind: str) -> None:
    """Their default for a key is murmur2, so that the recommended key spares the way home."""
    books = Books(pipeline)
    project = f"home-{kind}"
    with KafkaClient(kind, pipeline.kafka.address) as client:
        client.send([Sent(value=event(f"{n}"), key=event_key(project, f"{n}"), headers=owned(project)) for n in range(100)])
    assert books.counted() == Counted(accepted=100, duplicates=0, dead_letters=0, forwarded=0)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("confluent", {"enable__idempotence": True}),
        ("kcat", {"enable__idempotence": "true"}),
        ("aiokafka", {"enable_idempotence": True}),
        ("kafka-python", {"enable_idempotence": True}),
    ],
)
def test_idempotent_producers_and_copies(pipeline: Pipeline, kind: str, settings: dict[str, Any]) -> None:
    """What an idempotent producer sends twice, to wherever, counts once; an id of the worker's making is no copy of another."""
    books = Books(pipeline)
    project = f"copies-{kind}"
    ids = [f"{number}" for number in range(60)]
    with KafkaClient(kind, pipeline.kafka.address) as client:
        for partition in (None, 0, 3):
            client.send(
                [Sent(value=event(one), headers=owned(project), partition=partition) for one in ids],
                **config(kind, "zstd", **settings),
            )
        client.send([Sent(value=event(None), headers=owned(project))] * 5, **config(kind, "gzip", **settings))
    strays = books.strays(project)
    assert books.counted() == Counted(accepted=65, duplicates=120, dead_letters=0, forwarded=strays)
    logs = books.logs(project)
    assert set(ids) <= set(logs)
    assert len(set(logs)) == 65


def test_the_time_is_the_brokers(pipeline: Pipeline, client: KafkaClient) -> None:
    """A client's own record time is nothing to go by: an event without a timestamp gets that of its acceptance."""
    books = Books(pipeline)
    project = f"times-{client.kind}"
    times = [0, 1, 4_102_444_800_000] if client.kind != KCAT else [None]
    records = [Sent(value=event(f"{at}"), headers=owned(project), timestamp_ms=at) for at in times]
    client.send(records)
    assert books.counted().accepted == len(times)
    (ages,) = pipeline.rows(
        "SELECT min(now64(3) - timestamp) >= 0, max(now64(3) - timestamp) < 600 FROM tool_executions"
        f" WHERE project_id = '{project}'"
    )
    assert tuple(map(bool, ages)) == (True, True)
