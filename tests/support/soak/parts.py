"""The processes that faults befall: each on a port and in a folder of its own that stay the same however often it dies."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import httpx

from tests.support.own_kafka import OwnKafka
from tests.support.pipeline import Pipeline
from tests.support.plain_http import HTTP
from tests.support.ports import HOST, free_port
from tests.support.process import Process

Kind = Literal["worker", "clickhouse", "kafka", "ingest"]
State = Literal["up", "down", "starting", "frozen"]

_ANSWER_S: Final = 1.0
# A part may end while another one it needs is away, and comes up at a later try.
_ENDS_MAX: Final = 20


@dataclass(slots=True, kw_only=True)
class Part:
    """One process slot and what state it is in."""

    name: str
    kind: Kind
    launch: Callable[[], Process]
    ready: Callable[[], bool]
    state: State = "down"
    process: Process | None = None
    ended_by_itself: int = 0
    ended_in_a_row: int = 0
    since_s: float = field(default_factory=time.monotonic)

    def start(self) -> None:
        """Start it without waiting."""
        self.process = self.launch()
        self._turn("starting")

    def kill(self) -> None:
        assert self.process is not None
        self.process.end(signal.SIGKILL)
        self._turn("down")

    def stop(self) -> None:
        """End it as a person does, and wait until it is gone."""
        assert self.process is not None
        self.process.end()
        self._turn("down")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self._turn("frozen")

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self._turn("starting")

    def look(self) -> bool:
        """See whether it has become ready, or has ended unasked; then it is started again. Tell whether it ended."""
        if self.state not in ("up", "starting") or self.process is None:
            return False
        if not self.process.alive:
            self.ended_by_itself += 1
            self.ended_in_a_row = self.ended_in_a_row + 1 if self.state == "starting" else 1
            assert self.ended_in_a_row <= _ENDS_MAX, f"{self.name} does not start: {self.process.said()[-2000:]}"
            self.start()
            return True
        if self.state == "starting" and self.ready():
            self._turn("up")
        return False

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        if self.process.alive:
            self.process.send_signal(number)

    def _turn(self, state: State) -> None:
        self.state = state
        self.since_s = time.monotonic()


def parts_of(pipeline: Pipeline, *, workers: int) -> tuple[list[Part], str]:
    """Make the parts of a pipeline whose servers run already, and start the others; return them and ingest's address."""
    kafka, clickhouse = pipeline.kafka, pipeline.clickhouse
    ingest_url = f"http://{HOST}:{(ingest_port := free_port())}"

    def start_ingest() -> Process:
        env = {"TOOLLEDGER_KAFKA": kafka.address, "TOOLLEDGER_PORT": str(ingest_port)}
        return Process("ingest", ["ingest"], folder=pipeline.folder, env=env)

    def worker(number: int) -> Part:
        port = free_port()

        def start() -> Process:
            env = {**pipeline.env, "TOOLLEDGER_WORKER_PORT": str(port)}
            return Process(f"worker-{number}", ["worker"], folder=pipeline.folder, env=env)

        url = f"http://{HOST}:{port}/healthz"
        return Part(name=f"worker-{number}", kind="worker", launch=start, ready=lambda: _answers(url))

    found = [
        Part(
            name="clickhouse",
            kind="clickhouse",
            launch=pipeline.launch_clickhouse,
            ready=lambda: _answers(f"{pipeline.clickhouse_url}/ping"),
            process=clickhouse,
            state="up",
        ),
        Part(name="ingest", kind="ingest", launch=start_ingest, ready=lambda: _answers(f"{ingest_url}/healthz")),
        *(worker(number) for number in range(1, workers + 1)),
    ]
    brokers = {"kafka": kafka} if isinstance(kafka, OwnKafka) else {f"kafka-{n}": b for n, b in enumerate(kafka.brokers, 1)}
    found += [_broker(name, broker) for name, broker in brokers.items()]
    for part in found:
        if part.process is None:
            part.start()
    return found, ingest_url


def _broker(name: str, broker: OwnKafka) -> Part:
    return Part(name=name, kind="kafka", launch=broker.launch, ready=lambda: broker.ready, process=broker.process, state="up")


def _answers(url: str) -> bool:
    try:
        return HTTP.get(url, timeout=_ANSWER_S).status_code == 200
    except httpx.TransportError:
        return False
