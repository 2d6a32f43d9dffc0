"""The JSON of one event, put together from pieces that were encoded when they were known. Pure.

The members are those of `ingest.contract.event.Event`. A caller pays for what changes from call to call; what repeats (tool,
user, session, source) comes from a cache.
"""

import functools
from collections.abc import Mapping
from typing import Any, Final, TypedDict

import msgspec

from ingest.client.snapshots import METADATA_BYTES_MAX, snapshot, text
from ingest.contract.event import DURATION_MS_MAX, IDENTIFIER_CHARS_MAX, MESSAGE_CHARS_MAX

_CACHED: Final = 4096
_TOP: Final = ("user_id", "session_id", "toolkit_slug", "connected_account_id", "auth_config_id", "sandbox_id")
_CONTEXT: Final = ("trace_id", "request_id")
_SLUG_UNKNOWN: Final = "UNKNOWN_TOOL"

_encode = msgspec.json.Encoder().encode


class Labels(TypedDict, total=False):
    """What may be said of a call beside what happened; texts beyond 256 characters are cut."""

    user_id: str | None
    session_id: str | None
    toolkit_slug: str | None
    connected_account_id: str | None
    auth_config_id: str | None
    sandbox_id: str | None
    trace_id: str | None
    request_id: str | None
    metadata: Mapping[str, Any] | None


LABELS: Final = frozenset(Labels.__annotations__)


class Known:
    """Labels that many calls have, and their JSON, made once."""

    __slots__ = ("_last", "json", "labels")

    def __init__(self, labels: Mapping[str, Any], *, metadata: bool = True) -> None:
        self.labels = labels if metadata else {name: value for name, value in labels.items() if name != "metadata"}
        self.json = labels_json(self.labels)
        self._last: tuple[Known | None, Known] = (None, self)

    def under(self, outer: "Known") -> "Known":
        """Return these labels together with those they win over: of a session, say."""
        if not self.labels:
            return outer
        last, merged = self._last
        if last is not outer:
            # The same function is mostly called in the same session many times over.
            merged = Known({**outer.labels, **self.labels})
            self._last = (outer, merged)
        return merged


def labels_json(labels: Mapping[str, Any]) -> bytes:
    """Return the members of an event that labels stand for, each followed by a comma."""
    made = b"".join([_member(name, value) for name in _TOP if (value := _identifier(labels.get(name)))])
    context = {name: value for name in _CONTEXT if (value := _identifier(labels.get(name)))}
    if context:
        made += b'"context":' + _encode(context) + b","
    metadata = labels.get("metadata")
    if metadata is not None:
        found = snapshot(metadata, METADATA_BYTES_MAX)
        made += b'"metadata":%b,' % (found if found.startswith(b"{") else b'{"value":%b}' % found)
    return made


def tool_json(tool_slug: object) -> bytes:
    """Return the member that names the tool, followed by a comma."""
    return _member("tool_slug", _identifier(tool_slug) or _SLUG_UNKNOWN)


def source_json(*, framework: str | None) -> bytes:
    """Return the member that says where events come from, followed by a comma."""
    framework_member = {"framework": _identifier(framework)} if framework else {}
    return b'"source":%b,' % _encode({**framework_member, "language": "python", "host": "sdk"})


def parent_json(log_id: str, tool_slug: object) -> bytes:
    """Return the member that names the calling execution, followed by a comma."""
    return b'"parent":%b,' % _encode({"log_id": log_id, "tool_slug": _identifier(tool_slug)})


def compose(
    *,
    log_id: str,
    started_ms: int,
    duration_ms: float,
    members: bytes,
    failure: bytes | None = None,
    message: str | None = None,
    request: bytes | None = None,
    response: bytes | None = None,
) -> bytes:
    """Return the event.

    Args:
        log_id: its id.
        started_ms: start of the call, epoch ms.
        duration_ms: how long it took.
        members: JSON of other members, each followed by a comma.
        failure: JSON of `error`; a call without one succeeded.
        message: one line for people; by default the one that ingest would make.
        request: JSON of what the tool took.
        response: JSON of what the tool gave.
    """
    # Also of what is no number at all (NaN), which compares with nothing.
    duration_ms = float(min(duration_ms, DURATION_MS_MAX)) if duration_ms >= 0 else 0.0
    ending = b'"success"' if failure is None else b'"failed","error":%b' % failure
    if message:
        ending += b',"message":%b' % _encode(text(message, MESSAGE_CHARS_MAX))
    if request is not None or response is not None:
        ending += b',"data":{%b%b%b}' % (
            b"" if request is None else b'"request":{"payload":%b}' % request,
            b"," if request is not None and response is not None else b"",
            b"" if response is None else b'"response":{"body":%b}' % response,
        )
    head = (_encode(log_id), started_ms, members, duration_ms, ending)
    return b'{"id":%b,"timestamp":%d,%b"duration_ms":%.3f,"status":%b}' % head


def _identifier(value: object) -> str:
    return "" if value is None else text(value, IDENTIFIER_CHARS_MAX)


@functools.lru_cache(maxsize=_CACHED)
def _member(name: str, value: str) -> bytes:
    return b'"%b":%b,' % (name.encode(), _encode(value))


NO_LABELS: Final = Known({})
