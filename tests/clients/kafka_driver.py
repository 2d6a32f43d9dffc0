"""Send records with a Kafka client and say where they went; runs in the client's own environment.

A line in: {"kind", "kafka", "topic", "config": as the client spells it, "transaction": "commit" | "abort" | "open" | null,
"records": [{"value", "key", "headers": [[name, value]], "partition", "timestamp_ms"}]}; bytes are base64, null is null.
A line out: {"sent": [[partition, offset, timestamp_ms]]} in the order given, or {"error": text}. An open transaction stays open
until the process ends.
"""

import asyncio
import base64
import json
import sys
from typing import Any

OPEN: list[Any] = []
WAIT_S = 60


def raw(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def headers_of(record: dict[str, Any]) -> list[tuple[str, bytes | None]]:
    return [(name, raw(value)) for name, value in record.get("headers") or []]


def confluent(asked: dict[str, Any]) -> list[Any]:
    """librdkafka."""
    from confluent_kafka import KafkaError, Message, Producer

    producer = Producer({"bootstrap.servers": asked["kafka"], **asked["config"]})
    if asked["transaction"]:
        producer.init_transactions(WAIT_S)
        producer.begin_transaction()
    sent: list[Any] = [None] * len(asked["records"])
    for place, record in enumerate(asked["records"]):

        def told(error: KafkaError | None, message: Message, place: int = place) -> None:
            sent[place] = str(error) if error else [message.partition(), message.offset(), message.timestamp()[1]]

        more = {
            name: value
            for name, value in (("partition", record.get("partition")), ("timestamp", record.get("timestamp_ms")))
            if value is not None
        }
        producer.produce(
            asked["topic"],
            value=raw(record["value"]),
            key=raw(record.get("key")),
            headers=headers_of(record),
            on_delivery=told,
            **more,
        )
        producer.poll(0)
    left = producer.flush(WAIT_S)
    if failed := [one for one in sent if not isinstance(one, list)]:
        raise RuntimeError(f"{left} left; {failed[:3]}")
    if asked["transaction"] == "commit":
        producer.commit_transaction(WAIT_S)
    elif asked["transaction"] == "abort":
        producer.abort_transaction(WAIT_S)
    OPEN.append(producer)
    return sent


def python(asked: dict[str, Any]) -> list[Any]:
    """kafka-python, and kafka-python-ng."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=asked["kafka"], **asked["config"])
    if asked["transaction"]:
        producer.init_transactions()
        producer.begin_transaction()
    futures = [
        producer.send(
            asked["topic"],
            value=raw(record["value"]),
            key=raw(record.get("key")),
            headers=headers_of(record),
            partition=record.get("partition"),
            timestamp_ms=record.get("timestamp_ms"),
        )
        for record in asked["records"]
    ]
    producer.flush(WAIT_S)
    found = [future.get(WAIT_S) for future in futures]
    if asked["transaction"] == "commit":
        producer.commit_transaction()
    elif asked["transaction"] == "abort":
        producer.abort_transaction()
    if asked["transaction"] == "open":
        OPEN.append(producer)
    else:
        producer.close()
    return [[one.partition, one.offset, one.timestamp] for one in found]


LOOP = asyncio.new_event_loop()


def aio(asked: dict[str, Any]) -> list[Any]:
    """aiokafka."""
    return LOOP.run_until_complete(_aio(asked))


async def _aio(asked: dict[str, Any]) -> list[Any]:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=asked["kafka"], **asked["config"])
    await producer.start()
    if asked["transaction"]:
        await producer.begin_transaction()
    futures = [
        await producer.send(
            asked["topic"],
            value=raw(record["value"]),
            key=raw(record.get("key")),
            headers=headers_of(record),
            partition=record.get("partition"),
            timestamp_ms=record.get("timestamp_ms"),
        )
        for record in asked["records"]
    ]
    found = await asyncio.gather(*futures)
    if asked["transaction"] == "commit":
        await producer.commit_transaction()
    elif asked["transaction"] == "abort":
        await producer.abort_transaction()
    if asked["transaction"] == "open":
        OPEN.append(producer)
    else:
        await producer.stop()
    return [[one.partition, one.offset, one.timestamp] for one in found]


KINDS = {"confluent": confluent, "kafka-python": python, "kafka-python-ng": python, "aiokafka": aio}


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said: dict[str, Any] = {"sent": KINDS[asked["kind"]](asked)}
        except Exception as error:  # whatever the client raises is its answer
            said = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
