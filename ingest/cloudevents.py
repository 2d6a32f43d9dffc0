"""CloudEvents over HTTP: which content mode a request is in, and its events. Pure.

Structured and batched ones are in the body whole; of a binary one the attributes are headers and the body is the data.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from ingest.admission import Admission, Rejected
from ingest.contract.cloudevents import BATCH_TYPE, FORMATS_HEAD, STRUCTURED_TYPE, event_of, of_structured, readable_id
from ingest.contract.errors import InvalidEvent
from ingest.formats import FormatError, Item, Items, split

Mode = Literal["structured", "batch", "binary"]

_PREFIX: Final = b"ce-"
# Any of these says that a CloudEvent was meant, and is then told what the others are.
_TELLING: Final = (b"ce-specversion", b"ce-id", b"ce-source", b"ce-type")
_ESCAPED: Final = re.compile(r"\\(.)")


def mode_of(headers: Mapping[bytes, bytes]) -> Mode | None:
    """Return the content mode of a request that carries CloudEvents; None for any other.

    Raises:
        FormatError: 415 for CloudEvents in a format that is not understood.
    """
    media = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if media == STRUCTURED_TYPE:
        return "structured"
    if media == BATCH_TYPE:
        return "batch"
    if media.startswith(FORMATS_HEAD):
        raise FormatError(415, f"the content type {media!r} is not understood; send {STRUCTURED_TYPE} or {BATCH_TYPE}")
    return "binary" if any(name in headers for name in _TELLING) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Enveloped:
    """The events of a request's CloudEvents, and those that hold none.

    Args:
        items: events, to be judged as any other's.
        places: where each of them stood in the request.
        names: the CloudEvents' own ids, by place, as far as they can be read.
        rejected: what is no CloudEvent with an event, in order.
    """

    items: Items
    places: Sequence[int]
    names: Callable[[int], str | None]
    rejected: Sequence[Rejected]

    def complete(self, admission: Admission) -> Admission:
        """Return what became of all: the id of a refused one is the CloudEvent's own, its place that in the request."""
        rejected = list(self.rejected)
        for refused in admission.rejected:
            place = self.places[refused.index]
            rejected.append(msgspec.structs.replace(refused, index=place, id=self.names(place)))
        rejected.sort(key=lambda refused: refused.index)
        return Admission(ids=admission.ids, raws=admission.raws, rejected=rejected)


def take_apart(body: bytes, mode: Mode, headers: Mapping[bytes, bytes], *, items_max: int) -> Enveloped:
    """Take the events of a request out of their envelopes.

    Args:
        body: decompressed.
        headers: of the request; of a binary one they hold the attributes.
        items_max: a batch may hold that many.

    Raises:
        FormatError: 400 for a batch that is no array, 413 for one that is too large.
    """
    if mode == "binary":
        name = headers.get(b"ce-id", b"").decode("latin-1") or None
        return _enveloped([body], lambda raw: event_of(_attributes(headers), bytes(raw)), lambda _: name)
    if mode == "structured":
        return _enveloped([body], of_structured, readable_id)
    stripped = body.strip()
    if stripped[:1] != b"[":
        raise FormatError(400, "a batch of CloudEvents is a JSON array")
    # The standard has a batch of none.
    empty = stripped[-1:] == b"]" and not stripped[1:-1].strip()
    raws = [] if empty else split(body, "json", items_max=items_max).raws
    return _enveloped(raws, of_structured, readable_id)


def _enveloped(raws: Sequence[Item], read: Callable[[Item], bytes], name: Callable[[Item], str | None]) -> Enveloped:
    events: list[bytes] = []
    places: list[int] = []
    rejected: list[Rejected] = []
    for place, raw in enumerate(raws):
        try:
            event = read(raw)
        except InvalidEvent as refusal:
            rejected.append(Rejected(index=place, id=name(raw), code=refusal.reason, message=refusal.message))
        else:
            events.append(event)
            places.append(place)
    # An envelope says nothing of the encoding of its data: each event is looked at.
    items = Items(raws=events, utf8=False, bytes_max=sum(map(len, events)))
    return Enveloped(items=items, places=places, names=lambda place: name(raws[place]), rejected=rejected)


def _attributes(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """Return the attributes of a binary CloudEvent.

    Raises:
        InvalidEvent: a header's value is not UTF-8 once it is decoded.
    """
    found = {
        name[len(_PREFIX) :].decode("latin-1"): _value(name, value)
        for name, value in headers.items()
        if name.startswith(_PREFIX) and value
    }
    found.pop("datacontenttype", None)
    if content_type := headers.get(b"content-type"):
        found["datacontenttype"] = content_type.decode("latin-1")
    return found


def _value(name: bytes, raw: bytes) -> str:
    """Undo what the binding does to a value: one round of percent-encoding, and the quotes of its older versions."""
    text = raw.decode("latin-1")
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = _ESCAPED.sub(r"\1", text[1:-1])
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise InvalidEvent("invalid_encoding", f"the header {name.decode('latin-1')} is not UTF-8 once decoded") from None
