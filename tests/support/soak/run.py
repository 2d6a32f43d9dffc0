"""One run: a pipeline, its producers, its faults, and the verdict."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.verify import Report
from ingest.keys import create_key
from tests.support.pipeline import Pipeline
from tests.support.process import eventually
from tests.support.soak.faults import Chaos
from tests.support.soak.judge import Verdict, judge
from tests.support.soak.parts import Part, parts_of
from tests.support.soak.producers import Producers
from tests.support.soak.table import table
from tests.support.soak.truth import PROJECTS, Lane
from tests.support.soak.watch import Watch

LANES: Final = ("httpa", "httpb", "straighta", "straightb")
_TICK_S: Final = 0.05
# Longer than any fault, start and catching up that the faults themselves allow.
_HANGS_S: Final = 400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run is asked for.

    Args:
        seed: decides every fault and every event; not when a process gets the processor, so no two runs are the same.
        faults: stop after that many.
        seconds: stop after that time.
        rate: events a second.
        verify_every: `verify` beside live traffic after that many faults.
        judge_every: pause, settle, and compare everything after that many faults.
    """

    seed: int
    faults: int
    seconds: float
    workers: int = 2
    partitions: int = 4
    rate: float = 150.0
    verify_every: int = 5
    judge_every: int = 50


class Inconsistent(AssertionError):
    """The promise is broken; everything is left as it is."""


class Soak:
    """A run. `go` returns the table; whatever happens, `stop` ends all processes."""

    def __init__(self, folder: Path, plan: Plan, *, tell: Callable[[str], None]) -> None:
        self.folder, self.plan = folder, plan
        self.verdict = Verdict()
        self.parts: list[Part] = []
        self.verified = 0
        self._tell = tell
        self._pipeline = Pipeline(folder, partitions=plan.partitions)
        self._producers: Producers | None = None
        self._chaos: Chaos | None = None
        self._began_s = time.monotonic()

    def go(self) -> str:
        """Run to the end of the plan.

        Raises:
            Inconsistent: something was lost, doubled or changed, or `verify` found something.
            AssertionError: a part hangs.
        """
        self._tell(f"seed {self.plan.seed}, data and logs in {self.folder}")
        chaos = self._start()
        last = 0
        while len(chaos.faults) < self.plan.faults and self._now_s() < self.plan.seconds:
            chaos.tick()
            self._check_producers()
            if (done := len(chaos.faults)) != last:
                last = done
                if done % self.plan.judge_every == 0:
                    self._settle()
                    self._judge()
                elif done % self.plan.verify_every == 0:
                    self._verify_beside_traffic()
            time.sleep(_TICK_S)
        self._settle()
        self._judge()
        return self.table()

    def table(self) -> str:
        """Return what was tried and what came of it, as Markdown."""
        faults = self._chaos.faults if self._chaos is not None else []
        return table(faults, self.verdict, parts=self.parts, verified=self.verified, seed=self.plan.seed, seconds=self._now_s())

    def stop(self) -> None:
        """End everything."""
        if self._producers is not None:
            self._producers.end()
        for part in self.parts:
            if part.process is not None and part.process.alive:
                part.kill()
        self._pipeline.stop()

    def _start(self) -> Chaos:
        for name in ("aiokafka", "asyncio", "httpx", "httpcore", "urllib3", "clickhouse_connect"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        pipeline, plan = self._pipeline, self.plan
        pipeline.start()
        keys = {project: self._key(project) for project in PROJECTS}
        self.parts, url = parts_of(pipeline, workers=plan.workers)
        base_ms = time.time_ns() // 1_000_000
        watch = Watch(pipeline.kafka.address, pipeline.clickhouse_url, partitions=plan.partitions)
        self._producers = Producers(
            [Lane(name, seed=plan.seed, base_ms=base_ms) for name in LANES],
            kafka=pipeline.kafka.address,
            url=url,
            keys=keys,
            partitions=plan.partitions,
            rate=plan.rate,
            began_s=self._began_s,
            watch=watch,
            seed=plan.seed,
        )
        self._producers.start()
        chaos = self._chaos = Chaos(
            self.parts,
            rng=random.Random(plan.seed),
            clock=self._now_s,
            caught_up=lambda moment_s: watch.proved_s - self._began_s >= moment_s,
            tell=self._tell,
        )
        self._tick_until("the pipeline works", lambda: chaos.quiet and watch.proved_s > 0)
        self._tell(f"{self._now_s():8.1f} s  everything runs")
        return chaos

    def _key(self, project: str) -> str:
        return asyncio.run(create_key(self._pipeline.kafka.address, project_id=project))[1]

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _check_producers(self) -> None:
        assert self._producers is not None
        if self._producers.surprises:
            raise Inconsistent("\n".join(self._producers.surprises))

    def _verify_beside_traffic(self) -> None:
        """No false alarm while events arrive and workers come and go; it needs both servers."""
        servers = [part for part in self.parts if part.kind in ("kafka", "clickhouse")]
        self._tick_until("Kafka and ClickHouse are there", lambda: all(part.state == "up" for part in servers))
        self._require_proved(self._pipeline.verify())
        self.verified += 1

    def _settle(self) -> None:
        """Let every fault end and every producer have its acknowledgement, and wait until all is proved."""
        chaos, producers = self._chaos, self._producers
        assert chaos is not None
        assert producers is not None
        producers.pause()
        self._tick_until("all faults are over and all producers idle", lambda: chaos.quiet and producers.idle)
        self._require_proved(self._pipeline.settled())
        self.verified += 1

    def _tick_until(self, what: str, holds: Callable[[], bool]) -> None:
        """Let what is due happen, without striking anew, until a condition holds."""
        chaos = self._chaos
        assert chaos is not None

        def held() -> bool:
            chaos.tick(strike=False)
            self._check_producers()
            return holds()

        eventually(what, held, timeout_s=_HANGS_S)

    def _require_proved(self, report: Report) -> None:
        if report.proved:
            return
        # Asked again, it tells a loss from a false alarm; both break the promise.
        again = {finding.text for finding in self._pipeline.verify().findings}
        raise Inconsistent(
            "\n".join(
                f"verify: {finding.kind}: {finding.text}{'' if finding.text in again else ' (not so when asked again)'}"
                for finding in report.findings
            )
        )

    def _judge(self) -> None:
        assert self._producers is not None
        self.verdict = judge(self._pipeline.rows, self._producers.lanes, self._producers.rubbish)
        if not self.verdict.clean:
            raise Inconsistent("\n".join(self.verdict.lines()))
        self._tell(
            f"{self._now_s():8.1f} s  {self.verdict.events} events are there once each"
            f" ({self.verdict.unacknowledged} were never acknowledged, {self._producers.retries} tries were repeated)"
        )
        self._producers.resume()
