"""`POST /v1/events`: the events of one request, from its headers to Kafka's acknowledgement."""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from ingest.admission import Admission, MakeIds, admit, random_ids, retry_ids
from ingest.contract.access import Key
from ingest.contract.control import ControlFollower
from ingest.contract.errors import BrokerUnavailable
from ingest.contract.http_errors import PROJECT_KEY_HEADER, credentials, mask_key
from ingest.contract.metrics import INGEST_EVENTS, INGEST_REJECTED
from ingest.contract.request_limits import IDEMPOTENCY_KEY_CHARS_MAX
from ingest.contract.topics import HEADER_PROJECT
from ingest.formats import FormatError, decompress, encodings_of, shape_of, split
from ingest.http.answers import Answer, Receive, Refused, Scope
from ingest.http.body import InFlight, read_body
from ingest.packing import pack
from ingest.publisher import Publisher
from ingest.settings import IngestSettings

# Below that, changing to a thread and back costs more than it gives.
_THREAD_FROM_BYTES: Final = 512 * 1024

_THREADS: Final = 2

_encode = msgspec.json.Encoder().encode
_received = INGEST_EVENTS.labels("received")
_accepted = INGEST_EVENTS.labels("accepted")
_rejected = INGEST_EVENTS.labels("rejected")
_unavailable = INGEST_EVENTS.labels("unavailable")


class EventsRoute:
    """Everything the route needs, bound once."""

    def __init__(
        self,
        settings: IngestSettings,
        *,
        control: ControlFollower,
        publisher: Publisher,
        in_flight: InFlight,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings
        self._control = control
        self._publisher = publisher
        self._in_flight = in_flight
        self._now_ms = now_ms
        # How large a body becomes is known, and counted, only afterwards: few at once keep that bounded. Threads of our own,
        # because each thread that ever held a large body keeps some of its memory.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="decompress")

    async def __call__(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Answer:
        """Answer one request.

        Args:
            scope: ASGI's, of a POST.
            headers: of the request, the last of each name, in lower case.
            receive: gives the body.

        Raises:
            Refused: the request as a whole is not taken.
            ClientGone: nobody waits for an answer.
        """
        key = authenticate(self._control, scope)
        with self._in_flight.share() as share:
            try:
                shape = shape_of(headers.get(b"content-type", b"").decode("latin-1"))
                encodings = encodings_of(headers.get(b"content-encoding", b"").decode("latin-1"))
                make_ids: MakeIds = random_ids
                if idempotency_key := headers.get(b"idempotency-key", b"").decode("latin-1"):
                    if len(idempotency_key) > IDEMPOTENCY_KEY_CHARS_MAX:
                        raise Refused(400, f"the header idempotency-key is longer than {IDEMPOTENCY_KEY_CHARS_MAX} characters")
                    make_ids = retry_ids(key.project_id, idempotency_key)
                body = await read_body(receive, headers, self._settings, share)
                if encodings:
                    body = await self._decompress(body, encodings)
                    share.grow_to(len(body))
                items = split(body, shape, items_max=self._settings.ingest_events_max)
            except FormatError as error:
                raise Refused(error.status, error.message) from None
            del body
            admission = admit(items, project_id=key.project_id, accepted_ms=self._now_ms(), make_ids=make_ids)
            await self._publish(key.project_id, admission)
        if not admission.ids:
            raise nothing_accepted(admission)
        return Answer(
            status=202,
            body=_encode({"accepted": len(admission.ids), "ids": admission.ids, "rejected": admission.rejected}),
        )

    async def _decompress(self, body: bytes, encodings: Sequence[str]) -> bytes:
        bytes_max = self._settings.ingest_decoded_bytes_max
        if len(body) < _THREAD_FROM_BYTES:
            return decompress(body, encodings, bytes_max=bytes_max)
        work = functools.partial(decompress, body, encodings, bytes_max=bytes_max)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _publish(self, project_id: str, admission: Admission) -> None:
        count = len(admission.ids)
        _received.inc(count + len(admission.rejected))
        if admission.rejected:
            _rejected.inc(len(admission.rejected))
            for reason, times in admission.reasons().items():
                INGEST_REJECTED.labels(reason).inc(times)
        if not count:
            return
        deadline = asyncio.get_running_loop().time() + self._settings.ingest_publish_timeout_s
        try:
            records = pack(
                project_id,
                admission.ids,
                admission.raws,
                partitions=await self._publisher.partitions(deadline=deadline),
                pack_bytes=self._settings.ingest_pack_bytes,
            )
            await self._publisher.publish(records, [(HEADER_PROJECT, project_id.encode())], deadline=deadline)
        except BrokerUnavailable as error:
            _unavailable.inc(count)
            raise Refused(
                503,
                f"the events could not be stored now; {error}",
                slug="Ingest_KafkaUnavailable",
                suggested_fix="Send again after the time in Retry-After; with ids, or an Idempotency-Key, it counts once.",
                retry_after_s=self._settings.ingest_retry_after_s,
            ) from None
        _accepted.inc(count)


def authenticate(control: ControlFollower, scope: Scope) -> Key:
    """Return the key of a request that may send events.

    Raises:
        Refused: 401 without a key, with several, or with one that is not in force; 403 where it may not send; 503 while the
            keys have not been read yet.
    """
    found = credentials(scope["headers"])
    if not found:
        raise Refused(401, f"no API key; send it in the header {PROJECT_KEY_HEADER}")
    if len(found) > 1:
        names = ", ".join(sorted({name for name, _ in found}))
        raise Refused(401, f"more than one credential ({names}); send one {PROJECT_KEY_HEADER}")
    name, value = found[0]
    if name != PROJECT_KEY_HEADER:
        raise Refused(401, f"events need the key of a project in the header {PROJECT_KEY_HEADER}, not {name}")
    key = control.access.find(value)
    if key is None:
        if not control.caught_up.is_set():
            raise Refused(503, "the API keys have not been read yet", slug="Ingest_Starting", retry_after_s=1)
        raise Refused(401, f"Invalid API key: {mask_key(value)}")
    if not key.project_id:
        raise Refused(403, "this key belongs to an organisation; events need the key of a project")
    if key.scope == "read":
        raise Refused(403, "this key may only read; events need a key with the scope full or ingest")
    return key


def nothing_accepted(admission: Admission) -> Refused:
    """Return the 400 that tells why each event was refused."""
    first = admission.rejected[0]
    where = f"line {first.line}" if first.line is not msgspec.UNSET else f"index {first.index}"
    return Refused(
        400,
        f"none of {len(admission.rejected)} events was accepted; the first, at {where}: {first.message}",
        slug="Ingest_NothingAccepted",
        suggested_fix="Please check the payload; `rejected` says what is wrong with each event.",
        extra={"rejected": admission.rejected},
    )
