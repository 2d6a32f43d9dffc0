"""Send events to Kafka at a steady rate, like those of `seed_executions` but of now: `python -m tests.benchmarks.live_events`.

A process of its own, so that it takes no turn from whoever measures. It ends with its parent, or by a signal.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaProducer

from deploy.embedded.process import die_with_parent
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import TOOL_EXECUTIONS
from tests.benchmarks.seed_executions import PARTITIONS, project, tool_slug

_TICK_S: Final = 0.1
_PACK: Final = 200
_FAILED_ONE_IN: Final = 25
_ERROR: Final = ',"error":{"message":"Rate limit exceeded, retry after 30 seconds","code":"429","type":"RateLimitError"}'
_BODY: Final = "Hello. " * 20


@contextmanager
def arriving(kafka: str, rate: int) -> Iterator[None]:
    """Let events arrive meanwhile, sent by a process of their own."""
    sender = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.live_events", "--kafka", kafka, "--rate", str(rate)],
        cwd=Path(__file__).parents[2],
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - the child only makes one system call
    )
    try:
        yield
    finally:
        sender.terminate()
        sender.wait(30)


def event(number: int, salt: str, now_ms: int) -> tuple[str, str, bytes]:
    """Return (project, id, JSON) of an event of about 700 bytes.

    Filled into a text, which takes a fifth of what a serializer does: producers are other machines, and this one is measured.
    """
    event_id = f"log_{salt}{number:09d}"
    user = f"user_{number * 7919 % 100_000}"
    failed = number % _FAILED_ONE_IN == 0
    raw = (
        f'{{"id":"{event_id}","timestamp":{now_ms},"tool_slug":"{tool_slug(number // 3)}","user_id":"{user}",'
        f'"session_id":"sess_{salt}{number // 25_000 * 1000 + number % 1000}","status":"{"failed" if failed else "success"}",'
        f'"duration_ms":{20 + number * 31 % 2000},"context":{{"trace_id":"{number:032x}","request_id":"req_{salt}{number}"}},'
        f'"source":{{"framework":"openai","language":"python","host":"sdk"}},"data":{{"request":{{"payload":'
        f'{{"to":"{user}@example.com","subject":"About {number % 9973}","body":"{_BODY}"}}}},"response":{{"body":'
        f'{{"id":"{number:x}","state":"done","labels":["inbox","important"],"items":[{number % 997}]}}}}}}'
        f"{_ERROR if failed else ''}}}"
    )
    return project(number), event_id, raw.encode()


async def send(kafka: str, rate: int) -> None:
    """Send for ever; what a tick was late for is sent with the next one."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", compression_type="lz4", linger_ms=5)
    await producer.start()
    salt = f"{time.time_ns() // 1_000_000:x}_"
    began, number = time.monotonic(), 0
    try:
        while True:
            due = int((time.monotonic() - began) * rate)
            packs: dict[tuple[str, int], list[bytes]] = {}
            now_ms = time.time_ns() // 1_000_000
            for one in range(number, due):
                of, event_id, raw = event(one, salt, now_ms)
                packs.setdefault((of, home_partition(event_key(of, event_id), PARTITIONS)), []).append(raw)
            number = due
            sent = [
                await producer.send(TOOL_EXECUTIONS, b"[" + b",".join(pack) + b"]", partition=home, headers=_project(of))
                for (of, home), raws in packs.items()
                for pack in batched(raws, _PACK)
            ]
            await asyncio.gather(*sent)
            # A steady rate is what is asked for: there is no condition to wait for.
            await asyncio.sleep(_TICK_S)
    finally:
        await producer.stop()


def batched(raws: list[bytes], count: int) -> list[list[bytes]]:
    """Part a list into packs; after a pause there is much to send at once, and a record has a largest size."""
    return [raws[first : first + count] for first in range(0, len(raws), count)]


def _project(name: str) -> list[tuple[str, bytes]]:
    return [("project_id", name.encode())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kafka", required=True, help="host:port")
    parser.add_argument("--rate", type=int, default=5_000, help="events a second")
    options = parser.parse_args()
    asyncio.run(send(options.kafka, options.rate))


if __name__ == "__main__":
    main()
