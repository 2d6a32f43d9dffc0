"""`POST /v1/events`: the events of one request, from its headers to Kafka's acknowledgement."""

import time
from collections.abc import Callable, Mapping

import msgspec

from ingest.admission import Admission, MakeIds, random_ids, retry_ids
from ingest.cloudevents import mode_of, take_apart
from ingest.contract.access import Key
from ingest.contract.control import ControlFollower
from ingest.contract.http_errors import PROJECT_KEY_HEADER, credentials, mask_key
from ingest.contract.request_limits import IDEMPOTENCY_KEY_CHARS_MAX
from ingest.formats import FormatError, shape_of, split
from ingest.http.answers import Answer, Receive, Refused, Scope
from ingest.http.intake import Intake, refused
from ingest.http.turns import LOOP_BYTES_MAX

_encode = msgspec.json.Encoder().encode


class EventsRoute:
    """Everything the route needs, bound once."""

    def __init__(
        self,
        intake: Intake,
        *,
        control: ControlFollower,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._intake = intake
        self._control = control
        self._now_ms = now_ms

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
        with self._intake.share(key) as share:
            try:
                mode = mode_of(headers)
                shape = None if mode else shape_of(headers.get(b"content-type", b"").decode("latin-1"))
                make_ids = _make_ids(headers, key)
                body = await self._intake.read(receive, headers, share)
                if len(body) > LOOP_BYTES_MAX:
                    # Taking it apart takes a turn of its own.
                    await self._intake.turn(key, len(body))
                items_max = self._intake.settings.ingest_events_max
                enveloped = take_apart(body, mode, headers, items_max=items_max) if mode else None
                items = enveloped.items if enveloped else split(body, shape or "json", items_max=items_max)
            except FormatError as error:
                raise refused(error) from None
            del body
            admission = await self._intake.admit(items, key=key, accepted_ms=self._now_ms(), make_ids=make_ids)
            if enveloped:
                admission = enveloped.complete(admission)
            await self._intake.publish(key, admission)
        # A batch of CloudEvents may hold none.
        if admission.rejected and not admission.ids:
            raise nothing_accepted(admission)
        return Answer(
            status=202,
            body=_encode({"accepted": len(admission.ids), "ids": admission.ids, "rejected": admission.rejected}),
        )


def _make_ids(headers: Mapping[bytes, bytes], key: Key) -> MakeIds:
    idempotency_key = headers.get(b"idempotency-key", b"").decode("latin-1")
    if len(idempotency_key) > IDEMPOTENCY_KEY_CHARS_MAX:
        raise Refused(400, f"the header idempotency-key is longer than {IDEMPOTENCY_KEY_CHARS_MAX} characters")
    return retry_ids(key.project_id, idempotency_key) if idempotency_key else random_ids


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
    if not control.caught_up.is_set():
        # A key that is known already could belong to a project whose rules are not: its payloads must not be stored.
        raise Refused(503, "the API keys have not been read yet", slug="Ingest_Starting", retry_after_s=1)
    key = control.access.find(value)
    if key is None:
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
