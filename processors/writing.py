"""Write a planned batch: strays, dead letters, executions, usage and receipt, each until it is there.

Straight on while every call is answered. After an answer that failed or got lost it is unknown what landed, so from then on
what is there is read back before anything is written, and is the truth for the sums and the receipt.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import polars as pl

from ingest.contract import metrics
from ingest.contract.access import Purge
from ingest.contract.errors import LedgerInvariantBroken, TransportError
from ingest.contract.logs import logger
from ingest.contract.redact import COMMON, Redactor
from processors.batch import Batch, Prepared, adopt, read, settle
from processors.dedupe import SeenFilter
from processors.ports import Broker, InThread, Store

log = logger(__name__)
T = TypeVar("T")

_RETRY_FIRST_MS: Final = 100
# How often a worker that lost touch with its group looks whether it is back.
_HEARTBEAT_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a batch and of the pauses between tries."""

    batch_events: int
    batch_bytes: int
    retry_ms_max: int
    dedupe_bytes: int
    # How long after its end an hour of usage closes.
    window_close_ms: int


class BatchWriter:
    """Writes batches of one partition.

    Args:
        reached: called behind each numbered step (fault points of tests).
        now_ms: the clock, for tokens that were never used.
    """

    def __init__(
        self,
        partition: int,
        *,
        broker: Broker,
        store: Store,
        limits: Limits,
        stores_payload: Callable[[str], bool],
        purges: Callable[[], Mapping[str, Sequence[Purge]]] = dict,
        redactor: Redactor = COMMON,
        in_thread: InThread,
        reached: Callable[[str], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> None:
        # What keeps the step in work from being done; empty while nothing does.
        self.trouble = ""
        self._partition = partition
        self._broker, self._store, self._limits = broker, store, limits
        self._stores_payload = stores_payload
        self._purges = purges
        self._redactor = redactor
        self._in_thread = in_thread
        self._reached = reached
        self._now_ms = now_ms

    async def prepare(self, batch: Batch, seen: SeenFilter) -> Prepared:
        """Decide what a batch will write; nothing is written yet."""
        with metrics.WORKER_STEP_SECONDS.labels("prepare").time():
            candidates = await self._in_thread(lambda: read(batch, seen=seen, purges=self._purges()))
            known: Mapping[int, int] = {}
            asked = len(candidates.suspects.by_id) + len(candidates.suspects.by_time)
            if asked:
                metrics.DEDUPE_ASKED.inc(asked)
                known = await self.until_done("known", lambda: self._store.known(candidates))
            return await self._in_thread(
                lambda: settle(
                    candidates,
                    known=known,
                    stores_payload=self._stores_payload,
                    redactor=self._redactor,
                    window_close_ms=self._limits.window_close_ms,
                )
            )

    async def carry_out(self, prepared: Prepared, *, began: int) -> Mapping[int, int]:
        """Write a batch that was planned just now: steps 2 to 4 of the ledger.

        Args:
            began: where the receipts of the partition begin.

        Returns:
            Home partition -> the offset behind the last stray sent to it.

        Raises:
            LedgerInvariantBroken: receipts that were there are gone.
        """
        sent: dict[int, int] = {}
        try:
            await self._straight_on(prepared, sent)
        except TransportError as error:
            self._interrupted(prepared, error)
            sent.update(await self.write_again(prepared, began=began))
        return sent

    async def write_again(self, prepared: Prepared, *, began: int) -> Mapping[int, int]:
        """Write a batch of which parts may be there already, by whomever; what is there is the truth.

        Args, Returns, Raises:
            As `carry_out`.
        """
        sent: dict[int, int] = {}
        if prepared.dead_letters or prepared.forwards:
            await self.until_done("forward", lambda: self._forward(prepared, sent))
            await self._reached("forward")
        pause_ms = _RETRY_FIRST_MS
        while True:
            await self._require_receipts(prepared.batch, began)
            # Read back, which also shows whether ClickHouse still has what it remembers the token of.
            landed = await self._land(prepared)
            letters = await self._land_dead_letters(prepared)
            adopt(prepared, landed, letters)
            try:
                await self._once("receipt", lambda: self._store.write_usage(prepared))
            except TransportError as error:
                # Whatever made it fail may have taken along what was read back.
                self._interrupted(prepared, error)
                await asyncio.sleep(pause_ms / 1000)
                pause_ms = min(pause_ms * 2, self._limits.retry_ms_max)
                continue
            if await self.until_done("landed", lambda: self._store.receipted(prepared.batch)):
                return sent
            self._renew_token(prepared)

    async def until_done(self, step: str, call: Callable[[], Awaitable[T]]) -> T:
        """Try until it is done: a planned batch is a promise. Nothing is written while the group may think us dead."""
        pause_ms = _RETRY_FIRST_MS
        while True:
            await self._in_touch()
            try:
                done = await call()
                self.trouble = ""
                return done
            except TransportError as error:
                self.trouble = f"{step}: {error}"
                metrics.WORKER_RETRIES.labels(step).inc()
                log.warning("step_failed", step=step, partition=self._partition, error=str(error), retry_ms=pause_ms)
            await asyncio.sleep(pause_ms / 1000)
            pause_ms = min(pause_ms * 2, self._limits.retry_ms_max)

    async def _straight_on(self, prepared: Prepared, sent: dict[int, int]) -> None:
        if prepared.dead_letters or prepared.forwards:
            await self._once("forward", lambda: self._forward(prepared, sent))
        if prepared.dead_letters:
            await self._once("dead_letters", lambda: self._store.write_dead_letters(prepared))
        if prepared.executions.height:
            await self._once("executions", lambda: self._store.write_executions(prepared))
        await self._once("receipt", lambda: self._store.write_usage(prepared))

    async def _once(self, name: str, call: Callable[[], Awaitable[None]]) -> None:
        with metrics.WORKER_STEP_SECONDS.labels(name).time():
            await self._in_touch()
            await call()
        self.trouble = ""
        await self._reached(name)

    async def _until_done_and_reached(self, name: str, call: Callable[[], Awaitable[None]]) -> None:
        with metrics.WORKER_STEP_SECONDS.labels(name).time():
            await self.until_done(name, call)
        await self._reached(name)

    async def _in_touch(self) -> None:
        while not self._broker.in_touch():  # noqa: ASYNC110 - the driver's thread notes heartbeats, it sets no event here
            await asyncio.sleep(_HEARTBEAT_POLL_S)

    async def _forward(self, prepared: Prepared, sent: dict[int, int]) -> None:
        sent.update(await self._broker.forward(prepared.forwards, prepared.dead_letters, prepared.batch))

    async def _require_receipts(self, batch: Batch, began: int) -> None:
        """See that the receipts still reach up to a batch: a store that went back in time must not get a hole on top."""
        proved = await self.until_done("open", lambda: self._store.proved(batch.incarnation))
        if proved.get(batch.partition, began) < batch.first_offset:
            raise LedgerInvariantBroken(
                f"partition {batch.partition}: ClickHouse proved [.., {batch.first_offset}) and now only"
                f" [.., {proved.get(batch.partition, began)}): it was wiped or restored; starting again from its receipts"
            )

    async def _land(self, prepared: Prepared) -> pl.DataFrame:
        """Return the rows of a batch as they are in ClickHouse, after writing them unless they were there."""
        landed = await self.until_done("landed", lambda: self._store.landed(prepared.batch))
        while not landed.height and prepared.executions.height:
            await self._until_done_and_reached("executions", lambda: self._store.write_executions(prepared))
            landed = await self.until_done("landed", lambda: self._store.landed(prepared.batch))
            if not landed.height:
                self._renew_token(prepared)
        return landed

    async def _land_dead_letters(self, prepared: Prepared) -> Mapping[str, int]:
        """Return how many dead letters of a batch are in ClickHouse, after writing them unless they were there."""
        landed = await self.until_done("landed", lambda: self._store.landed_dead_letters(prepared.batch))
        while sum(landed.values()) < len(prepared.dead_letters):
            await self._until_done_and_reached("dead_letters", lambda: self._store.write_dead_letters(prepared))
            landed = await self.until_done("landed", lambda: self._store.landed_dead_letters(prepared.batch))
            if not landed:
                self._renew_token(prepared)
        return landed

    def _interrupted(self, prepared: Prepared, error: TransportError) -> None:
        self.trouble = f"batch: {error}"
        metrics.WORKER_RETRIES.labels("batch").inc()
        log.warning("batch_interrupted", partition=self._partition, token=prepared.batch.token, error=str(error))

    def _renew_token(self, prepared: Prepared) -> None:
        """ClickHouse remembers the token though what came with it is gone (tables emptied by hand): take another one."""
        prepared.batch = replace(prepared.batch, rewind=max(prepared.batch.rewind + 1, self._now_ms()))
        log.warning("token_renewed", partition=self._partition, token=prepared.batch.token)
