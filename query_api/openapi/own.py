"""Our own routes of usage, corrections and freshness, as the API page tells them. Pure data."""

from typing import Final

from ingest.contract import sketch
from ingest.contract.openapi import Example, Json, Operation, Part, answer, nullable, parameter, record, ref, text, whole
from query_api.http import v1 as code
from query_api.openapi.shared import (
    ABSENT,
    AWAY,
    COMPLETE_UNTIL,
    MOMENT,
    NEXT_CURSOR,
    SESSIONS,
    UNDATED,
    USAGE_RANGE,
    VALUES_MAX,
    either,
    found,
)
from query_api.openapi.verification import VERIFICATION
from query_api.usage.question import METRIC_ORDERS

_COUNT: Final = {"type": "integer", "minimum": 0}
_FILTERS: Final = {
    "tool_slug": "Of these tools.",
    "toolkit_slug": "Of these toolkits.",
    "user_id": "Of these users.",
    "session_id": "Of these sessions.",
    "status": "`success` or `failed`.",
    "failure_class": "Failures of these classes, as `GET /v1/failures` names them.",
}
_METRICS: Final[dict[str, Json]] = {
    "calls": {**_COUNT, "description": "Tool calls."},
    "failed": {**_COUNT, "description": "Those that failed."},
    "error_rate": {
        "type": ["number", "null"],
        "minimum": 0,
        "maximum": 1,
        "description": "`failed / calls`; null without a call.",
    },
    **{
        f"p{percent}_ms": {
            "type": ["number", "null"],
            "minimum": 0,
            "description": f"{percent} % of the calls took at most so long, ms; within 1 % of a duration that exists; null"
            " without a call.",
        }
        for percent in (50, 95, 99)
    },
    "active_users": {**_COUNT, "description": "Different users with a call in the row."},
    "active_sessions": {**_COUNT, "description": "Different sessions with a call in the row."},
    "sessions": {**_COUNT, "description": "Sessions created in the row."},
}


def _near(duration_ms: float) -> float:
    """Return what a percentile tells of a duration."""
    return sketch.value(sketch.bucket(duration_ms))


def _moment(name: str, description: str) -> Json:
    return parameter(name, {"type": ["string", "number"]}, description)


def filters() -> list[Json]:
    """Return the filters of usage as parameters; each may be repeated."""
    return [
        parameter(
            name,
            {"type": "array", "items": {"type": "string"}, "maxItems": VALUES_MAX},
            f"{_FILTERS[name]} Repeated: any of them. Empty: calls without.",
            style="form",
            explode=True,
        )
        for name in code.FILTERS
    ]


def group_by() -> Json:
    """Return the parameter that names what rows are grouped by."""
    return parameter(
        "group_by",
        {
            "type": "array",
            "items": {"type": "string", "enum": list(code.GROUPS)},
            "maxItems": code.GROUP_BY_MAX,
            "uniqueItems": True,
        },
        f"Up to {code.GROUP_BY_MAX} of {either(code.GROUPS)}; with commas, or repeated.",
        style="form",
        explode=False,
    )


def _metrics() -> Json:
    """Return the parameter that names what is answered."""
    return parameter(
        "metrics",
        {"type": "array", "items": {"type": "string", "enum": list(METRIC_ORDERS)}, "maxItems": len(METRIC_ORDERS)},
        "Which metrics to answer, with commas or repeated; all by default. Fewer are quicker: users and sessions by tool cost"
        " most.",
        style="form",
        explode=False,
    )


def _limit(description: str) -> Json:
    return parameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": code.LIMIT_MAX, "default": code.LIMIT_DEFAULT}, description
    )


def _keys() -> dict[str, Json]:
    return {name: text('With `group_by` alone. `""`: calls without it.') for name in code.GROUPS}


_USAGE_ROW: Final = record(
    {
        "start": whole("Start of the interval, epoch ms; also where `from` cuts it. With `interval` alone."),
        **_keys(),
        **_METRICS,
    },
    optional=("start", *code.GROUPS, *_METRICS),
)
_SPAN: Final = {
    "from": whole("As it was understood, epoch ms."),
    "to": whole("As it was understood, epoch ms."),
}
_EXAMPLE_METRICS: Final = {
    "calls": 2,
    "failed": 1,
    "error_rate": 0.5,
    "p50_ms": _near(131.5),
    "p95_ms": _near(202),
    "p99_ms": _near(202),
    "active_users": 1,
    "active_sessions": 1,
    "sessions": 1,
}

