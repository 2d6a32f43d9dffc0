"""Whatever any client writes: what cannot be an event is a dead letter with its bytes, and its neighbours go on."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ingest.contract.event import EVENT_BYTES_MAX
from ingest.contract.topics import HEADER_FIRST_ACCEPTED_MS, HEADER_FORWARDED_AMONG, HEADER_REPLAY_OF, RECORD_BYTES_MAX
from tests.support.kafka_clients import KINDS, KafkaClient, Sent, config, owned
from tests.support.kafka_truth import Books
from tests.support.pipeline import Pipeline, at_work

pytestmark = pytest.mark.real

_MIB = 1024 * 1024
OURS = (HEADER_FIRST_ACCEPTED_MS, HEADER_FORWARDED_AMONG, HEADER_REPLAY_OF)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with at_work(Path(tmp_path_factory.mktemp("rubbish"))) as made:
        yield made


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest, pipeline: Pipeline) -> Iterator[KafkaClient]:
    """Each kind of client in turn."""
    with KafkaClient(request.param, pipeline.kafka.address) as made:
        yield made


def event(event_id: str, **members: object) -> bytes:
    return json.dumps({"id": event_id, "tool_slug": "GMAIL_SEND", "status": "success", "duration_ms": 1, **members}).encode()


def reasons(pipeline: Pipeline, project: str) -> list[tuple[str, int]]:
    """(reason, bytes kept) of a project's dead letters, every row."""
    return list(
        pipeline.rows(
            f"SELECT reason, length(payload) FROM dead_letters WHERE project_id = '{project}' ORDER BY reason, length(payload)"
        )
    )


def still_at_work(pipeline: Pipeline, workers: int) -> None:
    """It was the same worker all along: none died of what it read."""
    assert len(pipeline.workers) == workers
    assert all(worker.alive for worker in pipeline.workers)
    assert "worker_stopped" not in pipeline.workers[-1].said()


def surrounded(project: str, odd: Sequence[Sent], *, partition: int) -> tuple[list[Sent], list[str]]:
    """Put a good event before and behind each odd record of a partition."""
    ids = [f"good-{number}" for number in range(len(odd) + 1)]
    good = [Sent(value=event(one), headers=owned(project), partition=partition) for one in ids]
    return [good[0], *[each for pair in zip(odd, good[1:], strict=True) for each in pair]], ids


def test_null_and_empty_values(pipeline: Pipeline, client: KafkaClient) -> None:
    """A tombstone deletes nothing, and is no event; nor is a value of nothing, or of white space."""
    books = Books(pipeline)
    project = f"empty-{client.kind}"
    # A tombstone has a key in every client, and kcat cannot send nothing without one.
    values = [b" \n\t", b"[]", b"null", b"{}", b"\r\n"] + ([b""] if client.kind != "kcat" else [])
    odd = [Sent(value=value, headers=owned(project), partition=1) for value in values]
    odd.append(Sent(value=None, key=f"{project}/good-0".encode(), headers=owned(project), partition=1))
    records, ids = surrounded(project, odd, partition=1)
    client.send(records, **config(client.kind, "lz4"))
    counted = books.counted()
    assert books.logs(project) == sorted(ids)
    found = [reason for reason, _ in reasons(pipeline, project)]
    # An empty array holds no events, and nothing that would be one.
    assert counted.dead_letters == len(found) == len(odd) - 1
    assert found.count("record_empty") == len(odd) - 3
    still_at_work(pipeline, 1)


def test_headers_and_keys_of_any_kind(pipeline: Pipeline, client: KafkaClient) -> None:
    """Headers without a value, twice, of foreign names, no valid project; keys of any bytes: the event is judged alone."""
    books = Books(pipeline)
    project = f"headers-{client.kind}"
    # kafka-python itself cannot write one.
    bare: list[tuple[str, bytes | None]] = (
        [] if client.kind.startswith("kafka-python") else [("project_id", None), ("other", None)]
    )
    odd = [
        Sent(value=event("bare", project_id=project), headers=bare),
        Sent(value=event("bare-first"), headers=[*bare, *owned(project)]),
        Sent(value=event("bare-ours"), headers=[*owned(project), *[(name, None) for name in OURS if bare]]),
        Sent(value=event("twice"), headers=[*owned("another"), *owned(project)]),
        Sent(value=event("foreign"), headers=[*owned(project), ("traceparent", b"00-1-2-03"), ("häder", b"\xc3\xa4")]),
        Sent(value=event("ours"), headers=[*owned(project), ("first_accepted_ms", b"soon"), ("forwarded_among", b"-1")]),
        Sent(value=event("wrong"), headers=owned("no/project")),
        Sent(value=event("missing")),
        Sent(value=event("key"), key=b"\xff\xfe\x01", headers=owned(project)),
        Sent(value=b"\xff\xfe", key=b"\xff\xfe\x01", headers=owned(project)),
        Sent(value=event("long"), key=b"k" * 100_000, headers=owned(project)),
    ]
    client.send(odd, **config(client.kind, "snappy"))
    counted = books.counted()
    assert books.logs(project) == sorted(["bare", "bare-first", "bare-ours", "twice", "foreign", "ours", "key", "long"])
    assert counted.dead_letters == 3
    still_at_work(pipeline, 1)


