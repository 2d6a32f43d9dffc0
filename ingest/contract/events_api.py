"""What the API page says of ingest: `POST /v1/events`, and the health of the public address. Pure data."""

from collections.abc import Mapping
from typing import Any, Final, get_args

import msgspec

from ingest.contract import request_limits as limits
from ingest.contract.cloudevents import BATCH_TYPE, STRUCTURED_TYPE
from ingest.contract.event import EVENT_BYTES_MAX, PROJECT_PATTERN, Event, Reason
from ingest.contract.nesting import LEVELS_MAX
from ingest.contract.openapi import Example, Json, Operation, Part, answer, nullable, parameter, record, ref, text, whole

_TOLD: Final[Mapping[str, str]] = {
    "tool_slug": "The tool that was called, as in `GMAIL_SEND_EMAIL`.",
    "status": "How it ended.",
    "duration_ms": "How long it took, in milliseconds; at most 31 days.",
    "id": "Names the event within its project: the same id counts once, and the first one accepted wins (for ever with the same"
    " timestamp, within the dedupe horizon with another). Given by ingest if absent. Bring your own to make retries safe.",
    "project_id": "Leave it out: the key decides. One that differs from the key's project is refused.",
    "timestamp": "Start of the call: ISO 8601 (UTC without a zone) or epoch milliseconds as a number, fractions cut; the"
    " time of ingest if absent. From 2015-01-01 to 24 hours ahead; seconds, micro- and nanoseconds fall outside and are"
    " refused with a hint, never guessed.",
    "toolkit_slug": "The toolkit, lowered. If absent: the longest known prefix of the tool slug, else what stands before its"
    " first underscore.",
    "user_id": "On whose behalf.",
    "session_id": "The session it belongs to. A session is created at its first call.",
    "message": "One line for people. If absent: `TOOL succeeded`, or `TOOL failed: <error message>`.",
    "error": "What went wrong: a text, or an object.",
    "context": "Identifiers of a trace or request this call was part of.",
    "source": "Where it came from.",
    "connected_account_id": "The connection that was used.",
    "auth_config_id": "Its auth config.",
    "sandbox_id": "The sandbox, if any.",
    "parent": "The execution that made this call.",
    "data": "`request` and `response`, whatever they hold. Kept byte for byte, but for secrets, which are replaced.",
    "metadata": "Anything else; shown with the log.",
}


def _schema_of(name: str, kind: Any) -> Json:
    """Return a member's schema with the lengths of the code; an object's members are written out."""
    schema = msgspec.json.schema(kind)
    inner = {
        f"#/$defs/{title}": record(
            {member: _without_default(given) for member, given in found["properties"].items()},
            optional=tuple(found["properties"]),
        )
        for title, found in schema.pop("$defs", {}).items()
    }
    branches = [inner.get(one.get("$ref", ""), one) for one in schema.get("anyOf", [schema])]
    kept = [one for one in branches if one != {"type": "null"}]
    told = {"description": _TOLD[name]} if name in _TOLD else {}
    found = {**kept[0], **told} if len(kept) == 1 else {**told, "anyOf": kept}
    return nullable(found) if len(kept) < len(branches) else found


def _without_default(schema: Json) -> Json:
    return {name: value for name, value in schema.items() if name != "default"}


def _event() -> Json:
    fields = msgspec.structs.fields(Event)
    payload = {name: nullable({"type": "object", "description": _TOLD[name]}) for name in ("data", "metadata")}
    members = {one.name: payload.get(one.name) or _schema_of(one.name, one.type) for one in fields}
    return record(
        members,
        optional=tuple(one.name for one in fields if not one.required),
        description=f"One tool execution; at most {EVENT_BYTES_MAX:,} bytes of JSON in {LEVELS_MAX} levels. Null is the same as"
        " absent; unknown members are tolerated, and kept out of everything but the stored event.",
    )


