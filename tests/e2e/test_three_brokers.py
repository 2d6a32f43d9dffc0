"""Three brokers that keep three copies: one after another dies under load, and nothing that was acknowledged is lost."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from ingest.contract.topics import CONTROL, TOOL_EXECUTIONS
from tests.support.soak.parts import Part
from tests.support.soak.run import Plan, Soak

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def soak(tmp_path: Path) -> Iterator[Soak]:
    made = Soak(tmp_path, Plan(seed=1, faults=0, seconds=0, brokers=3, rate=100), tell=print)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def partitions(soak: Soak, *topics: str) -> list[dict[str, Any]]:
    """Describe the partitions of topics: leader, replicas and those in sync."""

    async def ask() -> list[dict[str, Any]]:
        client = AIOKafkaAdminClient(bootstrap_servers=soak.pipeline.kafka.address, request_timeout_ms=5000)
        await client.start()
        try:
            found = await client.describe_topics(list(topics) or None)
            return [partition for topic in found for partition in topic["partitions"]]
        finally:
            await client.close()

    return asyncio.run(ask())


def all_in_sync(soak: Soak) -> bool:
    try:
        return all(len(partition["isr"]) == 3 for partition in partitions(soak))
    except KafkaError:
        return False  # asked of a broker that is just coming back


def broker(soak: Soak, node_id: int) -> Part:
    (found,) = [part for part in soak.parts if part.name == f"kafka-{node_id}"]
    return found


def flows_on(soak: Soak) -> None:
    """Wait until what is sent from now on is proved: ingest, producers and workers have found the new leaders."""
    now_s, sent = time.monotonic(), [lane.count for lane in soak.producers.lanes]
    soak.tick_until(
        "events come through without that broker",
        lambda: (
            soak.watch.proved_s > now_s
            and all(lane.count > before for lane, before in zip(soak.producers.lanes, sent, strict=True))
        ),
    )


def create_key(soak: Soak, project: str) -> None:
    """`toolledger keys create` works at the first try."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli.main", "keys", "create", "--project", project, "--json"],
        cwd=_ROOT,
        env={"PATH": "", "TOOLLEDGER_KAFKA": soak.pipeline.kafka.address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["project"] == project


def test_one_broker_after_another_is_killed_and_nothing_acknowledged_is_lost(soak: Soak) -> None:
    """kill -9 of each broker in turn, and a stop that hands its partitions over: all goes on, and every id is there once."""
    assert {len(partition["replicas"]) for partition in partitions(soak, TOOL_EXECUTIONS, CONTROL)} == {3}
    # The leader of the keys dies first.
    keeper = partitions(soak, CONTROL)[0]["leader"]
    for node_id in sorted((1, 2, 3), key=lambda each: each != keeper):
        soak.tick_until("every broker has every partition", lambda: all_in_sync(soak))
        began_s = time.monotonic()
        broker(soak, node_id).kill()
        create_key(soak, f"made-without-{node_id}")
        print(f"broker {node_id} killed; a key was made after {time.monotonic() - began_s:.1f} s")
        flows_on(soak)
        print(f"events come through after {time.monotonic() - began_s:.1f} s")
        broker(soak, node_id).start()
    soak.tick_until("every broker has every partition", lambda: all_in_sync(soak))
    leader = partitions(soak, CONTROL)[0]["leader"]
    began_s = time.monotonic()
    broker(soak, leader).stop()
    flows_on(soak)
    print(f"broker {leader} stopped; events come through after {time.monotonic() - began_s:.1f} s")
    broker(soak, leader).start()
    soak.settle()
    soak.judge()
    assert soak.verdict.events > 500
