"""Logs as they come, as the API page tells them. Pure data."""

from typing import Final

from ingest.contract.openapi import Example, Json, Operation, Part, answer, parameter, text
from query_api.export.formats import FORMATS, MEDIA_TYPES
from query_api.filters import FIELDS, FILTERS_MAX, OPERATORS
from query_api.http.selections import VALUES_MAX
from query_api.http.stream import LIMIT_MAX
from query_api.live.tail import HEARTBEAT_S
from query_api.openapi.shared import AWAY, DATED, FROM, MOMENT, TO, either


def which() -> list[Json]:
    """Return the parameters that say which logs."""
    return [
        parameter(
            "filter",
            {"type": "array", "items": {"type": "string"}, "maxItems": FILTERS_MAX},
            f"`FIELD:OPERATOR:VALUE` with a field below and one of {either(OPERATORS)}, as in `user_id:contains:42`. The"
            " first two colons part it; what follows is the value, whatever it holds. Repeated: all must hold. Filters mean"
            " what they mean in the search of logs.",
            style="form",
            explode=True,
        ),
        *(
            parameter(
                name,
                {"type": "array", "items": {"type": "string"}, "maxItems": VALUES_MAX},
                "Logs whose field is exactly this. Repeated: any of them. Empty: logs without.",
                style="form",
                explode=True,
            )
            for name in FIELDS
        ),
    ]


_STREAM: Final = f"""\
Server-Sent Events without an end: each `data` is a log as the search shows it, each `id` a place to come back to.

Come back with the last `id` in `Last-Event-ID`, to any instance, with the same key and parameters: each log comes exactly
once, however late or out of order it arrived. A place is one in Kafka's partitions, not a time. An id that was changed, or
is of another key or question, is a 400.

Logs come as they become visible, within a moment by time: one may be older than one before it. After {HEARTBEAT_S:.0f}
seconds of silence there is a comment with the present place. A reader that does not keep up loses nothing: what it missed
is read when it gets there; one that takes nothing for a minute is cut off. A key that is revoked ends its streams.

A topic made anew is another log of Kafka: what was proved of the former one comes first, then the new one from its
beginning. What is written again after ClickHouse was wiped is not shown again to who has seen it.
"""

_EXPORT: Final = """\
All logs of a selection and a range as one file, sent while it is made, newest first, however many there are.

The file is the answer of one moment: what arrives meanwhile is not in it, and nothing is in it twice. A file that breaks off
breaks the connection: a client that ends without an error has the whole. `x-total-count` tells how many logs it holds; it is
left out where counting alone takes seconds.

**NDJSON**: a log a line, as the API shows it. **CSV** (RFC 4180, UTF-8) and **Parquet** are flat, with the same columns; what
a log has not is an empty cell, or null. In CSV a text that begins with `=`, `+`, `-`, `@`, a tab or a carriage return has an
apostrophe in front, so that no spreadsheet takes it for a formula. NDJSON and CSV are packed on the way where
`Accept-Encoding` names `zstd` or `gzip`.
"""

LIVE: Final = Part(
    tag="Logs as they come",
    tag_description="Follow logs, each exactly once, and take them along as a file.",
    operations=(
        Operation(
            method="GET",
            path="/v1/logs/stream",
            name="streamLogs",
            tag="Logs as they come",
            summary="Follow logs live",
            description=_STREAM,
            parameters=(
                parameter(
                    "from",
                    {"type": ["string", "number"]},
                    f"Begin with what Kafka accepted since then, to within a batch: {MOMENT}. Absent: now.",
                ),
                parameter(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
                    "End after so many logs; for scripts. Absent: no end.",
                ),
                *which(),
                parameter(
                    "Last-Event-ID", {"type": "string"}, "Go on behind this place; `from` is not heard then.", place="header"
                ),
            ),
            answers={200: answer("The stream.", text("Events."), headers=DATED, media="text/event-stream")},
            errors=(400, 401, 403, *AWAY),
            examples=(Example(title="The first log since a moment", query=(("from", "2026-01-01T00:00:00Z"), ("limit", "1"))),),
        ),
        Operation(
            method="GET",
            path="/v1/logs/export",
            name="exportLogs",
            tag="Logs as they come",
            summary="Export logs to a file",
            description=_EXPORT,
            parameters=(
                parameter("format", {"type": "string", "enum": list(FORMATS), "default": FORMATS[0]}, "What file."),
                parameter("from", {"type": ["string", "number"]}, f"{FROM}: {MOMENT}. Absent: all that is retained."),
                parameter("to", {"type": ["string", "number"]}, f"{TO.capitalize()}."),
                parameter(
                    "data",
                    {"type": "string", "enum": ["true", "false"], "default": "false"},
                    "With requests and responses: lines of NDJSON are then as the detail of a log.",
                ),
                *which(),
            ),
            answers={
                200: {
                    **answer("The file.", headers=DATED),
                    "content": {media: {"schema": text("A file.")} for media in MEDIA_TYPES.values()},
                }
            },
            errors=(400, 401, 403, *AWAY),
            examples=(
                Example(title="Failures as CSV", query=(("format", "csv"), ("status", "failed"))),
                Example(title="Everything, as NDJSON"),
            ),
        ),
    ),
)