_SEND: Final = Example(
    title="A failed call, as a producer knows it",
    body={
        "id": "log_-jRTWClpBoVo",
        "timestamp": "2026-04-17T10:25:00.000Z",
        "tool_slug": "GMAIL_SEND_EMAIL",
        "status": "failed",
        "duration_ms": 202,
        "user_id": "user_123",
        "session_id": "ses_abc123",
        "error": {"message": "invalid recipient", "code": "422"},
        "data": {"request": {"to": "alice@example"}, "response": {"error": "invalid recipient"}},
        "source": {"framework": "langchain", "language": "python", "host": "sdk"},
        "metadata": {"attempt": 2},
    },
    status=202,
    answer={"accepted": 1, "ids": ["log_-jRTWClpBoVo"], "rejected": []},
)
_SEND_LINES: Final = Example(
    title="Several, one a line; a broken one does not lose the others",
    body='{"id":"log_5Q2mYdKq0aXe","timestamp":1776421510000,"tool_slug":"GITHUB_CREATE_ISSUE","status":"success","duration_ms":131.5,'
    '"user_id":"user_123","session_id":"ses_abc123"}\n'
    '{"id":"log_Tz81vLw3-nRc","timestamp":1776421520000,"tool_slug":"GITHUB_CREATE_ISSUE","duration_ms":90}\n',
    media="application/x-ndjson",
    status=202,
    answer={
        "accepted": 1,
        "ids": ["log_5Q2mYdKq0aXe"],
        "rejected": [
            {
                "index": 1,
                "line": 2,
                "id": "log_Tz81vLw3-nRc",
                "code": "missing_member",
                "message": "the event is missing required field `status`",
            }
        ],
    },
)
_CLOUD_EVENT: Final = {
    "specversion": "1.0",
    "type": "com.example.tool.executed",
    "source": "/agents/mia",
    "id": "4711",
    "time": "2026-04-14T10:30:00Z",
    "data": {"tool_slug": "SLACK_SEND_MESSAGE", "status": "success", "duration_ms": 88.5, "user_id": "user_456"},
}
_CLOUD_EVENT_ANSWER: Final = {"accepted": 1, "ids": ["ce_ac468fb70bf1bc333cb2825b812483d3"], "rejected": []}
_SEND_CLOUD_EVENT: Final = Example(
    title="A CloudEvent, structured",
    body=_CLOUD_EVENT,
    media=STRUCTURED_TYPE,
    status=202,
    answer=_CLOUD_EVENT_ANSWER,
)
_SEND_BINARY: Final = Example(
    title="The same CloudEvent, binary: one event, so the same id",
    body=_CLOUD_EVENT["data"],
    headers={f"ce-{name}": str(value) for name, value in _CLOUD_EVENT.items() if name != "data"},
    status=202,
    answer=_CLOUD_EVENT_ANSWER,
)
_SCHEMAS: Final = {
    "Event": _event(),
    "CloudEvent": record(
        {
            "specversion": {"type": "string", "const": "1.0"},
            "id": text("Names the event at its source.", minLength=1),
            "source": text("Who calls it so: a URI reference.", minLength=1),
            "type": text("Yours to choose.", minLength=1),
            "time": nullable(text("The event's `timestamp` where its data has none.")),
            "subject": nullable(text("Kept with the log.")),
            "datacontenttype": nullable(text("Of the data; JSON, or it is no tool execution.")),
            "data": ref("Event"),
            "data_base64": text("The data in base64, with `datacontenttype`; instead of `data`."),
        },
        optional=("time", "subject", "datacontenttype", "data", "data_base64"),
        description="A CloudEvent 1.0 whose data is an event. Extension attributes are kept with the log.",
    ),
    "RejectedEvent": record(
        {
            "index": whole("Of the item in the request, from 0.", minimum=0),
            "line": whole("Of the item, from 1, blank lines included; of NDJSON only.", minimum=1),
            "id": nullable(text("The event's own id, where it has one that can be read.")),
            "code": {"type": "string", "enum": list(get_args(Reason)), "description": "Why, for programs."},
            "message": text("Why, for people: the member and the limit."),
        },
        optional=("line",),
    ),
    "Readiness": record(
        {
            "ready": {"type": "boolean", "description": "Whether an event sent now would be accepted."},
            "checks": record({"kafka": {"type": "boolean"}, "control": {"type": "boolean"}}),
            "reasons": {"type": "array", "items": {"type": "string"}, "description": "Why not."},
        }
    ),
}
_REJECTED: Final = {"type": "array", "items": ref("RejectedEvent")}
_ACCEPTED: Final = record(
    {
        "accepted": whole("How many; 0 of a batch of none alone.", minimum=0),
        "ids": {"type": "array", "items": text("An id."), "description": "Of the accepted events, in the order sent."},
        "rejected": {**_REJECTED, "description": "Of the others, why."},
    }
)
_NOTHING: Final = record(
    {
        "error": {"$ref": "#/components/schemas/Error/properties/error"},
        "rejected": {**_REJECTED, "description": "Each event, and why."},
    },
    optional=("rejected",),
)

