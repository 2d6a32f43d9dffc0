"""Bring recorded executions to Kafka, without anybody waiting for it.

`add` returns at once. What is added waits in memory, bounded in bytes, and, where there is a spool, on disk until Kafka has
acknowledged it: a process that is killed or an outage of any length loses nothing then, up to the spool's limit, and what is
sent twice counts once, because its id and its time are fast. Without a spool, or beyond its limit, it is dropped, counted and
logged: a tool that has run gives its answer whatever becomes of the record.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from ingest.admission import Admission, admit
from ingest.contract.errors import BrokerUnavailable
from ingest.contract.event import EVENT_BYTES_MAX
from ingest.contract.logs import logger
from ingest.contract.metrics import GATEWAY_EVENTS, GATEWAY_WAITING
from ingest.contract.topics import HEADER_PROJECT
from ingest.formats import Items, is_utf8
from ingest.gateway.mapping import Recording, without_payload
from ingest.gateway.spool import Entry, Segment, Spool
from ingest.packing import pack
from ingest.publisher import Publisher
from ingest.settings import IngestSettings

log = logger(__name__)

_BATCH_ENTRIES_MAX: Final = 500
_BATCH_BYTES_MAX: Final = 2 * 1024 * 1024
_RETRY_S: Final = 0.5
# An entry costs more than its bytes; counted so that very many small ones are bounded too.
_ENTRY_BYTES: Final = 500
# Drops come in floods; one line tells of many.
_DROP_LOG_S: Final = 5.0

_recorded = GATEWAY_EVENTS.labels("recorded")
_recovered = GATEWAY_EVENTS.labels("recovered")
_published = GATEWAY_EVENTS.labels("published")
_dropped = GATEWAY_EVENTS.labels("dropped")


class _Waiting(NamedTuple):
    entry: Entry
    segment: Segment | None


class Recorder:
    """One queue and one task that empties it; started and stopped in the loop that uses it."""

    def __init__(
        self,
        settings: IngestSettings,
        *,
        publisher: Publisher,
        spool: Spool | None = None,
        keeps_payload: Callable[[str], bool] = lambda _project_id: True,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._spool = spool
        self._redactor = settings.redactor()
        self._keeps_payload = keeps_payload
        self._now_ms = now_ms
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task: asyncio.Task[None] | None = None
        self._drops = 0
        self._drop_logged_s = float("-inf")
        GATEWAY_WAITING.set_function(lambda: self._bytes)

    def start(self) -> None:
        """Begin to send, first what a former process left behind."""
        if self._spool is not None and self._spool.has_deferred:
            self._wake()
        self._task = asyncio.create_task(self._send_all(), name="gateway-recorder")

    async def stop(self) -> None:
        """Send what waits, within the publish timeout; what is left then stays in the spool, or is dropped."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), self._settings.ingest_publish_timeout_s)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._waiting:
            if self._spool is None:
                self._drop(len(self._waiting), "ingest stopped while Kafka was away, and there is no spool")
            else:
                log.warning("gateway_left_in_spool", entries=len(self._waiting), bytes=self._bytes)
        if self._spool is not None:
            self._spool.close()

    def prepare(self, project_id: str, recording: Recording) -> Entry | None:
        """Put an execution through the door that all events come in by; where its payload is what is wrong with it, without.

        Of a large one this takes its time; it may be done in a thread. None, counted and logged, where it cannot be an event.
        """
        try:
            admission = self._judge(project_id, recording.event)
            if admission.rejected:
                admission = self._judge(project_id, without_payload(recording, admission.rejected[0].message))
            if admission.ids:
                return Entry(project_id=project_id, id=admission.ids[0], raw=bytes(admission.raws[0]))
            why = f"refused: {admission.rejected[0].message}"
        except Exception:
            # Whatever is wrong here, the caller's answer does not depend on it.
            log.exception("gateway_not_recorded", log_id=recording.id)
            why = "a fault of ours; the line before tells more"
        _recorded.inc()
        self._drop(1, why)
        return None

    def add(self, entry: Entry) -> None:
        """Take in what was prepared; never waits."""
        _recorded.inc()
        fits = self._bytes + _cost(entry) <= self._settings.upstream_waiting_bytes_max
        segment = None if self._spool is None else self._spool.append(entry, deferred=not fits)
        if fits:
            self._wait_for_kafka(_Waiting(entry, segment))
        elif segment is None:
            self._drop(1, "too much waits for Kafka")
        else:
            self._wake()

    def _judge(self, project_id: str, event: bytes) -> Admission:
        items = Items(raws=[event], utf8=is_utf8(event), bytes_max=max(len(event), EVENT_BYTES_MAX + 1))
        return admit(
            items,
            project_id=project_id,
            accepted_ms=self._now_ms(),
            redactor=self._redactor,
            keeps_payload=self._keeps_payload(project_id),
        )

    def _wait_for_kafka(self, waiting: _Waiting) -> None:
        self._waiting.append(waiting)
        self._bytes += _cost(waiting.entry)
        self._wake()

    def _wake(self) -> None:
        self._more.set()
        self._empty.clear()

    async def _send_all(self) -> None:
        while True:
            if not self._waiting and not self._refill():
                self._more.clear()
                self._empty.set()
                await self._more.wait()
                continue
            batch = self._batch()
            try:
                await self._publish([waiting.entry for waiting in batch])
            except BrokerUnavailable as error:
                log.debug("gateway_waits_for_kafka", error=str(error))
                await asyncio.sleep(_RETRY_S)
                continue
            except Exception:
                # Sent again it would fail again, and hold up all that come after.
                log.exception("gateway_not_published", log_ids=[waiting.entry.id for waiting in batch[:10]])
                self._drop(len(batch), "Kafka does not take it")
            else:
                _published.inc(len(batch))
            self._settle(batch)

    def _batch(self) -> list[_Waiting]:
        """Return the next entries, all of one project, without taking them out."""
        found: list[_Waiting] = []
        size = 0
        for waiting in self._waiting:
            size += len(waiting.entry.raw)
            other = found and waiting.entry.project_id != found[0].entry.project_id
            if found and (other or size > _BATCH_BYTES_MAX or len(found) == _BATCH_ENTRIES_MAX):
                break
            found.append(waiting)
        return found

    async def _publish(self, entries: list[Entry]) -> None:
        deadline = asyncio.get_running_loop().time() + self._settings.ingest_publish_timeout_s
        project_id = entries[0].project_id
        records = pack(
            project_id,
            [entry.id for entry in entries],
            [msgspec.Raw(entry.raw) for entry in entries],
            partitions=await self._publisher.partitions(deadline=deadline),
            pack_bytes=self._settings.ingest_pack_bytes,
        )
        await self._publisher.publish(records, [(HEADER_PROJECT, project_id.encode())], deadline=deadline)

    def _settle(self, batch: list[_Waiting]) -> None:
        for waiting in batch:
            self._waiting.popleft()
            self._bytes -= _cost(waiting.entry)
            if self._spool is not None and waiting.segment is not None:
                self._spool.settle(waiting.segment)

    def _refill(self) -> bool:
        """Take up some of what is only on disk; tell whether there was any."""
        if self._spool is None:
            return False
        segment, entries, former = self._spool.take(_BATCH_BYTES_MAX)
        for entry in entries:
            self._wait_for_kafka(_Waiting(entry, segment))
        if former:
            _recovered.inc(len(entries))
        return bool(entries)

    def _drop(self, count: int, why: str) -> None:
        _dropped.inc(count)
        self._drops += count
        now_s = time.monotonic()
        if now_s - self._drop_logged_s >= _DROP_LOG_S:
            log.error("gateway_dropped", entries=self._drops, reason=why)
            self._drops, self._drop_logged_s = 0, now_s


def _cost(entry: Entry) -> int:
    return len(entry.raw) + _ENTRY_BYTES
