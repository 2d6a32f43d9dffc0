"""Rows of dead letters as the wire shows them. Pure."""

import base64
from collections.abc import Collection, Sequence
from typing import Any

from ingest.contract.event import IDENTIFIER_CHARS_MAX
from ingest.contract.replay import Letter, letter_id
from query_api.letters import COLUMNS
from query_api.log_items import iso
from query_api.paging import Place

# A character of UTF-8 has at most four bytes, so a cut loses at most three.
_CUT_MAX = 3


def id_of(row: Sequence[Any]) -> str:
    """Return the id of a row of `COLUMNS`."""
    return letter_id(*row[:4])


def place_of(row: Sequence[Any]) -> Place:
    """Return where a row stands in the order of dead letters."""
    return Place(timestamp_ms=_values(row)["accepted_ms"], id=id_of(row))


def ids_of(row: Sequence[Any]) -> tuple[str, ...]:
    """Return the ids under which its event is in the logs, if it is."""
    own = _values(row)["own_id"]
    return (id_of(row), own) if 0 < len(own) <= IDENTIFIER_CHARS_MAX else (id_of(row),)


def letter(row: Sequence[Any], *, project_id: str) -> Letter:
    """Return what a replay needs, from a row with all of its payload."""
    values = _values(row)
    return Letter(
        incarnation=values["incarnation"],
        partition=values["kafka_partition"],
        offset=values["kafka_offset"],
        index=values["kafka_index"],
        project_id=project_id,
        accepted_ms=values["accepted_ms"],
        reason=values["reason"],
        payload=base64.b64decode(values["payload"]),
    )


def item(row: Sequence[Any], *, replayed: Collection[str]) -> dict[str, Any]:
    """Return one dead letter.

    Args:
        replayed: ids of logs and of dead letters that became logs.
    """
    values = _values(row)
    raw = base64.b64decode(values["payload"])
    text, encoding = shown(raw, whole=len(raw) == values["bytes"])
    return {
        "id": id_of(row),
        "reason": values["reason"],
        "message": values["message"],
        "accepted_at": iso(values["accepted_ms"]),
        "origin": {
            "topic": values["kafka_topic"],
            "partition": values["kafka_partition"],
            "offset": values["kafka_offset"],
            "index": values["kafka_index"],
        },
        "bytes": values["bytes"],
        "payload": text,
        "encoding": encoding,
        "truncated": len(raw) < values["bytes"],
        "replayed": any(one in replayed for one in ids_of(row)),
    }


def shown(raw: bytes, *, whole: bool) -> tuple[str, str]:
    """Return bytes as text, and how: `utf-8` where they are that, else `base64`. A cut within a character is no fault."""
    for cut in range(1 if whole else _CUT_MAX + 1):
        try:
            return raw[: len(raw) - cut].decode(), "utf-8"
        except UnicodeDecodeError:
            continue
    return base64.b64encode(raw).decode(), "base64"


def _values(row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))
