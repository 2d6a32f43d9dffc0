"""The embedded Kafka: the real broker, found again after a stop and after SIGKILL, gone when its parent is."""

import asyncio
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from deploy import topics as topic_admin
from ingest.contract.topics import Topic
from tests.support.parts import await_line, popen
from tests.support.ports import free_port

pytestmark = pytest.mark.real
TOPIC = Topic(name="kept", partitions=1)


def _broker(folder: Path, port: int) -> "subprocess.Popen[str]":
    return popen(["kafka", "--data", str(folder), "--port", str(port)])


def _jvm(process: "subprocess.Popen[str]") -> psutil.Process:
    (jvm,) = [child for child in psutil.Process(process.pid).children() if child.exe().endswith("java")]
    return jvm


async def _append(address: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(TOPIC.name, value)


async def _read(address: str) -> list[bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
        partition = TopicPartition(TOPIC.name, 0)
        consumer.assign([partition])
        end_offset = (await consumer.end_offsets([partition]))[partition]
        values: list[bytes] = []
        while len(values) < end_offset:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                values.extend(record.value for record in records)
        return values


def test_acknowledged_records_and_the_cluster_are_found_again_after_a_stop_and_after_sigkill(tmp_path: Path) -> None:
    port = free_port()
    address = f"127.0.0.1:{port}"
    clusters = set()
    for number, end in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)):
        process = _broker(tmp_path, port)
        await_line(process, " ready at ")
        topic_admin.apply(address, [TOPIC])
        asyncio.run(_append(address, b"%d" % number))
        assert asyncio.run(_read(address)) == [b"%d" % each for each in range(number + 1)]
        clusters.add(re.findall(r"cluster\.id=(\S+)", (tmp_path / "kafka/log/meta.properties").read_text())[0])
        jvm = _jvm(process)
        process.send_signal(end)
        process.communicate(timeout=60)
        assert process.returncode == (0 if end == signal.SIGTERM else -signal.SIGKILL)
        # The JVM ends with its parent, however that ended, so that the next start finds its port and folder free.
        psutil.wait_procs([jvm], timeout=60)
        assert not jvm.is_running()
    assert len(clusters) == 1


def test_what_keeps_it_from_starting_is_one_line_and_exit_2(tmp_path: Path) -> None:
    port = free_port()
    first = _broker(tmp_path / "one", port)
    await_line(first, " ready at ")
    try:
        for folder, other, says in (
            ("one", free_port(), rf"is in use by toolledger kafka \(pid {first.pid}\)"),
            ("two", port, rf"port {port} of 127.0.0.1 is in use"),
        ):
            second = _broker(tmp_path / folder, other)
            said, _ = second.communicate(timeout=60)
            assert second.returncode == 2
            assert re.fullmatch(rf"toolledger kafka: .*{says}.*\n", said)
    finally:
        first.terminate()
        first.communicate(timeout=60)


def test_a_broker_that_dies_ends_its_parent_with_1_and_says_where_to_look(tmp_path: Path) -> None:
    process = _broker(tmp_path, free_port())
    await_line(process, " ready at ")
    _jvm(process).kill()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"toolledger kafka: Kafka ended by itself .*kafka-server\.log", said)


def test_foreign_java_settings_of_the_machine_do_not_reach_it(tmp_path: Path) -> None:
    foreign = {
        "JAVA_TOOL_OPTIONS": "-Xmx1m",
        "_JAVA_OPTIONS": "-Xmx1m",
        "CLASSPATH": "/nonexistent",
        "JAVA_HOME": "/nonexistent",
    }
    process = popen(["kafka", "--data", str(tmp_path), "--port", str(free_port())], settings=foreign)
    await_line(process, " ready at ")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_folder_that_cannot_be_written_is_one_line_and_exit_2() -> None:
    # Nobody may make a folder there, root neither.
    process = _broker(Path("/proc/toolledger"), free_port())
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (2, 1)
    assert "cannot be written" in said
