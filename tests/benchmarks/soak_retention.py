"""Retention that shrinks under load while its runs, workers and ClickHouse are killed: what is left is exactly what has to be.

    python -m tests.benchmarks.soak_retention --seconds 200 --seed 1

Events of the last thirty days come in all the time, and now and then a day less of them is kept. `verify` looks every few
seconds. In the end a last run carries everything out, and each event that was acknowledged has to be a log if it is young
enough, and past retention or refused if it is not.
"""

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from deploy.retention import carry_out
from ingest.keys import set_rules
from query_api.usage.grains import DAY_MS
from tests.support.old_calls import call
from tests.support.pipeline import Pipeline

_GRACE_MS: Final = 1_500
_OLDEST_DAYS: Final = 30
_SHORTEST_DAYS: Final = 3
_RUN: Final = f"""
import sys
from deploy.retention import carry_out
for one in carry_out(sys.argv[1], sys.argv[2], grace_ms={_GRACE_MS}):
    print(one)
"""


class Soak:
    """One run: what was sent, and what is alive."""

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self._pipeline = pipeline
        self._chance = random.Random(seed)
        self._command: subprocess.Popen[bytes] | None = None
        self.days = _OLDEST_DAYS - 1
        self.sent: dict[str, int] = {}
        self.kills = 0
        self.runs = 0
        self._rule()

    def step(self) -> None:
        """Send some events, and do one other thing."""
        self._send()
        if self._chance.random() < 0.25 and self.days > _SHORTEST_DAYS:
            self.days -= 1
            self._rule()
        if self._command is None or self._command.poll() is not None:
            arguments = [sys.executable, "-c", _RUN, self._pipeline.kafka.address, self._pipeline.clickhouse_url]
            self._command = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.runs += 1
        fate = self._chance.random()
        if fate < 0.2:
            self._command.kill()
            self._command.wait()
        elif fate < 0.35:
            self._chance.choice([worker for worker in self._pipeline.workers if worker.alive]).end(signal.SIGKILL)
            self._pipeline.start_worker()
        elif fate < 0.42:
            assert self._pipeline.clickhouse is not None
            self._pipeline.clickhouse.end(signal.SIGKILL)
            self._pipeline.start_clickhouse()
        elif fate < 0.6:
            assert self._pipeline.verify().findings == ()
        self.kills += fate < 0.42

    def judge(self) -> str:
        """Carry out what is left to do, and compare; return what was found."""
        if self._command is not None:
            self._command.wait()
        assert self._pipeline.settled(timeout_s=300).findings == ()
        list(carry_out(self._pipeline.kafka.address, self._pipeline.clickhouse_url, grace_ms=_GRACE_MS))
        report = self._pipeline.settled(timeout_s=300)
        assert report.findings == ()
        until_ms = (time.time_ns() // 1_000_000 - self.days * DAY_MS) // DAY_MS * DAY_MS
        kept = {event_id: at_ms for event_id, at_ms in self.sent.items() if at_ms >= until_ms}
        rows = self._pipeline.rows("SELECT id, toUnixTimestamp64Milli(timestamp) FROM tool_executions")
        assert len(rows) == len(kept)
        assert dict(rows) == kept
        assert report.calls == len(kept)
        assert report.accepted == len(kept) + report.purged
        assert report.accepted + report.dead_letters == len(self.sent)
        return (
            f"{len(self.sent):,} events = {report.rows:,} logs + {report.purged:,} past retention +"
            f" {report.dead_letters:,} refused; {self.days} days kept, {self.runs} runs, {self.kills} kills"
        )

    def _rule(self) -> None:
        asyncio.run(set_rules(self._pipeline.kafka.address, "demo", retention_days=self.days))

    def _send(self) -> None:
        now_ms, some = time.time_ns() // 1_000_000, len(self.sent)
        events = [
            call(f"e{some + number}", number, now_ms - self._chance.randrange(_OLDEST_DAYS * DAY_MS))
            for number in range(self._chance.randint(20, 150))
        ]
        self._pipeline.send([(event["id"], json.dumps(event).encode()) for event in events], pack=20)
        self.sent |= {event["id"]: event["timestamp"] for event in events}


def main() -> int:
    """Run; raise AssertionError where anything is not as it has to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pipeline = Pipeline(Path(folder))
        try:
            pipeline.start()
            for _ in range(2):
                pipeline.start_worker()
            soak = Soak(pipeline, asked.seed)
            end = time.monotonic() + asked.seconds
            while time.monotonic() < end:
                soak.step()
            print(soak.judge())
        finally:
            pipeline.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