_SENDING: Final = f"""\
Takes one event, an array, or NDJSON, or CloudEvents with one event each. Each is judged alone: 202 if any was accepted, with
the ids of the accepted and the reasons of the others.

Events count once per id. For events without an id send `Idempotency-Key`: the same request sent again then makes the same ids.
The answer cannot know that an id was there before; receipts count it.

CloudEvents 1.0 come structured, as a batch, or binary (`ce-` headers), of any `type`; the data is the event. An event is one by
`source` and `id` together: they make its id, `ce_` and the first 32 hexadecimal digits of
`printf '%s\\n%s' "$SOURCE" "$ID" | sha256sum`. The log has both in `metadata.cloudevent`, with all other attributes, and the
data's own id as `data_id`. `traceparent` gives the log's `trace_id` where the data has no `context`.

Unless set otherwise one request holds at most {limits.EVENTS_MAX:,} events, {limits.BODY_BYTES_MAX // limits.MIB} MiB as sent
and {limits.DECODED_BYTES_MAX // limits.MIB} MiB decompressed; beyond it: 413 with the limit."""

EVENTS: Final = Part(
    tag="Events",
    tag_description="Entering tool calls. What is accepted is in Kafka, on all in-sync replicas, before the answer; logs and"
    " usage have it within a second. Programs that write to Kafka themselves use the topic `tool-executions` (one event, an"
    " array or NDJSON as the value, or a CloudEvent, structured or binary; the header `project_id`, the key `project_id/id` if"
    " they can); an event from there without id or timestamp gets them from its place in the log, the same after any replay."
    f" A project is named `{PROJECT_PATTERN}`.",
    operations=(
        Operation(
            method="POST",
            path="/v1/events",
            name="sendEvents",
            tag="Events",
            summary="Send events",
            description=_SENDING,
            parameters=(
                parameter(
                    "Idempotency-Key",
                    {"type": "string", "maxLength": limits.IDEMPOTENCY_KEY_CHARS_MAX},
                    "Makes the ids of events without one, so that a retry of this request counts once. Any text that is new"
                    " for each request.",
                    place="header",
                ),
                parameter(
                    "Content-Encoding",
                    {"type": "string", "examples": ["gzip", "zstd"]},
                    "`gzip`, `zstd` or `identity`; two at once at most.",
                    place="header",
                ),
            ),
            body={
                "application/json": {"anyOf": [ref("Event"), {"type": "array", "items": ref("Event"), "minItems": 1}]},
                "application/x-ndjson": {"type": "string", "description": "An event a line; blank lines are passed over."},
                STRUCTURED_TYPE: ref("CloudEvent"),
                BATCH_TYPE: {"type": "array", "items": ref("CloudEvent")},
            },
            body_required=True,
            answers={
                202: answer("At least one was accepted.", _ACCEPTED),
                400: answer("None was accepted, or the body cannot be taken apart.", _NOTHING),
            },
            errors=(401, 403, 408, 413, 415, 429, 500, 503),
            examples=(_SEND, _SEND_LINES, _SEND_CLOUD_EVENT, _SEND_BINARY),
        ),
    ),
    schemas=_SCHEMAS,
)

MACHINES: Final = Part(
    tag="Machines",
    tag_description="For probes and scrapers; no key. Each service has these of its own; those of the public address are"
    " ingest's.",
    operations=(
        Operation(
            method="GET",
            path="/healthz",
            name="isAlive",
            tag="Machines",
            summary="Is the process alive?",
            description="Answers as long as the process serves requests, whatever is away.",
            answers={200: answer("It is.", record({"status": {"type": "string", "const": "ok"}}))},
            key=None,
            examples=(Example(title="Alive", answer={"status": "ok"}),),
        ),
        Operation(
            method="GET",
            path="/readyz",
            name="isReady",
            tag="Machines",
            summary="Would an event be accepted now?",
            description="Ready means: it would work. For load balancers.",
            answers={
                200: answer("It would.", ref("Readiness")),
                503: answer("It would not; `reasons` says why.", ref("Readiness")),
            },
            key=None,
            examples=(
                Example(title="Ready", answer={"ready": True, "checks": {"kafka": True, "control": True}, "reasons": []}),
            ),
        ),
        Operation(
            method="GET",
            path="/metrics",
            name="readMetrics",
            tag="Machines",
            summary="Metrics",
            description="In Prometheus' text form. Names begin with `toolledger_`; the worker and the query service have"
            " their own.",
            answers={200: answer("Metrics of the ingest process.", {"type": "string"}, media="text/plain")},
            key=None,
            examples=(Example(title="Metrics of ingest"),),
        ),
    ),
)
