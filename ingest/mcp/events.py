"""A tool call as an event of the ledger. Pure."""

import math
import re
from typing import Any, Final

import msgspec

from ingest.contract.errors import InvalidEvent
from ingest.contract.event import DURATION_MS_MAX, EVENT_BYTES_MAX, IDENTIFIER_CHARS_MAX, MESSAGE_CHARS_MAX, decode_event
from ingest.mcp.call import Call
from ingest.mcp.messages import value
from ingest.mcp.scopes import session_of
from ingest.mcp.setup import Setup

# What of an event its payload may be: the rest leaves room for every other member at its longest.
_DATA_BYTES_MAX: Final = EVENT_BYTES_MAX - 128 * 1024
# Texts of a payload that is too large are cut to the first of these lengths at which it fits.
_CUT_CHARS: Final = (16_384, 1_024, 64)
_UNFIT: Final = re.compile(r"\W+")
_FRAMEWORK: Final = "mcp"


def toolkit_of(server: str, setup: Setup) -> str:
    """Return the toolkit: as given, else the server's name in words parted by `_`, in lower case."""
    for name in (setup.toolkit, server, setup.fallback):
        slug = _UNFIT.sub("_", name or "").strip("_").lower()
        if slug:
            return slug[:IDENTIFIER_CHARS_MAX]
    return _FRAMEWORK


def tool_slug_of(tool: str, toolkit: str) -> str:
    """Return `TOOLKIT_TOOL`; a tool whose name begins with its toolkit's does not get it twice."""
    name = _UNFIT.sub("_", tool).strip("_").upper() or "UNNAMED"
    prefix = toolkit.upper()
    slug = name if name == prefix or name.startswith(f"{prefix}_") else f"{prefix}_{name}"
    return slug[:IDENTIFIER_CHARS_MAX]


def event_of(call: Call, setup: Setup, *, id_: str, payloads: bool = True) -> bytes:
    """Return an event's JSON that ingest accepts, whatever the call was. Its secrets are still in it.

    Args:
        id_: the event's id, made here so that sending it again counts once.
        payloads: whether arguments and result are a part of it.
    """
    assert call.ended is not None, "only calls that have ended become events"
    toolkit = toolkit_of(call.server, setup)
    event: dict[str, Any] = {
        "id": id_,
        "timestamp": call.started.epoch_ms,
        "tool_slug": tool_slug_of(call.tool, toolkit),
        "toolkit_slug": toolkit,
        "status": "success" if call.fault is None else "failed",
        "duration_ms": min(round(call.ended.ms_since(call.started), 3), DURATION_MS_MAX),
        "user_id": _identifier(setup.user),
        "session_id": _identifier(setup.session or session_of(call.scope) or setup.run_id),
        "context": _given(request_id=_identifier(call.request_id), trace_id=_identifier(call.trace_id)),
        "source": _given(framework=_FRAMEWORK, host=_identifier(setup.host)),
        "metadata": _metadata(call, setup),
    }
    if call.fault is not None:
        event["error"] = _given(
            message=call.fault.message[:MESSAGE_CHARS_MAX],
            code=_code(call.fault.code),
            type=_identifier(call.fault.kind),
        )
    event = {name: member for name, member in event.items() if member is not None}
    try:
        whole = msgspec.json.encode(event | ({"data": _data(call)} if payloads else {}))
        decode_event(whole)
        return whole
    except InvalidEvent as fault:
        # A payload may hold what no event may.
        reason = fault.reason
    except RecursionError:
        reason = "nested_too_deep"
    event["metadata"] |= {"mcp.payload_left_out": reason}
    return msgspec.json.encode(event)


def _metadata(call: Call, setup: Setup) -> dict[str, Any]:
    return _given(
        **{
            "mcp.transport": setup.transport,
            "mcp.tool.name": call.tool[:MESSAGE_CHARS_MAX] or None,
            "mcp.server.name": call.server[:IDENTIFIER_CHARS_MAX] or None,
            "mcp.server.version": call.server_version[:IDENTIFIER_CHARS_MAX] or None,
            "mcp.client.name": call.peers.client[:IDENTIFIER_CHARS_MAX] or None,
            "mcp.client.version": call.peers.client_version[:IDENTIFIER_CHARS_MAX] or None,
            "mcp.protocol.version": call.peers.protocol_version[:IDENTIFIER_CHARS_MAX] or None,
            "mcp.session.id": _identifier(session_of(call.scope)),
            "jsonrpc.request.id": _identifier(call.request_id),
            "mcp.progress.token": _identifier(call.progress_token),
            "mcp.progress.count": call.progress_count or None,
            "mcp.cancelled": call.cancelled or None,
            "mcp.rounds": call.rounds if call.rounds > 1 else None,
            "mcp.result.type": _identifier(call.result_type) if call.result_type != "complete" else None,
            "mcp.task.id": call.task_id[:IDENTIFIER_CHARS_MAX] or None,
        }
    )


def _data(call: Call) -> dict[str, Any]:
    """Return arguments and answer, byte for byte where an event can hold them."""
    parts = {name: part for name, part in (("request", call.request), ("response", call.response)) if part is not None}
    room = _DATA_BYTES_MAX
    fitted: dict[str, Any] = {}
    # The smaller one first: what it leaves is the other's.
    for left, name in zip(range(len(parts), 0, -1), sorted(parts, key=lambda each: len(parts[each])), strict=True):
        share = room // left
        fitted[name] = msgspec.Raw(_fit(parts[name], share))
        room -= len(fitted[name])
    return {name: fitted[name] for name in parts}


def _fit(raw: bytes, bytes_max: int) -> bytes:
    if len(raw) <= bytes_max:
        return raw
    read = value(raw)
    for chars in _CUT_CHARS if read is not None else ():
        shorter = msgspec.json.encode(_shortened(read, chars))
        if len(shorter) <= bytes_max:
            return shorter
    return msgspec.json.encode({"cut": True, "bytes": len(raw)})


def _shortened(part: Any, chars_max: int) -> Any:
    """Return a JSON value whose texts are cut, each saying how long it was."""
    if isinstance(part, str):
        return part if len(part) <= chars_max else f"{part[:chars_max]}… ({len(part)} characters)"
    if isinstance(part, list):
        return [_shortened(each, chars_max) for each in part]
    if isinstance(part, dict):
        return {name: _shortened(each, chars_max) for name, each in part.items()}
    return part


def _identifier(part: str | float | None) -> str | None:
    return None if part is None or part == "" else str(part)[:IDENTIFIER_CHARS_MAX]


def _code(code: int | str | None) -> int | str | None:
    # Beyond 64 bits a number is no code that anybody reads.
    return code if not isinstance(code, int) or math.log2(abs(code) + 1) < 63 else str(code)[:IDENTIFIER_CHARS_MAX]


def _given(**parts: Any) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part is not None}
