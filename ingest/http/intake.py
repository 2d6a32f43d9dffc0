"""What every route that takes events shares: a body within its limits, and accepted events in Kafka before the answer."""

import asyncio
import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from ingest.admission import Admission, MakeIds, admit, places_of, random_ids, take_out
from ingest.contract.access import Key, kept_since
from ingest.contract.control import ControlFollower
from ingest.contract.errors import BrokerUnavailable
from ingest.contract.metrics import INGEST_EVENTS, INGEST_REJECTED
from ingest.contract.topics import HEADER_PROJECT
from ingest.formats import FormatError, Items, decompress, encodings_of
from ingest.http.answers import Receive, Refused
from ingest.http.body import InFlight, Share, read_body
from ingest.http.turns import LOOP_BYTES_MAX, KafkaTurns, LoopTurns
from ingest.packing import pack
from ingest.publisher import Publisher
from ingest.settings import IngestSettings

# Below that, changing to a thread and back costs more than it gives.
_THREAD_FROM_BYTES: Final = 512 * 1024

_REDACTED_AT_ONCE_BYTES: Final = 128 * 1024
_THREADS: Final = 2

_received = INGEST_EVENTS.labels("received")
_accepted = INGEST_EVENTS.labels("accepted")
_rejected = INGEST_EVENTS.labels("rejected")
_unavailable = INGEST_EVENTS.labels("unavailable")

Found = TypeVar("Found")


class Intake:
    """The way in, one for the whole service, so that its bounds hold over all routes together."""

    def __init__(
        self, settings: IngestSettings, *, control: ControlFollower, publisher: Publisher, in_flight: InFlight
    ) -> None:
        self.settings = settings
        self._control = control
        self._redactor = settings.redactor()
        self._turns = LoopTurns()
        self._kafka_turns = KafkaTurns(settings.ingest_publishing_bytes_max)
        self._publisher = publisher
        self._in_flight = in_flight
        # How large a body becomes is known, and counted, only afterwards: few at once keep that bounded. Threads of our own,
        # because each thread that ever held a large body keeps some of its memory.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="intake")

    def share(self, key: Key) -> Share:
        """Return an empty share of the bytes held at once, for one request of a key; given back when its `with` block ends."""
        return self._in_flight.share(key.id)

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes], share: Share) -> bytes:
        """Read a request's body and undo its encodings.

        Raises:
            FormatError: an encoding that is not understood, broken data, or too much of it.
            Refused, ClientGone: as `read_body`.
        """
        encodings = encodings_of(headers.get(b"content-encoding", b"").decode("latin-1"))
        body = await read_body(receive, headers, self.settings, share)
        if not encodings:
            return body
        bytes_max = self.settings.ingest_decoded_bytes_max
        body = await self.work(len(body), functools.partial(decompress, body, encodings, bytes_max=bytes_max))
        share.grow_to(len(body))
        return body

    async def turn(self, key: Key, size: int) -> None:
        """Wait until a key may work on that many bytes, for what takes time in proportion to them."""
        await self._turns.turn(key.id, size)

    async def work(self, size: int, task: Callable[[], Found]) -> Found:
        """Do what takes time in proportion to a number of bytes: at once, or in a thread where they are many."""
        if size < _THREAD_FROM_BYTES:
            return task()
        return await asyncio.get_running_loop().run_in_executor(self._threads, task)

    async def admit(self, items: Items, *, key: Key, accepted_ms: int, make_ids: MakeIds = random_ids) -> Admission:
        """Judge the items of a request, and take out of them what must not be stored: secrets, and `data` where the project
        keeps none.
        """
        size = max(1, items.bytes_max)
        step = max(1, len(items.raws) * LOOP_BYTES_MAX // size)
        whole = Admission(ids=[], raws=[])
        for start in range(0, len(items.raws), step):
            part = items if step >= len(items.raws) else items.part(start, start + step)
            await self._turns.turn(key.id, size * len(part.raws) // len(items.raws))
            admission = admit(
                part,
                project_id=key.project_id,
                accepted_ms=accepted_ms,
                make_ids=make_ids,
                redactor=None,
                kept_since_ms=kept_since(self._control.access.purges.get(key.project_id, ()), accepted_ms),
                first=start,
            )
            await self._take_out(admission, part, key.project_id, start)
            if part is items:
                return admission
            whole.extend(admission)
        return whole

    async def _take_out(self, admission: Admission, items: Items, project_id: str, first: int) -> None:
        keeps_payload = self._control.access.rules_of(project_id).store_payloads
        places = places_of(admission, self._redactor, keeps_payload=keeps_payload)
        if not places:
            return
        work = functools.partial(take_out, admission, items, places, self._redactor, keeps_payload, first)
        # A text made for it costs a hundred times what others do, and must not hold up the loop.
        if sum(memoryview(admission.raws[place]).nbytes for place in places) < _REDACTED_AT_ONCE_BYTES:
            work()
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def publish(self, key: Key, admission: Admission) -> None:
        """Count a request's events, and put the accepted ones into Kafka; returns once all in-sync replicas have them.

        Raises:
            Refused: 503, Kafka did not acknowledge in time.
        """
        count = len(admission.ids)
        _received.inc(count + len(admission.rejected))
        if admission.rejected:
            _rejected.inc(len(admission.rejected))
            for reason, times in admission.reasons().items():
                INGEST_REJECTED.labels(reason).inc(times)
        if not count:
            return
        deadline = asyncio.get_running_loop().time() + self.settings.ingest_publish_timeout_s
        try:
            records = pack(
                key.project_id,
                admission.ids,
                admission.raws,
                partitions=await self._publisher.partitions(deadline=deadline),
                pack_bytes=self.settings.ingest_pack_bytes,
            )
            size = sum(len(record.value) for record in records)
            held = await self._kafka_turns.enter(key.id, size, deadline=deadline)
            try:
                await self._publisher.publish(records, [(HEADER_PROJECT, key.project_id.encode())], deadline=deadline)
            finally:
                self._kafka_turns.leave(key.id, held)
        except (BrokerUnavailable, TimeoutError) as error:
            _unavailable.inc(count)
            raise Refused(
                503,
                f"the events could not be stored now; {str(error) or 'too much is on its way to Kafka'}",
                slug="Ingest_KafkaUnavailable",
                suggested_fix="Send again after the time in Retry-After; with ids, or an Idempotency-Key, it counts once.",
                retry_after_s=self.settings.ingest_retry_after_s,
            ) from None
        _accepted.inc(count)


def refused(error: FormatError) -> Refused:
    """Return the answer to a body that cannot be taken apart."""
    return Refused(error.status, error.message)
