"""The route of failures, as the API page tells it. Pure data."""

from typing import Final

from ingest.contract.openapi import Example, Operation, Part, parameter, record, ref, text, whole
from query_api.failures.causes import CAUSES
from query_api.http.failures import LIMIT_DEFAULT, LIMIT_MAX
from query_api.openapi.own import filters
from query_api.openapi.shared import AWAY, COMPLETE_UNTIL, MOMENT, USAGE_RANGE, found

# A class that this version does not know yet is told with the cause of `other`.
_CLASSES: Final = "\n".join(f"- `{name}`: {cause.likely_cause}" for name, cause in CAUSES.items())
_GROUP: Final = {
    "failure_class": text("Its class.", examples=list(CAUSES)),
    "tool_slug": text("The tool that failed."),
    "message": text("What they say, ids, numbers and other values left out; the same as `failure_pattern` of a log filter."),
    "likely_cause": text("What most likely lies behind it."),
    "action": text("What to do next."),
    "calls": whole("How many calls failed so.", minimum=1),
    "share": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "description": "Of all failures asked for, whatever `limit` leaves.",
    },
    "users": whole("How many different users were hit; nobody is not a user.", minimum=0),
    "first_seen": text("The first of them within the range.", format="date-time"),
    "last_seen": text("The last of them.", format="date-time"),
    "example_log_id": text("The newest of them."),
}

FAILURES: Final = Part(
    tag="Failures",
    tag_description="What failed, why, and what to do. Failures are grouped by class, tool and message, so that ids and"
    " numbers in a"
    " message do not split a group. Classes, found from status codes, error types and texts:\n\n" + _CLASSES,
    operations=(
        Operation(
            method="GET",
            path="/v1/failures",
            name="getFailures",
            tag="Failures",
            summary="Failure patterns with likely cause",
            description="Most calls first. An unknown parameter is a 400 that names it.",
            parameters=(
                parameter("from", {"type": ["string", "number"]}, f"Begin, inclusive: {MOMENT}. {USAGE_RANGE}"),
                parameter("to", {"type": ["string", "number"]}, f"End, exclusive: {MOMENT}."),
                parameter(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
                    "Most groups; shares are of everything.",
                ),
                *filters(),
            ),
            answers={
                200: found(
                    "Groups of failures.",
                    record({"groups": {"type": "array", "items": ref("FailureGroup")}, "complete_until": COMPLETE_UNTIL}),
                )
            },
            errors=(400, 401, 403, *AWAY),
            examples=(
                Example(
                    title="A user's failures of a day",
                    query=(("from", "2026-04-17"), ("to", "2026-04-18"), ("user_id", "user_123")),
                    answer={
                        "groups": [
                            {
                                "failure_class": "invalid_input",
                                "tool_slug": "GMAIL_SEND_EMAIL",
                                "message": "422: invalid recipient",
                                "likely_cause": CAUSES["invalid_input"].likely_cause,
                                "action": CAUSES["invalid_input"].action,
                                "calls": 1,
                                "share": 1.0,
                                "users": 1,
                                "first_seen": "2026-04-17T10:25:00.000Z",
                                "last_seen": "2026-04-17T10:25:00.000Z",
                                "example_log_id": "log_-jRTWClpBoVo",
                            }
                        ],
                        "complete_until": "2026-11-25T05:33:39.763Z",
                    },
                ),
            ),
        ),
    ),
    schemas={"FailureGroup": record(_GROUP)},
)
