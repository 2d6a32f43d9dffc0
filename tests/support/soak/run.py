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
from tests.support.own_kafka import OwnCluster
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
    brokers: int = 1
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
        cluster = OwnCluster(folder / "kafka", brokers=plan.brokers) if plan.brokers > 1 else None
        self.pipeline = Pipeline(folder, partitions=plan.partitions, kafka=cluster)
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
        self.start()
        try:
            self._go()
        except Inconsistent:
            self._look_closer()
            raise
        return self.table()

    def _go(self) -> None:
        chaos, last = self.chaos, 0
        while len(chaos.faults) < self.plan.faults and self._now_s() < self.plan.seconds:
            chaos.tick()
            self._check_producers()
            if (done := len(chaos.faults)) != last:
                last = done
                if done % self.plan.judge_every == 0:
                    self.settle()
                    self.judge()
                elif done % self.plan.verify_every == 0:
                    self._verify_beside_traffic()
            time.sleep(_TICK_S)
        self.settle()
        self.judge()

    def _look_closer(self) -> None:
        """Find out which events it is about, as far as the pipeline still comes to rest."""
        self.producers.pause()
        try:
            eventually("all faults are over", self._rests)
            self.pipeline.settled()
        except AssertionError as error:
            self._tell(f"it does not come to rest any more: {error}")
        self.verdict = judge(self.pipeline.rows, self.producers.lanes, self.producers.rubbish)

    def _rests(self) -> bool:
        self.chaos.tick(strike=False)
        return self.chaos.quiet and self.producers.idle

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
        self.pipeline.stop()

    def start(self) -> None:
        """Start everything, and wait until events come through."""
        for name in ("aiokafka", "asyncio", "httpx", "httpcore", "urllib3", "clickhouse_connect"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        pipeline, plan = self.pipeline, self.plan
        pipeline.start()
        keys = {project: self._key(project) for project in PROJECTS}
        self.parts, url = parts_of(pipeline, workers=plan.workers)
        base_ms = time.time_ns() // 1_000_000
        watch = self.watch = Watch(pipeline.kafka.address, pipeline.clickhouse_url, partitions=plan.partitions)
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
        self.tick_until("the pipeline works", lambda: chaos.quiet and watch.proved_s > 0)
        self._tell(f"{self._now_s():8.1f} s  everything runs")

    @property
    def chaos(self) -> Chaos:
        """What harms the parts; there once the run is started."""
        assert self._chaos is not None
        return self._chaos

    @property
    def producers(self) -> Producers:
        """Who sends; there once the run is started."""
        assert self._producers is not None
        return self._producers

    def _key(self, project: str) -> str:
        return asyncio.run(create_key(self.pipeline.kafka.address, project_id=project))[1]

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _check_producers(self) -> None:
        if self.producers.surprises:
            raise Inconsistent("\n".join(self.producers.surprises))

    def _verify_beside_traffic(self) -> None:
        """No false alarm while events arrive and workers come and go; it needs both servers."""
        servers = [part for part in self.parts if part.kind in ("kafka", "clickhouse")]
        self.tick_until("Kafka and ClickHouse are there", lambda: all(part.state == "up" for part in servers))
        self._require_proved(self.pipeline.verify())
        self.verified += 1

    def settle(self) -> None:
        """Let every fault end and every producer have its acknowledgement, and wait until all is proved."""
        chaos, producers = self.chaos, self.producers
        producers.pause()
        self.tick_until("all faults are over and all producers idle", lambda: chaos.quiet and producers.idle)
        self._require_proved(self.pipeline.settled())
        self.verified += 1

    def tick_until(self, what: str, holds: Callable[[], bool]) -> None:
        """Let what is due happen, without striking anew, until a condition holds."""

        def held() -> bool:
            self.chaos.tick(strike=False)
            self._check_producers()
            return holds()

        eventually(what, held, timeout_s=_HANGS_S)

    def _require_proved(self, report: Report) -> None:
        if report.proved:
            return
        # Asked again, it tells a loss from a false alarm; both break the promise.
        again = {finding.text for finding in self.pipeline.verify().findings}
        raise Inconsistent(
            "\n".join(
                f"verify: {finding.kind}: {finding.text}{'' if finding.text in again else ' (not so when asked again)'}"
                for finding in report.findings
            )
        )

    def judge(self) -> None:
        """Compare everything with the producers' truth, and let them go on."""
        self.verdict = judge(self.pipeline.rows, self.producers.lanes, self.producers.rubbish)
        if not self.verdict.clean:
            raise Inconsistent("\n".join(self.verdict.lines()))
        self._tell(
            f"{self._now_s():8.1f} s  {self.verdict.events} events are there once each"
            f" ({self.verdict.unacknowledged} were never acknowledged, {self.producers.retries} tries were repeated)"
        )
        self.producers.resume()
