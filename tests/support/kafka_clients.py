"""Kafka clients as users have them, each in an environment of its own, driven over pipes; and kcat, where it is installed."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

import pytest

from deploy.embedded.process import die_with_parent
from ingest.contract.topics import HEADER_PROJECT, TOOL_EXECUTIONS
from tests.support.official_clients import HOW, PINS, SKIP, RegistryUnreachable, python_environment

KINDS: Final = ("confluent", "aiokafka", "kafka-python", "kafka-python-ng", "kcat")
TRANSACTIONAL: Final = ("confluent", "aiokafka", "kafka-python")
CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd")
KCAT: Final = "kcat"
NO_KCAT: Final = "kcat is not installed (Debian: apt-get install kcat); its engine, librdkafka, is tried as confluent-kafka"

Transaction = Literal["commit", "abort", "open"] | None
# Does not occur in any value of a test; kcat reads records from its standard input.
_RECORD_END: Final = "\x1e"
_KEY_END: Final = "\x1f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One record as a client is told to send it. A partition is left to the client's partitioner unless it is given."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None
    timestamp_ms: int | None = None

    def told(self) -> dict[str, Any]:
        return {
            "value": _text(self.value),
            "key": _text(self.key),
            "headers": [[name, _text(value)] for name, value in self.headers],
            "partition": self.partition,
            "timestamp_ms": self.timestamp_ms,
        }


def owned(project: str) -> list[tuple[str, bytes | None]]:
    """Return the header that names a project."""
    return [(HEADER_PROJECT, project.encode())]


def config(kind: str, codec: str, **more: Any) -> dict[str, Any]:
    """Return a client's own setting for a codec, and more as it spells them (dots as two underscores)."""
    spelt = {name.replace("__", "."): value for name, value in more.items()}
    if kind in ("confluent", "kcat"):
        return {"compression.type": codec, **spelt}
    return {"compression_type": None if codec == "none" else codec, **spelt}


@dataclass(slots=True)
class KafkaClient:
    """One kind of client against one Kafka."""

    kind: str
    kafka: str
    process: "subprocess.Popen[str] | None" = field(default=None, repr=False)

    def __enter__(self) -> Self:
        require(self.kind)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def send(self, records: Sequence[Sent], *, transaction: Transaction = None, **native: Any) -> list[list[int]]:
        """Send records; returns (partition, offset, time) of each where the client says so, once Kafka has them.

        Raises:
            AssertionError: with what the client said.
        """
        if self.kind == KCAT:
            _kcat(self.kafka, records, native)
            return []
        said = self._ask(self._asked(records, transaction, native))
        assert "error" not in said, said
        sent: list[list[int]] = said["sent"]
        return sent

    def try_to_send(self, records: Sequence[Sent], **native: Any) -> str:
        """Send what Kafka will not take; returns what the client says."""
        said = self._ask(self._asked(records, None, native))
        assert "error" in said, said
        return str(said["error"])

    def kill(self) -> None:
        """End it as a crash does, with whatever it has open."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=30)
            self.process = None

    def _asked(self, records: Sequence[Sent], transaction: Transaction, native: dict[str, Any]) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "kafka": self.kafka,
            "topic": TOOL_EXECUTIONS,
            "config": native,
            "transaction": transaction,
            "records": [record.told() for record in records],
        }

    def _ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        if self.process is None:
            self.process = _driver(self.kind)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the client's process ended with {self.process.wait()}"
        said: dict[str, Any] = json.loads(line)
        return said


def require(*kinds: str) -> None:
    """Skip the test where these kinds cannot be had, and say how they can."""
    if KCAT in kinds and shutil.which(KCAT) is None:
        pytest.skip(NO_KCAT)
    if any(kind != KCAT for kind in kinds):
        if os.environ.get(SKIP) == "no":
            pytest.skip(f"Kafka clients: {HOW}")
        try:
            for kind in kinds:
                _python(kind)
        except RegistryUnreachable as error:
            pytest.skip(f"Kafka clients: {HOW}: {error}")


def _python(kind: str) -> Path:
    return python_environment("kafka-python-ng" if kind == "kafka-python-ng" else "kafka")


def _driver(kind: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(_python(kind)), str(PINS / "kafka_driver.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - the child only makes one system call
    )


def _kcat(kafka: str, records: Sequence[Sent], native: dict[str, Any]) -> None:
    """Send with kcat: a call for each run of records that share what its options say."""
    assert shutil.which(KCAT), NO_KCAT
    start = 0
    while start < len(records):
        first = records[start]
        end = start
        while end < len(records) and _options(records[end]) == _options(first):
            end += 1
        said = [f"-X{name}={value}" for name, value in native.items()]
        done = subprocess.run(
            [KCAT, "-P", "-b", kafka, "-t", TOOL_EXECUTIONS, "-D", _RECORD_END, *said, *_options(first)],
            input=_RECORD_END.encode().join(_line(record) for record in records[start:end]),
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert not done.returncode, done.stderr.decode()
        start = end


def _options(record: Sent) -> list[str]:
    headers = [
        part
        for name, value in record.headers
        for part in ("-H", name if value is None else f"{name}={value.decode(errors='surrogateescape')}")
    ]
    partition = [] if record.partition is None else ["-p", str(record.partition)]
    return [
        *headers,
        *partition,
        *(["-K", _KEY_END] if record.key is not None else []),
        *(["-Z"] if record.value is None else []),
    ]


def _line(record: Sent) -> bytes:
    value = record.value or b""
    return value if record.key is None else record.key + _KEY_END.encode() + value


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