OWN: Final = Part(
    tag="Usage, in depth",
    tag_description="What the usage routes above do not tell: error rates, percentiles, active users, series, in any time"
    " zone, and what late events changed. An unknown parameter is a 400 that names it.",
    operations=(
        Operation(
            method="GET",
            path="/v1/usage",
            name="getUsage",
            tag="Usage, in depth",
            summary="Calls, error rates, percentiles, users and sessions",
            description=f"Exact for any range in milliseconds. {SESSIONS}\n\n"
            "Without `interval` and `group_by`: one row, equal to `totals`. With `interval` alone every interval has a row,"
            " empty ones with zeros and nulls; with `group_by` only those with calls. `totals` are of everything asked for,"
            " whatever `limit` leaves; `truncated` tells that it left some out.\n\n"
            "Order where none is asked: `start`, then calls descending, then key. Ties by key ascending, nulls last. " + ABSENT,
            parameters=(
                _moment("from", f"Begin, inclusive: {MOMENT}. {USAGE_RANGE}"),
                _moment("to", f"End, exclusive: {MOMENT}."),
                group_by(),
                parameter(
                    "interval",
                    {"type": "string", "enum": list(code.UNITS)},
                    f"A row for each of these, by the clock of `timezone`; at most {code.INTERVALS_MAX:,}. An hour that is"
                    " lived twice is two intervals; a day has 23 to 25 hours where the clock changes.",
                ),
                parameter(
                    "timezone",
                    {"type": "string", "default": "UTC"},
                    "Of the borders of intervals: an IANA name, as `Europe/Berlin`; an unknown one is a 400.",
                ),
                parameter(
                    "order_by",
                    {"type": "string", "enum": [*METRIC_ORDERS, "key"]},
                    "A metric, or `key`; without `order_direction` descending.",
                ),
                parameter(
                    "order_direction",
                    {"type": "string", "enum": ["asc", "desc"]},
                    "Direction of the order; nulls are last in both.",
                ),
                _metrics(),
                _limit("Most rows. A whole number in any spelling."),
                *filters(),
            ),
            answers={
                200: found(
                    "Rows and totals.",
                    record(
                        {
                            **_SPAN,
                            "interval": nullable(text("As asked for.", enum=list(code.UNITS))),
                            "timezone": text("As asked for."),
                            "group_by": {"type": "array", "items": text("As asked for.", enum=list(code.GROUPS))},
                            "rows": {"type": "array", "items": ref("UsageRow")},
                            "totals": record(_METRICS, optional=tuple(_METRICS)),
                            "truncated": {"type": "boolean", "description": "Whether there were more rows than `limit`."},
                            "complete_until": COMPLETE_UNTIL,
                        }
                    ),
                )
            },
            errors=(400, 401, 403, *AWAY),
            examples=(
                Example(
                    title="A day by tool, slowest first",
                    query=(("from", "2026-04-17"), ("to", "2026-04-18"), ("group_by", "tool_slug"), ("order_by", "p95_ms")),
                ),
                Example(
                    title="Error rate and p95 by toolkit, nothing else",
                    query=(
                        ("from", "2026-04-17"),
                        ("to", "2026-04-18"),
                        ("group_by", "toolkit_slug"),
                        ("metrics", "error_rate,p95_ms"),
                    ),
                ),
                Example(
                    title="Days of Berlin, of one user",
                    query=(
                        ("from", "2026-04-17T00:00:00+02:00"),
                        ("to", "2026-04-18T00:00:00+02:00"),
                        ("interval", "day"),
                        ("timezone", "Europe/Berlin"),
                        ("user_id", "user_123"),
                    ),
                    answer={
                        "from": 1776376800000,
                        "to": 1776463200000,
                        "interval": "day",
                        "timezone": "Europe/Berlin",
                        "group_by": [],
                        "rows": [{"start": 1776376800000, **_EXAMPLE_METRICS}],
                        "totals": _EXAMPLE_METRICS,
                        "truncated": False,
                        "complete_until": "2026-11-25T05:33:39.763Z",
                    },
                ),
            ),
        ),
        Operation(
            method="GET",
            path="/v1/usage/corrections",
            name="getUsageCorrections",
            tag="Usage, in depth",
            summary="What late events changed",
            description="Late events count in their own hour, whenever they come. An hour closes some minutes after its end"
            " (`TOOLLEDGER_WINDOW_CLOSE_MS`); what is counted in it later stands here, by the moment it was counted. Bill an"
            " hour when `complete_until` has reached its closing, then read corrections, each time with `from` = the `to` of"
            " the answer before: nothing is missed and nothing comes twice, because no answer reaches beyond"
            " `complete_until`, and one answer never changes.",
            parameters=(
                _moment("from", f"Moments of correction, inclusive: {MOMENT}; by default all."),
                _moment("to", f"Moments of correction, exclusive: {MOMENT}; never beyond `complete_until`."),
                _moment("window_from", f"Hours that start then or later: {MOMENT}."),
                _moment("window_to", f"Hours that start before: {MOMENT}."),
                group_by(),
                parameter(
                    "order_direction",
                    {"type": "string", "enum": ["asc", "desc"], "default": "asc"},
                    "By hour, then by key; `desc`: newest first.",
                ),
                _limit("Most rows on a page; totals are of everything."),
                parameter(
                    "cursor",
                    {"type": "string"},
                    "`next_cursor` of the page before, with the same key and parameters, `limit` apart.",
                ),
                *filters(),
            ),
            answers={
                200: found(
                    "Corrections by hour and group.",
                    record(
                        {
                            "from": whole("As it was understood, epoch ms."),
                            "to": whole("Where the answer ends, epoch ms: the `from` of the next question."),
                            "group_by": {"type": "array", "items": text("As asked for.", enum=list(code.GROUPS))},
                            "rows": {"type": "array", "items": ref("Correction")},
                            "totals": record(
                                {
                                    "calls": {**_COUNT, "description": "Calls that came late."},
                                    "failed": {**_COUNT, "description": "Those that failed."},
                                }
                            ),
                            "next_cursor": NEXT_CURSOR,
                            "complete_until": COMPLETE_UNTIL,
                        }
                    ),
                )
            },
            errors=(400, 401, 403, *AWAY),
            examples=(
                Example(
                    title="By user, since the last time",
                    query=(("from", "2026-11-25T05:00:00Z"), ("group_by", "user_id")),
                ),
            ),
        ),
        Operation(
            method="GET",
            path="/v1/freshness",
            name="getFreshness",
            tag="Usage, in depth",
            summary="Until when answers are complete",
            description="Events spread over all partitions, so the slowest one decides. It goes on where nothing comes in,"
            " and never lies ahead of the clock.",
            answers={
                200: found(
                    "Now.",
                    record(
                        {
                            "complete_until": COMPLETE_UNTIL,
                            "complete_until_ms": {**_COUNT, "description": "The same, epoch ms."},
                            "lag_ms": {**_COUNT, "description": "How far that is behind the clock."},
                            "partitions": {
                                "type": "array",
                                "items": record(
                                    {
                                        "partition": {**_COUNT, "description": "Of Kafka's topic."},
                                        "next_offset": {**_COUNT, "description": "Everything before it is proved."},
                                        "end_offset": {**_COUNT, "description": "The partition's end, as of its last report."},
                                        "lag_records": {**_COUNT, "description": "Records between the two."},
                                        "complete_until_ms": {**_COUNT, "description": "Of this partition."},
                                    }
                                ),
                            },
                        }
                    ),
                )
            },
            errors=(400, 401, 403, *AWAY),
            examples=(Example(title="Freshness"),),
        ),
        VERIFICATION,
        Operation(
            method="GET",
            path="/v1/key",
            name="getKey",
            tag="Usage, in depth",
            summary="What a key is good for",
            description="Whose logs and usage it reads, and whether it may send events too.",
            answers={
                200: answer(
                    "The key's own.",
                    record(
                        {
                            "project_id": text("Its project."),
                            "scope": text("`full`: may send too.", enum=["full", "read"]),
                        }
                    ),
                    headers=UNDATED,
                )
            },
            errors=(400, 401, 403, *AWAY),
            examples=(Example(title="The key"),),
        ),
    ),
    schemas={
        "UsageRow": _USAGE_ROW,
        "Correction": record(
            {
                "window_start": whole("Start of the hour, epoch ms."),
                "window_end": whole("Its end."),
                **_keys(),
                "calls": {"type": "integer", "minimum": 1, "description": "Calls that came after it had closed."},
                "failed": {**_COUNT, "description": "Those that failed."},
                "first_corrected_at": whole("When the first of them was counted, epoch ms."),
                "last_corrected_at": whole("When the last of them was counted."),
            },
            optional=code.GROUPS,
        ),
    },
)
