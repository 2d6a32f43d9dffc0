"""From items to what goes to Kafka: validate each event, give it an id and a time where it has none, refuse the rest. Pure.

What is added is appended to the event's own bytes as last members, and the last one counts when a member stands there twice;
nothing that was sent is written anew, but for secrets, which are replaced here: Kafka is a store, too.
"""

import hashlib
import os
from base64 import urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from ingest.contract.errors import InvalidEvent
from ingest.contract.event import (
    EVENT_BYTES_MAX,
    TIMESTAMP_AHEAD_MS_MAX,
    TIMESTAMP_MS_MIN,
    Event,
    Identifier,
    check_encoding,
    check_objects,
    check_retention,
    check_timestamp,
    decode_event,
    timestamp_ms,
)
from ingest.contract.redact import COMMON, Redactor
from ingest.formats import Item, Items

_ID_PREFIX: Final = "log_"
# 9 bytes are 12 URL-safe characters without padding, also many in a row.
_ID_BYTES: Final = 9
_ID_CHARS: Final = 12
_SPACE: Final = b" \t\r\n"


class _Identity(msgspec.Struct, frozen=True):
    id: Identifier | None = None


_decode = msgspec.json.Decoder(Event).decode
_decode_id = msgspec.json.Decoder(_Identity).decode
_encode = msgspec.json.Encoder().encode

MakeIds = Callable[[Sequence[int]], list[str]]


class _Incomplete(NamedTuple):
    """An accepted item that lacks something: its place in the request, and among the accepted."""

    item: int
    place: int
    unnamed: bool
    untimed: bool


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """One item that was refused. `index` counts from 0, `line` (NDJSON) from 1; `id` is the event's own, if any."""

    index: int
    line: int | msgspec.UnsetType = msgspec.UNSET
    id: str | None = None
    code: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The outcome for one request: ids and bytes of the accepted events, in the order sent, and the refused ones."""

    ids: list[str]
    raws: list[Item]
    rejected: list[Rejected] = field(default_factory=list)

    def extend(self, more: "Admission") -> None:
        """Take in the outcome of the items that follow."""
        self.ids.extend(more.ids)
        self.raws.extend(more.raws)
        self.rejected.extend(more.rejected)

    def reasons(self) -> Counter[str]:
        """Count the refused ones by code."""
        return Counter(item.code for item in self.rejected)


def random_ids(indexes: Sequence[int]) -> list[str]:
    """Make fresh ids, 72 random bits each."""
    return _ids(os.urandom(_ID_BYTES * len(indexes)))


def retry_ids(project_id: str, idempotency_key: str) -> MakeIds:
    """Return a maker of ids that gives the same id for the same place of the same request, so that a retry counts once.

    Args:
        project_id: keys of different projects never meet.
        idempotency_key: as the client sent it.
    """
    seed = hashlib.sha256(f"{project_id}\0{idempotency_key}\0".encode())

    def make(indexes: Sequence[int]) -> list[str]:
        digests = []
        for index in indexes:
            each = seed.copy()
            each.update(b"%d" % index)
            digests.append(each.digest()[:_ID_BYTES])
        return _ids(b"".join(digests))

    return make


def admit(
    items: Items,
    *,
    project_id: str,
    accepted_ms: int,
    make_ids: MakeIds = random_ids,
    redactor: Redactor | None = COMMON,
    keeps_payload: bool = True,
    kept_since_ms: int = 0,
    first: int = 0,
) -> Admission:
    """Judge every item of a request.

    Args:
        items: as `formats.split` gives them.
        project_id: the project of the API key; a body that names another one is refused.
        accepted_ms: the time of acceptance, epoch ms; also the timestamp of events without one.
        make_ids: makes the ids of events that have none, from their indexes.
        redactor: takes secrets out of what is accepted; None leaves it to `take_out`.
        keeps_payload: False where the project keeps no `data`, which then goes no further.
        kept_since_ms: what the project keeps begins there, epoch ms; older events are refused.
        first: the index of the first item, where the items are a part of a request's.

    Returns:
        Accepted and refused items; one broken item never loses its neighbours.
    """
    oldest_ms, newest_ms = max(TIMESTAMP_MS_MIN, kept_since_ms), accepted_ms + TIMESTAMP_AHEAD_MS_MAX
    check_size = items.bytes_max > EVENT_BYTES_MAX
    ids: list[str] = []
    raws: list[Item] = []
    rejected: list[Rejected] = []
    incomplete: list[_Incomplete] = []
    for index, raw in enumerate(items.raws):
        try:
            if check_size:
                _check_size(raw)
            try:
                event = _decode(raw)
            except Exception:
                # The slow way finds out what is wrong; should it find nothing, its word counts.
                event = decode_event(raw)
            if not items.utf8:
                check_encoding(raw)
            check_objects(event)
            if event.project_id and event.project_id != project_id:
                raise InvalidEvent("project_mismatch", "`project_id` is not the project of the API key; leave it out")
            timestamp = event.timestamp
            if timestamp is None or timestamp == "":
                untimed = True
            else:
                untimed = False
                if isinstance(timestamp, str) or not oldest_ms <= timestamp <= newest_ms:
                    at_ms = timestamp_ms(timestamp)
                    check_timestamp(at_ms, accepted_ms=accepted_ms)
                    check_retention(at_ms, kept_since_ms=kept_since_ms)
        except InvalidEvent as refusal:
            rejected.append(_refuse(items, index, first, refusal))
            continue
        if untimed or not event.id:
            incomplete.append(_Incomplete(index, len(raws), not event.id, untimed))
        ids.append(event.id or "")
        raws.append(raw)
    if incomplete:
        _complete(items, ids, raws, rejected, incomplete, first, make_ids=make_ids, accepted_ms=accepted_ms)
    admission = Admission(ids=ids, raws=raws, rejected=rejected)
    if redactor is not None:
        take_out(admission, items, places_of(admission, redactor, keeps_payload=keeps_payload), redactor, keeps_payload, first)
    return admission


def places_of(admission: Admission, redactor: Redactor, *, keeps_payload: bool) -> Sequence[int]:
    """Return the places of accepted events that `take_out` has to look at."""
    return redactor.suspects(admission.raws) if keeps_payload else range(len(admission.raws))


def take_out(
    admission: Admission,
    items: Items,
    places: Sequence[int],
    redactor: Redactor,
    keeps_payload: bool,
    first: int = 0,
) -> None:
    """Take secrets, or all of `data`, out of accepted events, in place; one that breaks a limit without them is refused.

    Args:
        items: those that were admitted.
        places: as `places_of` gives them.
        first: as `admit` was given it.
    """
    ids, raws, rejected = admission.ids, admission.raws, admission.rejected
    broken: list[tuple[int, InvalidEvent]] = []
    for place in places:
        before = bytes(raws[place])
        raw = redactor.event(before, keeps_payload=keeps_payload)
        if raw == before:
            continue
        raws[place] = raw
        try:
            # A text grows by what stands for a short secret, and the worker holds the same limits against what it reads.
            decode_event(raw)
        except InvalidEvent as refusal:
            broken.append((place, InvalidEvent(refusal.reason, f"with its secrets replaced: {refusal.message}")))
    if broken:
        refused = {item.index - first for item in rejected}
        accepted = [index for index in range(len(items.raws)) if index not in refused]
        for place, reason in reversed(broken):
            rejected.append(_refuse(items, accepted[place], first, reason))
            del ids[place], raws[place]
        rejected.sort(key=lambda item: item.index)


def splice(raw: Item, *, event_id: str | None = None, timestamp: int | None = None) -> bytes:
    """Append members to an event's JSON object; every byte before its closing brace stays as it was."""
    added = b"" if event_id is None else b',"id":' + _encode(event_id)
    if timestamp is not None:
        added += b',"timestamp":%d' % timestamp
    # Slices of an array end with the brace; lines and whole bodies may have space behind it.
    view = memoryview(raw) if isinstance(raw, msgspec.Raw) else memoryview(raw.rstrip(_SPACE))
    return b"".join((view[:-1], added, b"}"))


