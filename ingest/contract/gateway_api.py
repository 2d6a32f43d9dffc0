"""What the API page says of the recording gateway: the routes that run tools at an upstream. Pure data."""

from typing import Final

from ingest.contract.openapi import Example, Json, Operation, Part, answer, nullable, parameter, record, ref, text
from ingest.contract.request_limits import IDEMPOTENCY_KEY_CHARS_MAX

_ARGUMENTS: Final[Json] = {
    "type": "object",
    "additionalProperties": True,
    "description": "What the tool is called with.",
}
_ASKED: Final = record(
    {
        "arguments": _ARGUMENTS,
        "user_id": text("On whose behalf; in the log too. `entity_id` is read as well."),
        "connected_account_id": text("The connection to use; in the log too."),
        "version": text("Of the tool; in the log as `metadata.tool_version`."),
    },
    optional=("arguments", "user_id", "connected_account_id", "version"),
    description="Goes to the upstream as it is, whatever else it holds. `custom_auth_params` and `custom_connection_data` are"
    " kept out of the log.",
)
_ASKED_IN_SESSION: Final = record(
    {"tool_slug": text("The tool."), "arguments": _ARGUMENTS},
    optional=("arguments",),
    description="Goes to the upstream as it is, whatever else it holds.",
)
_ANSWERED: Final[Json] = {
    **record(
        {
            "data": {"type": "object", "additionalProperties": True, "description": "What the tool gave."},
            "error": nullable(text("What went wrong.")),
            "successful": {"type": "boolean", "description": "Whether it worked."},
            "log_id": text("The log of this call: the upstream's own id, or one of ours where it gives none."),
        },
        optional=("data", "error", "successful", "log_id"),
        description="The upstream's answer as it is, with a `log_id`.",
    ),
    "additionalProperties": True,
}
_HEADERS: Final = (
    parameter(
        "Idempotency-Key",
        {"type": "string", "maxLength": IDEMPOTENCY_KEY_CHARS_MAX},
        "Goes to the upstream too. Where that gives no `log_id`, calls with the same key have the same log.",
        place="header",
    ),
)
# Statuses of ours; any other is the upstream's.
_ERRORS: Final = (400, 401, 403, 404, 408, 413, 429, 500, 502, 503, 504)
_WHEN: Final = (
    "Only with an upstream set (`TOOLLEDGER_UPSTREAM`); without one it is a 404. The request goes to the upstream once, and the"
    " answer that comes back is the upstream's, whatever its status: errors then are in its words."
)

GATEWAY: Final = Part(
    tag="Gateway",
    tag_description="Running tools at an upstream, recorded on the way. With `TOOLLEDGER_UPSTREAM` set, these routes (also"
    " under `/api/v3`) go to it and each call becomes a log with request, answer, duration and failure; everything else under"
    " `/api` that is not on this page passes through as it is, unrecorded.\n\n"
    "Keys: a project's key of the scope full is taken here and replaced by `TOOLLEDGER_UPSTREAM_API_KEY` on the way; none of"
    " ours is ever sent on. A key that is none of ours goes on as it is where `TOOLLEDGER_UPSTREAM_PROJECT` names the project"
    " to record such calls in, else it is a 401.\n\n"
    "Every recorded answer has the log's id in the header `x-log-id`, also an error's. Where the upstream gave no answer it is"
    " a 502 (`Upstream_Unreachable`, `Upstream_BrokeOff`) or 504 (`Upstream_TimedOut`), logged as a failure; with"
    " `x-should-retry: false` where the tool may have run. A call that waits for the user's input (`input_required`) has not"
    " run and is no log. The caller never waits for the record.",
    operations=(
        Operation(
            method="POST",
            path="/api/v3.1/tools/execute/{tool_slug}",
            name="postToolsExecuteByToolSlug",
            tag="Gateway",
            summary="Run a tool and record it",
            description=_WHEN,
            parameters=(parameter("tool_slug", {"type": "string"}, "The tool.", place="path"), *_HEADERS),
            body={"application/json": _ASKED},
            answers={200: answer("The upstream's answer.", ref("ExecutionAnswer"))},
            errors=_ERRORS,
            examples=(
                Example(
                    title="One call on behalf of a user",
                    path={"tool_slug": "GMAIL_SEND_EMAIL"},
                    body={"user_id": "user_123", "arguments": {"to": "alice@example.com", "subject": "Hello"}},
                    answer={"data": {}, "error": None, "successful": True, "log_id": "log_7fKq2mYdX0aB"},
                ),
            ),
        ),
        *(
            Operation(
                method="POST",
                path=f"/api/v3.1/tool_router/session/{{session_id}}/{word}",
                name=name,
                tag="Gateway",
                summary=summary,
                description=f"{_WHEN}\n\nThe log has the session, and its user where the session was made or asked for through"
                " this process.",
                parameters=(parameter("session_id", {"type": "string"}, "The session.", place="path"), *_HEADERS),
                body={"application/json": asked},
                answers={200: answer("The upstream's answer.", ref("ExecutionAnswer"))},
                errors=_ERRORS,
                examples=(
                    Example(
                        title=title,
                        path={"session_id": "trs_1a2b3c4d5e6f"},
                        body=body,
                        answer={"data": {}, "error": None, "successful": True, "log_id": "log_7fKq2mYdX0aB"},
                    ),
                ),
            )
            for word, name, summary, asked, title, body in (
                (
                    "execute",
                    "postToolRouterSessionBySessionIdExecute",
                    "Run a tool in a session and record it",
                    _ASKED_IN_SESSION,
                    "One call in a session",
                    {"tool_slug": "GITHUB_CREATE_ISSUE", "arguments": {"title": "It works"}},
                ),
                (
                    "execute_meta",
                    "postToolRouterSessionBySessionIdExecuteMeta",
                    "Run a session's own tool and record it",
                    record({"slug": text("The session's tool."), "arguments": _ARGUMENTS}, optional=("arguments",)),
                    "Look for tools",
                    {"slug": "COMPOSIO_SEARCH_TOOLS", "arguments": {"query": "send an email"}},
                ),
            )
        ),
    ),
    schemas={"ExecutionAnswer": _ANSWERED},
)