def test_rubbish(pipeline: Pipeline, client: KafkaClient) -> None:
    """Binary, cut, wrong and mixed values, between good ones of the same partition."""
    books = Books(pipeline)
    project = f"rubbish-{client.kind}"
    values = {
        bytes(range(0x80, 0x100)): "invalid_encoding",
        b'{"tool_slug": "GMA': "invalid_json",
        b"[" + event("cut") + b",": "invalid_json",
        b"<html></html>": "invalid_json",
        b'"a string"': "invalid_member",
        b"17": "invalid_member",
        event("odd", status="odd"): "unknown_status",
        event("never", duration_ms=-1): "invalid_member",
        event("old", timestamp=0): "timestamp_out_of_range",
        event("when", timestamp="yesterday"): "timestamp_unreadable",
        b"[" * 5_000: "invalid_json",
    }
    odd = [Sent(value=value, headers=owned(project), partition=2) for value in values]
    mixed = b"[" + event("in-a") + b"," + event("in-x", status="odd") + b"," + event("in-b") + b"]"
    lines = b"\n".join([event("line-a"), b"{broken", event("line-b")])
    odd += [Sent(value=value, headers=owned(project), partition=2) for value in (mixed, lines)]
    records, ids = surrounded(project, odd, partition=2)
    client.send(records, **config(client.kind, "gzip"))
    counted = books.counted()
    assert books.logs(project) == sorted([*ids, "in-a", "in-b", "line-a", "line-b"])
    found = [reason for reason, _ in reasons(pipeline, project)]
    assert found == sorted([*values.values(), "unknown_status", "invalid_json"])
    assert counted.dead_letters == len(found)
    still_at_work(pipeline, 1)


@pytest.mark.parametrize("kind", ["confluent", "aiokafka", "kafka-python"])
def test_oversized_records(pipeline: Pipeline, kind: str) -> None:
    """An event beyond its limit is a dead letter with all its bytes; a record beyond Kafka's limit never comes in."""
    books = Books(pipeline)
    project = f"large-{kind}"
    large = event("large", data={"request": {"x": "y" * EVENT_BYTES_MAX}})
    fits = event("fits", data={"request": {"x": "y" * (EVENT_BYTES_MAX - 200)}})
    room = {
        "confluent": {"message__max__bytes": 8 * _MIB},
        "aiokafka": {"max_request_size": 8 * _MIB},
        "kafka-python": {"max_request_size": 8 * _MIB},
    }[kind]
    with KafkaClient(kind, pipeline.kafka.address) as client:
        chosen = config(kind, "none", **room)
        odd = [Sent(value=value, headers=owned(project), partition=3) for value in (large, fits)]
        records, ids = surrounded(project, odd, partition=3)
        client.send(records, **chosen)
        refused = client.try_to_send([Sent(value=b"x" * (RECORD_BYTES_MAX + _MIB), headers=owned(project))], **chosen)
    assert "large" in refused.lower() or "size" in refused.lower(), refused
    counted = books.counted()
    assert books.logs(project) == sorted([*ids, "fits"])
    assert reasons(pipeline, project) == [("event_too_large", len(large))]
    assert counted.dead_letters == 1
    still_at_work(pipeline, 1)


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_what_compresses_well(pipeline: Pipeline, codec: str) -> None:
    """Kafka's limit is of the compressed batch: an array far larger than it comes in, and each of its events counts."""
    books = Books(pipeline)
    project = f"dense-{codec}"
    ids = [f"dense-{number}" for number in range(200)]
    filler = {"request": {"x": "y" * 160_000}}
    array = b"[" + b",".join(event(one, data=filler) for one in ids) + b"]"
    assert len(array) > 4 * RECORD_BYTES_MAX
    single = event("huge", data={"request": {"x": "z" * (24 * _MIB)}})
    with KafkaClient("confluent", pipeline.kafka.address) as client:
        chosen = config("confluent", codec, message__max__bytes=64 * _MIB)
        records, good = surrounded(project, [Sent(value=array, headers=owned(project), partition=0)], partition=0)
        client.send([*records, Sent(value=single, headers=owned(project), partition=0)], **chosen)
    counted = books.counted()
    assert books.logs(project) == sorted([*ids, *good])
    assert reasons(pipeline, project) == [("event_too_large", len(single))]
    assert counted.dead_letters == 1
    still_at_work(pipeline, 1)


def test_a_header_name_that_is_no_text(pipeline: Pipeline) -> None:
    """A name that is not UTF-8 is nobody's; it must not stop the partition."""
    books = Books(pipeline)
    project = "names"
    with KafkaClient("kcat", pipeline.kafka.address) as client:
        headers = [*owned(project), ("\udcff\udcfe", b"x")]
        client.send([Sent(value=event("odd"), headers=headers, partition=1)])
        client.send([Sent(value=event("good"), headers=owned(project), partition=1)])
    assert books.counted().accepted == 2
    assert books.logs(project) == ["good", "odd"]
    still_at_work(pipeline, 1)
