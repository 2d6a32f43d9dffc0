"""Routes of logs, as the API page tells them. Pure data."""

from typing import Any, Final

from ingest.contract.openapi import Example, Operation, Part, nullable, parameter, record, ref, text, whole
from query_api.filters import FIELDS, FILTERS_MAX, OPERATORS, TEXT_CHARS_MAX, TEXTS
from query_api.http.logs import LIMIT_DEFAULT, LIMIT_MAX
from query_api.log_items import TYPE
from query_api.openapi.shared import AWAY, NEXT_CURSOR, either, found

_PATH: Final = "/api/v3.1/logs/tool_execution"
_RANGE: Final = {"from": 1776384000000, "to": 1776470400000}
_LOG: Final[dict[str, Any]] = {
    "id": "log_-jRTWClpBoVo",
    "timestamp": "2026-04-17T10:25:00.000Z",
    "type": TYPE,
    "status": "failed",
    "level": "error",
    "message": "GMAIL_SEND_EMAIL failed: invalid recipient",
    "metadata": {
        "attempt": 2,
        "tool_slug": "GMAIL_SEND_EMAIL",
        "toolkit_slug": "gmail",
        "user_id": "user_123",
        "session_id": "ses_abc123",
        "project_id": "acme",
        "failure_class": "invalid_input",
        "http_status": 422,
        "error_message": "invalid recipient",
        "error_code": "422",
        "log_id": "log_-jRTWClpBoVo",
        "tool": {"slug": "GMAIL_SEND_EMAIL"},
        "toolkit": {"slug": "gmail"},
    },
    "metrics": {"duration_ms": 202.0},
    "parent": None,
}

_OWN: Final = FIELDS[FIELDS.index("log_id") + 1 :]
_FIELDS: Final = (
    f"What is compared: one of the ten fields that the incumbent has, or of ours: {either(_OWN)}. `text` is the log's message"
    " and its error's: `==` and `contains` find logs where one of the two matches, `!=` and `not_contains` the others."
    f" `failure_pattern` is the message without its ids and numbers. Of {either(sorted(TEXTS))} at most {TEXT_CHARS_MAX:,}"
    " characters are taken."
)
_FILTER: Final = record(
    {
        "field": {"type": "string", "enum": list(FIELDS), "description": _FIELDS},
        "operator": {
            "type": "string",
            "enum": list(OPERATORS),
            "description": "`==` and `!=` are exact. `contains` and `not_contains` look for a substring without regard to case"
            " (Unicode). Everything is literal: no character is a wildcard.",
        },
        "value": text(
            'Any text. A log without the field is one whose value is `""`: `!=` and `not_contains` hold for it, so that `==`'
            ' and `!=` part the logs in two, and `== ""` finds it. `contains ""` matches all.'
        ),
    },
    description="One condition.",
)
_SEARCH: Final = record(
    {
        "limit": nullable(
            whole(
                "Logs on a page. A whole number in any spelling (`100.0`). Of very large logs a page holds fewer, and"
                " `next_cursor` leads on.",
                minimum=1,
                maximum=LIMIT_MAX,
                default=LIMIT_DEFAULT,
            )
        ),
        "cursor": nullable(
            text(
                "`next_cursor` of the page before; null, absent and empty: the first page. It belongs to one key and one"
                " question: the same filters and `time_range`, while `limit` may change. Another's, or one that was changed:"
                " 400. It outlives restarts, and ends with its key."
            )
        ),
        "filters": nullable(
            {
                "type": "array",
                "items": ref("LogFilter"),
                "maxItems": FILTERS_MAX,
                "description": "All must hold. Fields may repeat.",
            }
        ),
        "time_range": nullable(
            record(
                {
                    "from": {"type": "number", "description": "Epoch milliseconds, inclusive; fractions are cut."},
                    "to": {
                        "type": "number",
                        "description": "Epoch milliseconds, exclusive; `from` > `to` is a 400, equal is empty.",
                    },
                },
                description="By the timestamp of the call. Absent: all that is retained.",
            )
        ),
    },
    optional=("limit", "cursor", "filters", "time_range"),
)
_PARENT: Final = {"log_id": text("Its log."), "tool_slug": text("Its tool.")}
_ITEM: Final = {
    "id": text("As sent, or as ingest gave it: `log_` and 12 characters."),
    "timestamp": text("Start of the call, UTC, three decimals.", format="date-time"),
    "type": text("", const=TYPE),
    "status": {"type": "string", "enum": ["success", "failed"], "description": "How it ended."},
    "level": {"type": "string", "enum": ["info", "warn", "error"], "description": "`error` of a failed call, else `info`."},
    "message": text(
        "The producer's own, else `TOOL succeeded` or `TOOL failed: <error message>`. Absent only where nothing is known."
    ),
    "metadata": {
        "type": "object",
        "description": "The producer's members, and over them what can be filtered by, flat (`tool_slug`, `toolkit_slug`,"
        " `user_id`, `session_id`, `connected_account_id`, `auth_config_id`, `sandbox_id`, `request_id`, `project_id`,"
        " `log_id`; absent where unknown), of failures `failure_class`, `http_status`, `error_message`, `error_code`,"
        " `error_type`; and nested `tool.slug` and `toolkit.slug`.",
        "properties": {
            "tool_slug": text("The tool."),
            "project_id": text("The project."),
            "log_id": text("The log's id again."),
        },
        "required": ["log_id"],
        "additionalProperties": True,
    },
    "metrics": record({"duration_ms": {"type": "number", "minimum": 0, "description": "How long the call took, ms."}}),
    "parent": nullable(record(_PARENT, description="The execution that made this call.")),
}
_DETAIL: Final = {
    **_ITEM,
    "timings": record(
        {
            "start_time": {"type": "number", "description": "Epoch ms."},
            "end_time": {"type": "number", "description": "Epoch ms; start and duration."},
        }
    ),
    "context": record(
        {"session_id": text("The session."), "trace_id": text("The trace."), "request_id": text("The request.")},
        optional=("session_id", "trace_id", "request_id"),
    ),
    "source": record(
        {"host": text("As the producer said."), "framework": text("Framework."), "language": text("Language.")},
        optional=("host", "framework", "language"),
    ),
    "data": {
        "type": "object",
        "description": "`request` and `response`, byte for byte as sent, but for secrets, which are replaced. `{}` where"
        " none was sent or the project keeps none.",
        "additionalProperties": True,
    },
}