def _complete(
    items: Items,
    ids: list[str],
    raws: list[Item],
    rejected: list[Rejected],
    incomplete: Sequence[_Incomplete],
    first: int,
    *,
    make_ids: MakeIds,
    accepted_ms: int,
) -> None:
    """Add what is missing, in place; an event that no longer fits with it is refused."""
    made = iter(make_ids([first + lacking.item for lacking in incomplete if lacking.unnamed]))
    too_large: list[int] = []
    for item, place, unnamed, untimed in incomplete:
        event_id = next(made) if unnamed else None
        raw = splice(raws[place], event_id=event_id, timestamp=accepted_ms if untimed else None)
        if event_id is not None:
            ids[place] = event_id
        raws[place] = raw
        # The worker holds the same limit against what it reads.
        if len(raw) > EVENT_BYTES_MAX:
            rejected.append(_refuse(items, item, first, _too_large(len(raw))))
            too_large.append(place)
    for place in reversed(too_large):
        del ids[place], raws[place]
    if too_large:
        rejected.sort(key=lambda refused: refused.index)


def _check_size(raw: Item) -> None:
    size = len(raw) if isinstance(raw, bytes) else memoryview(raw).nbytes
    if size > EVENT_BYTES_MAX:
        raise _too_large(size)


def _too_large(size: int) -> InvalidEvent:
    return InvalidEvent("event_too_large", f"the event has {size} bytes; at most {EVENT_BYTES_MAX} are taken")


def _refuse(items: Items, index: int, first: int, refusal: InvalidEvent) -> Rejected:
    return Rejected(
        index=first + index,
        line=msgspec.UNSET if items.lines is None else items.lines[index],
        id=_readable_id(items.raws[index]),
        code=refusal.reason,
        message=refusal.message,
    )


def _readable_id(raw: Item) -> str | None:
    """Find the id of an event that was refused, so that its sender knows which; None where it cannot be read."""
    try:
        return _decode_id(raw).id
    except (ValueError, RecursionError):
        return None


def _ids(entropy: bytes) -> list[str]:
    text = urlsafe_b64encode(entropy).decode()
    return [_ID_PREFIX + text[at : at + _ID_CHARS] for at in range(0, len(text), _ID_CHARS)]
