"""Rows of logs as the wire shows them (CONTRACT 2.2, 2.3, 3; SURFACE 6). Pure.

Optional members are absent, never null. What a producer sent as JSON (`data`, the members of `metadata`) is spliced into the
answer as the bytes it was stored as: numbers keep their spelling, members their order.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import orjson

from query_api.logs import DETAIL_COLUMNS, SHOWN
from query_api.paging import Place

TYPE: Final = "tool.execution"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EMPTY: Final = orjson.Fragment(b"{}")

# Flat spellings in `metadata`; ours win over a producer's member of the same name, because filters and groups go by them.
_FLAT: Final = (
    "tool_slug",
    "toolkit_slug",
    "user_id",
    "session_id",
    "connected_account_id",
    "auth_config_id",
    "sandbox_id",
    "request_id",
    "project_id",
    "failure_class",
    "http_status",
    "error_message",
    "error_code",
    "error_type",
)

# Members of `metadata` that the contract gives a type: clients that check answers would refuse a whole page over another value.
_CREDENTIAL_SOURCES: Final = frozenset((b'"connected_account"', b'"instant_account"', b'"custom_auth"', b'"no_auth"'))

_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def iso(at_ms: int) -> str:
    """Return an instant as ISO 8601 in UTC with three decimals and a Z."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def place_of(row: Sequence[Any]) -> Place:
    """Return where a row stands in the order of logs."""
    return Place(timestamp_ms=row[1], id=row[0])


def values_of(row: Sequence[Any]) -> dict[str, Any]:
    """Return what is known of a log by name, from a row of `ITEM_COLUMNS` or `DETAIL_COLUMNS`."""
    values = dict(zip(DETAIL_COLUMNS, row, strict=False))
    return values | dict(zip(SHOWN, orjson.loads(values["shown"]), strict=True))


def item(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one log of a page."""
    failed = values["status"] == "failed"
    found: dict[str, Any] = {
        "id": values["id"],
        "timestamp": iso(values["toUnixTimestamp64Milli(timestamp)"]),
        "type": TYPE,
        "status": values["status"],
        "level": values["level"] or ("error" if failed else "info"),
    }
    if values["message"]:
        found["message"] = values["message"]
    return found | {
        "metadata": metadata(values),
        "metrics": {"duration_ms": values["duration_ms"]},
        "parent": _parent(values),
    }


def detail(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one log in full."""
    start_ms, duration_ms = values["toUnixTimestamp64Milli(timestamp)"], values["duration_ms"]
    return item(values) | {
        "timings": {"start_time": start_ms, "end_time": start_ms + duration_ms},
        "context": _present(values, "session_id", "trace_id", "request_id"),
        "source": _present(values, "host", "framework", "language"),
        "data": orjson.Fragment(values["data"]) if values["data"][:1] == "{" else _EMPTY,
    }


def metadata(values: Mapping[str, Any], *, texts: Sequence[str] = ("instant_charge",)) -> dict[str, Any]:
    """Return the producer's members, the flat spellings, and the nested ones `tool.slug` and `toolkit.slug`.

    Args:
        texts: members that clients want to be strings; others of their name are left out.
    """
    members = _given(values["metadata"], texts)
    nested = {name: _nested(members.get(name), values[f"{name}_slug"]) for name in ("tool", "toolkit")}
    return _spliced(members) | _present(values, *_FLAT) | {"log_id": values["id"]} | nested


def typed_members(stored: str) -> dict[str, Any]:
    """Return the members of a stored `metadata` that the contract gives a type, where the producer's values are of it."""
    members = _given(stored, ("instant_charge",))
    return _spliced({name: members[name] for name in ("credential_source", "instant_charge") if name in members})


def _given(stored: str, texts: Sequence[str]) -> dict[str, msgspec.Raw]:
    """Return the producer's members without those that are not of the type the contract gives them."""
    members = _members(stored) if stored[:1] == "{" else {}
    if bytes(members.get("credential_source", b"")) not in _CREDENTIAL_SOURCES:
        members.pop("credential_source", None)
    for name in texts:
        if bytes(members.get(name, b""))[:1] != b'"':
            members.pop(name, None)
    return members


def _nested(given: msgspec.Raw | None, slug: str) -> Any:
    """Return `{"slug": ...}` with what a producer's own object of that name holds; its member of another kind stays."""
    if given is None:
        return {"slug": slug}
    if bytes(given)[:1] != b"{":
        return orjson.Fragment(bytes(given))
    return _spliced(_members(given)) | {"slug": slug}


def _spliced(members: dict[str, msgspec.Raw]) -> dict[str, Any]:
    return {name: orjson.Fragment(bytes(raw)) for name, raw in members.items()}


def _parent(values: Mapping[str, Any]) -> dict[str, str] | None:
    log_id, tool_slug = values["parent_log_id"], values["parent_tool_slug"]
    return {"log_id": log_id, "tool_slug": tool_slug} if log_id or tool_slug else None


def _present(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names if values[name]}