LOGS: Final = Part(
    tag="Logs",
    tag_description="What happened: each tool call with its outcome. The routes and shapes are those of Composio's Logs API,"
    " so that its official clients work unmodified; members of a body that are not known here are ignored.",
    operations=(
        Operation(
            method="POST",
            path=_PATH,
            name="postLogsToolExecution",
            tag="Logs",
            summary="Search logs",
            description="Newest first by timestamp, then by id descending: a total order, so that paging gives each log"
            " once, also where thousands share a millisecond and while new ones arrive. Go on until `next_cursor` is null.",
            body={"application/json": _SEARCH},
            body_note="`{}`, and no body at all, ask for the newest logs.",
            answers={
                200: found("One page.", record({"logs": {"type": "array", "items": ref("Log")}, "next_cursor": NEXT_CURSOR})),
            },
            errors=(400, 401, 403, 408, 413, 415, *AWAY),
            examples=(
                Example(
                    title="A user's failures of a day",
                    body={
                        "limit": 20,
                        "time_range": _RANGE,
                        "filters": [
                            {"field": "user_id", "operator": "==", "value": "user_123"},
                            {"field": "status", "operator": "==", "value": "failed"},
                        ],
                    },
                    answer={"logs": [_LOG], "next_cursor": None},
                ),
                Example(
                    title="Whatever has github in its tool",
                    body={
                        "limit": 1,
                        "time_range": _RANGE,
                        "filters": [{"field": "tool_slug", "operator": "contains", "value": "github"}],
                    },
                ),
            ),
        ),
        Operation(
            method="GET",
            path=_PATH + "/{id}",
            name="getLogsToolExecutionById",
            tag="Logs",
            summary="One log in full",
            description="With timings, context, source, and request and response.",
            parameters=(
                parameter(
                    "id",
                    {"type": "string"},
                    "The log's id, percent-encoded.",
                    place="path",
                ),
            ),
            answers={200: found("The log.", ref("LogDetail"))},
            errors=(400, 401, 403, 404, *AWAY),
            examples=(
                Example(
                    title="The failed call",
                    path={"id": "log_-jRTWClpBoVo"},
                    answer={
                        **_LOG,
                        "timings": {"start_time": 1776421500000, "end_time": 1776421500202.0},
                        "context": {"session_id": "ses_abc123"},
                        "source": {"framework": "langchain", "language": "python", "host": "sdk"},
                        "data": {"request": {"to": "alice@example"}, "response": {"error": "invalid recipient"}},
                    },
                ),
            ),
        ),
    ),
    schemas={
        "LogFilter": _FILTER,
        "Log": record(_ITEM, optional=("message",)),
        "LogDetail": record(_DETAIL, optional=("message",)),
    },
)
