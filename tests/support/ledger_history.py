"""Histories of workers, a Kafka and a ClickHouse: everything that can happen to a partition's ledger, one step after another.

A tape of bytes chooses each step. An exhausted tape chooses nothing but good: every call is done, in order. So a short tape is
a simple history, and hypothesis shrinks to one.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from ingest.contract.errors import LedgerInvariantBroken, TransportError
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import HEADER_PROJECT
from processors.batch import Prepared
from processors.heartbeat import Heartbeat
from processors.ledger import AbandonedError, Limits, PartitionLedger
from processors.room import Room
from processors.runs import Run
from tests.support.fake_ledger import (
    INCARNATION,
    PROJECT,
    START_MS,
    WINDOW_CLOSE_MS,
    Call,
    Caller,
    FakeBroker,
    FakeStore,
    Log,
    Servers,
    Tables,
    missing_before,
)

_LIMITS: Final = Limits(
    batch_events=3, batch_bytes=10_000, retry_ms_max=200, dedupe_bytes=64 * 1024, window_close_ms=WINDOW_CLOSE_MS
)
_STEPS_MAX: Final = 6000
# So many heartbeats show a worker that ClickHouse went back, and reach the log's end after that.
_BEATS: Final = 5
_PAUSE_S: Final = 0.5


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing else is left to do: waiting costs no time."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run_virtually(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a loop of virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


class Tape:
    """Choices, one byte each; zeros for ever behind its end."""

    def __init__(self, choices: bytes) -> None:
        self._choices = choices
        self._place = 0

    @property
    def left(self) -> bool:
        return self._place < len(self._choices)

    def choose(self, below: int) -> int:
        """Return the next choice, 0 <= choice < below."""
        if below <= 1 or not self.left:
            return 0
        self._place += 1
        return self._choices[self._place - 1] % below


class Worker(Caller):
    """One worker process: what driver and service do with the ledgers, without Faust."""

    def __init__(self, name: str, servers: Servers, tape: Tape, partitions: Callable[[], int]) -> None:
        super().__init__(name=name)
        self._servers, self._tape, self._partitions = servers, tape, partitions
        self._broker, self._store = FakeBroker(servers, self), FakeStore(servers, self)
        self._ledgers: dict[int, PartitionLedger] = {}
        self._heartbeat = Heartbeat(name, broker=self._broker, store=self._store, skew_ms=0)
        self._owned: set[int] = set()
        self._beating = False
        self._turn = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.broken: LedgerInvariantBroken | None = None

    def revoke(self) -> None:
        """A rebalance begins."""
        self._turn += 1
        self._owned.clear()
        for ledger in self._ledgers.values():
            ledger.suspend()

    def assign(self, partitions: list[int], generation: int) -> None:
        """A rebalance is through."""
        for partition in partitions:
            if partition not in self._ledgers:
                self._ledgers[partition] = self._ledger(partition)
            task = asyncio.create_task(self._own(partition, generation, self._turn))
            self.tasks.add(task)
            task.add_done_callback(self._ended)

    def beat(self) -> None:
        """Say how far the owned partitions are, unless it is being said already."""
        if self._owned and not self._beating:
            self._beating = True
            task = asyncio.create_task(self._beat())
            self.tasks.add(task)
            task.add_done_callback(self._ended)

    async def _beat(self) -> None:
        owned = {partition: self._ledgers[partition] for partition in self._owned}
        try:
            with suppress(TransportError):
                await self._heartbeat.beat(
                    owned, incarnation=INCARNATION, partitions=self._partitions(), now_ms=self._servers.tick()
                )
        finally:
            self._beating = False

    def kill(self) -> None:
        """End the process, wherever it is."""
        self.alive = self.heard = False
        for task in self.tasks:
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), LedgerInvariantBroken):
            self.broken = error

    def _ledger(self, partition: int) -> PartitionLedger:
        async def reached(step: str) -> None:
            await asyncio.sleep(0)

        async def admits(_: Prepared) -> bool:
            return True

        async def in_thread(work: Callable[[], Any], /) -> Any:
            return work()

        return PartitionLedger(
            partition,
            broker=self._broker,
            store=self._store,
            limits=_LIMITS,
            stores_payload=lambda _: True,
            in_thread=in_thread,
            reached=reached,
            room=Room(1_000_000),
            now_ms=self._servers.tick,
            admits=admits,
        )

    async def _own(self, partition: int, generation: int, turn: int) -> None:
        ledger = self._ledgers[partition]
        with suppress(AbandonedError):
            partitions = self._partitions()
            next_offset = await ledger.open(generation, incarnation=INCARNATION, partitions=partitions)
            await ledger.until_done("hold", lambda: self._hold(partition, partitions))
            if turn == self._turn:
                self._heartbeat.forget(partition)
                self._owned.add(partition)
            while turn == self._turn:
                run = self._fetch(partition, next_offset, generation)
                if run is None:
                    await self._servers.grown.wait()
                    continue
                # It lies in a queue for a while, maybe beyond the next rebalance.
                await self._servers.call(self, "deliver", lambda: None, None)
                await ledger.process(run)
                next_offset = run.next_offset

    async def _hold(self, partition: int, partitions: int) -> None:
        held = self._ledgers[partition].held
        await self._heartbeat.hold(partition, held, incarnation=INCARNATION, partitions=partitions)

    def _fetch(self, partition: int, next_offset: int, generation: int) -> Run | None:
        log = self._servers.logs[partition]
        records = log.records[max(next_offset, log.start) :]
        if not records:
            return None
        records = records[: 1 + self._tape.choose(len(records))] if self._tape.left else records
        return Run(
            partition=partition,
            generation=generation,
            first_offset=next_offset,
            next_offset=records[-1].offset + 1,
            end_offset=log.end,
            records=records,
        )


class History:
    """Workers and servers, and what happens to them.

    Args:
        choices: the tape.
        partitions: of the topic at the start.
        steps: names of what may happen.
    """

    def __init__(self, choices: bytes, *, partitions: int = 1, steps: tuple[str, ...]) -> None:
        self.servers = Servers(partitions=partitions)
        self.said: list[str] = []
        self._tape = Tape(choices)
        self._steps = steps
        self._workers: list[Worker] = []
        self._rebalancing = False
        self._delayed: list[Call] = []
        self._backups: list[Tables] = [Tables()]
        self._made = 0
        self._progress = 0
        self.untrue: list[str] = []
        self._gone = False

    async def run(self) -> None:
        """Let the tape's history happen, then let everything settle."""
        for _ in range(2 + self._tape.choose(3)):
            self._produce()
        self._start()
        await self._pause()
        steps = {name.removeprefix("_"): getattr(self, name) for name in dir(self) if name.startswith("_step_")}
        while self._tape.left:
            name = self._steps[self._tape.choose(len(self._steps))]
            steps[f"step_{name}"]()
            await self._pause()
            while self._progress and self.servers.pending:
                self._progress -= 1
                self._done(self.servers.pending[self._tape.choose(min(2, len(self.servers.pending)))])
                await self._pause()
                self._check_freshness()
            self._progress = 0
            self._check_freshness()
        await self._settle()

    async def _pause(self) -> None:
        # Everything that can go on without an answer goes on, retries included.
        await asyncio.sleep(_PAUSE_S)
        for worker in self._workers:
            if worker.broken is not None and worker.alive:
                self._say(f"{worker.name} stops: {worker.broken}")
                self._kill(worker)
        await asyncio.gather(
            *(task for worker in self._workers if not worker.alive for task in worker.tasks), return_exceptions=True
        )

    async def _settle(self) -> None:
        self._say("-- settling")
        while self._delayed:
            self._step_land()
        for worker in self._workers:
            worker.heard = worker.alive
        self._begin_rebalance()
        self._complete_rebalance()
        beats = _BEATS
        for _ in range(_STEPS_MAX):
            alive = len(self._alive())
            await self._pause()
            if len(self._alive()) < alive or not alive:
                # One found that ClickHouse went back, and ended; it is started again.
                self._start()
                beats = _BEATS
            elif self.servers.pending:
                self._done(self.servers.pending[0])
            elif beats:
                beats -= 1
                for worker in self._alive():
                    worker.beat()
            else:
                break
            self._check_freshness()
        else:
            raise AssertionError("it never settles")
        self._gone = False
        self._check_freshness()
        self._check_fresh()
        for worker in self._workers:
            worker.kill()
        await asyncio.sleep(0)

    def _say(self, line: str) -> None:
        self.said.append(line)

    # What is claimed about time.

    def _complete_until_ms(self) -> int:
        said = self.servers.tables.said
        partitions = range(len(self.servers.logs))
        return min(said[partition].complete_until_ms for partition in partitions) if said.keys() >= set(partitions) else 0

    def _check_freshness(self) -> None:
        """Everything accepted before the claimed time is there, at any moment; unless what was proved is gone again."""
        if self._gone:
            return
        if missing := missing_before(self.servers, self._complete_until_ms()):
            self.untrue.append(f"complete until {self._complete_until_ms()}, but {missing} are missing")

    def _check_fresh(self) -> None:
        """Once all is proved, the claim reaches the newest record."""
        newest = max((record.timestamp_ms for log in self.servers.logs for record in log.records), default=0)
        if self._complete_until_ms() <= newest:
            self.untrue.append(f"complete until {self._complete_until_ms()} only, though all is proved up to {newest}")

    # How a call ends.

    def _end(self, call: Call, how: str) -> None:
        self.servers.pending.remove(call)
        self._say(f"{call.worker.name}: {call.name} {how}")

    def _done(self, call: Call) -> None:
        self._end(call, "done")
        call.answer.set_result(call.effect())

    def _step_done(self) -> None:
        if self.servers.pending:
            self._done(self.servers.pending[self._tape.choose(len(self.servers.pending))])

    def _step_progress(self) -> None:
        """Let a number of calls be done, one after another: a batch takes about ten, and little happens to one in a night."""
        self._progress = 1 + self._tape.choose(16)

    def _some_call(self) -> Call | None:
        if not self.servers.pending:
            return None
        return self.servers.pending[self._tape.choose(len(self.servers.pending))]

    def _step_refused(self) -> None:
        call = self._some_call()
        if call is not None and call.failure is not None:
            self._end(call, "refused")
            call.answer.set_exception(call.failure("refused"))

    def _step_answer_lost(self) -> None:
        call = self._some_call()
        if call is None:
            return
        if call.failure is not None:
            self._end(call, "done, answer lost")
            call.effect()
            call.answer.set_exception(call.failure("answer lost"))
        elif call.name == "plan":
            # The adapter sends it again, and may then be told that the group has moved on.
            self._say(f"{call.worker.name}: plan done, answer lost")
            call.effect()

    def _step_delayed(self) -> None:
        call = self._some_call()
        if call is not None and call.failure is not None and call.writes:
            self._end(call, "delayed")
            call.answer.set_exception(call.failure("too slow"))
            self._delayed.append(call)

    def _step_land(self) -> None:
        if self._delayed:
            call = self._delayed.pop(self._tape.choose(len(self._delayed)))
            self._say(f"{call.worker.name}: {call.name} lands late")
            call.effect()

    # What happens to workers.

    def _step_beat(self) -> None:
        for worker in self._alive():
            worker.beat()

    def _start(self) -> None:
        worker = Worker(f"w{len(self._workers)}", self.servers, self._tape, lambda: len(self.servers.logs))
        self._workers.append(worker)
        self._say(f"{worker.name} starts")
        self._begin_rebalance()
        self._complete_rebalance()

    def _kill(self, worker: Worker) -> None:
        self._say(f"{worker.name} dies")
        worker.kill()
        for call in [call for call in self.servers.pending if call.worker is worker]:
            self.servers.pending.remove(call)
            # What was on its way to the server may still get there.
            if call.writes and self._tape.choose(2):
                self._delayed.append(call)

    def _alive(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.alive]

    def _step_start(self) -> None:
        if len(self._alive()) < 3:
            self._start()

    def _step_crash(self) -> None:
        if alive := self._alive():
            self._kill(alive[self._tape.choose(len(alive))])
        if self._tape.choose(2) or not self._alive():
            self._start()

    def _step_unheard(self) -> None:
        """The group loses a worker that goes on living."""
        if heard := [worker for worker in self._alive() if worker.heard]:
            worker = heard[self._tape.choose(len(heard))]
            worker.heard = False
            self._say(f"{worker.name} is unheard")
            self.servers.members.discard(worker.name)
            self._begin_rebalance()
            self._complete_rebalance()

    def _step_rebalance(self) -> None:
        if self._rebalancing:
            self._complete_rebalance()
        else:
            for worker in self._alive():
                worker.heard = worker.heard or bool(self._tape.choose(2))
            self._begin_rebalance()

    def _begin_rebalance(self) -> None:
        self._rebalancing = True
        for worker in self._alive():
            if worker.heard:
                worker.revoke()

    def _complete_rebalance(self) -> None:
        self._rebalancing = False
        servers = self.servers
        members = [worker for worker in self._alive() if worker.heard]
        servers.generation += 1
        servers.members = {worker.name for worker in members}
        if not members:
            return
        turn = self._tape.choose(len(members))
        parts: dict[str, list[int]] = {worker.name: [] for worker in members}
        for partition in range(len(servers.logs)):
            parts[members[(partition + turn) % len(members)].name].append(partition)
        self._say(f"generation {servers.generation}: {parts}")
        for worker in members:
            worker.assign(parts[worker.name], servers.generation)

    # What happens to the servers.

    def _step_produce(self) -> None:
        self._produce()

    def _step_stray(self) -> None:
        self._produce(away=1)

    def _produce(self, *, away: int = 0) -> None:
        tape, servers = self._tape, self.servers
        events = [self._event() for _ in range(1 + tape.choose(3))]
        ids = [event["id"] for event in events if "id" in event]
        partition = home_partition(event_key(PROJECT, ids[0]), len(servers.logs)) if ids else 0
        partition = (partition + (away or tape.choose(8) // 7)) % len(servers.logs)
        value = json.dumps(events if len(events) > 1 else events[0]).encode()
        self._say(f"partition {partition} offset {servers.logs[partition].end}: {[event.get('id') for event in events]}")
        servers.append(partition, value, headers=[(HEADER_PROJECT, PROJECT.encode())])

    def _event(self) -> dict[str, Any]:
        choice = self._tape.choose(16)
        if choice == 15:
            return {"rubbish": 1}
        self._made += 1
        event = {
            "tool_slug": "GMAIL_SEND",
            "status": "failed" if choice % 5 == 4 else "success",
            "duration_ms": self._made,
            "user_id": f"u{choice % 2}",
            "session_id": "s" if choice % 3 else "",
            # Of this hour or of the one before, which closes early in the history.
            "timestamp": START_MS - 3_600_000 * self._tape.choose(2),
        }
        if choice == 14:
            return event
        # Every third event or so repeats an id.
        event["id"] = f"e{self._tape.choose(self._made)}" if choice % 3 == 2 else f"e{self._made}"
        return event

    def _step_failover(self) -> None:
        """Another coordinator takes over and does not show the last commit of a partition yet."""
        servers = self.servers
        if servers.commits:
            partition = self._tape.choose(len(servers.logs))
            servers.shown = {**servers.commits}
            if partition in servers.former:
                servers.shown[partition] = servers.former[partition]
            else:
                servers.shown.pop(partition, None)
            self._say(f"failover: {servers.shown.get(partition)} of partition {partition} is shown")
            self._begin_rebalance()
            self._complete_rebalance()

    def _step_grow(self) -> None:
        """The topic gets another partition; the group learns of it with its next rebalance."""
        if len(self.servers.logs) < 4:
            self.servers.logs.append(Log())
            self._say(f"{len(self.servers.logs)} partitions")

    def _step_backup(self) -> None:
        self._backups.append(self.servers.tables.copy())
        self._say(f"backup {len(self._backups) - 1}")

    def _step_restore(self) -> None:
        """ClickHouse comes back from a backup, or empty, while workers live. What was under way died with the old server.

        Between a backup and its return workers have reported, once a second as they do.
        """
        if all(self.servers.tables.said.get(number) for number in range(len(self.servers.logs))):
            place = self._tape.choose(len(self._backups))
            former = self._backups[place].said
            if any(former.get(number) == one for number, one in self.servers.tables.said.items()):
                return
            self._cut()
            self._restore(place)
            self._gone = True

    def _step_restore_stopped(self) -> None:
        """The same with all workers stopped."""
        for worker in self._alive():
            self._kill(worker)
        self._cut()
        self._restore(self._tape.choose(len(self._backups)))
        self._start()

    def _restore(self, place: int) -> None:
        self._say(f"restored to backup {place}")
        self.servers.tables = self._backups[place].copy()

    def _cut(self) -> None:
        """Every connection to ClickHouse breaks; nothing that was sent will land."""
        self._delayed = [call for call in self._delayed if call.name == "forward"]
        for call in [call for call in self.servers.pending if call.failure is not None and call.name != "forward"]:
            self._end(call, "cut")
            call.answer.set_exception(call.failure("connection lost"))  # type: ignore[misc]

    def _step_emptied(self) -> None:
        """Tables emptied by hand, with all workers stopped: ClickHouse still remembers the tokens."""
        for worker in self._alive():
            self._kill(worker)
        self._cut()
        self._say("tables emptied")
        self.servers.tables = Tables(tokens=self.servers.tables.tokens)
        self._start()

    def _step_offsets_lost(self) -> None:
        """The group's offsets expire or are reset, which Kafka allows only while the group is empty."""
        for worker in self._alive():
            self._kill(worker)
        while self._delayed:
            self._step_land()
        self._say("offsets lost")
        self.servers.commits.clear()
        self._start()
