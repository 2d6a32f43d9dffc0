"""What the API page says of `POST /v1/traces`. Pure data."""

from typing import Any, Final

from ingest.contract import request_limits as limits
from ingest.contract.openapi import JSON_TYPE, Example, Json, Operation, Part, answer, parameter, record, ref, text

_PROTOBUF: Final = "application/x-protobuf"
_TRACE_ID: Final = "5b8efff798038103d269b633813fc60c"
_SPAN_ID: Final = "eee19b7ec3c1b174"


def _pairs(**values: Any) -> list[Json]:
    kinds = {str: "stringValue", int: "intValue"}
    return [{"key": name.replace("__", "."), "value": {kinds[type(value)]: value}} for name, value in values.items()]


_EXPORT: Final = Example(
    title="A tool call, as an SDK exports it in JSON",
    body={
        "resourceSpans": [
            {
                "resource": {"attributes": _pairs(service__name="travel-agent", telemetry__sdk__language="python")},
                "scopeSpans": [
                    {
                        "scope": {"name": "my.agent"},
                        "spans": [
                            {
                                "traceId": _TRACE_ID,
                                "spanId": _SPAN_ID,
                                "name": "execute_tool GMAIL_SEND_EMAIL",
                                "kind": 1,
                                "startTimeUnixNano": "1776162300000000000",
                                "endTimeUnixNano": "1776162300202500000",
                                "attributes": _pairs(
                                    gen_ai__operation__name="execute_tool",
                                    gen_ai__tool__name="GMAIL_SEND_EMAIL",
                                    gen_ai__tool__call__arguments='{"to": "alice@example.com"}',
                                    gen_ai__conversation__id="ses_def456",
                                    user__id="user_456",
                                ),
                                "status": {},
                            }
                        ],
                    }
                ],
            }
        ]
    },
    answer={},
)


def _list_of(schema: Json) -> Json:
    return {"type": "array", "items": schema}


_ATTRIBUTES: Final = _list_of({"type": "object"})
_SPAN: Final = record(
    {
        "traceId": text("32 hexadecimal digits."),
        "spanId": text("16 hexadecimal digits."),
        "parentSpanId": text("16 hexadecimal digits."),
        "name": text("Speaks of the tool where no attribute does."),
        "kind": {"type": "integer"},
        "startTimeUnixNano": {"type": ["string", "integer"], "description": "Nanoseconds since the epoch."},
        "endTimeUnixNano": {"type": ["string", "integer"], "description": "Nanoseconds since the epoch."},
        "attributes": _ATTRIBUTES,
        "events": _ATTRIBUTES,
        "status": {"type": "object", "description": "`code` 2 is a failure, `message` says why."},
    },
    optional=("parentSpanId", "kind", "attributes", "events", "status"),
)
_SCHEMAS: Final = {
    "ExportTraceServiceRequest": record(
        {
            "resourceSpans": _list_of(
                record(
                    {
                        "resource": {"type": "object", "description": "`attributes` of whoever made the spans."},
                        "scopeSpans": _list_of(
                            record(
                                {
                                    "scope": {"type": "object", "description": "`name` and `version` of the instrumentation."},
                                    "spans": _list_of(_SPAN),
                                },
                                optional=("scope", "spans"),
                            )
                        ),
                    },
                    optional=("resource", "scopeSpans"),
                )
            )
        },
        optional=("resourceSpans",),
        description="OTLP's own message; unknown members are ignored.",
    ),
    "ExportTraceServiceResponse": record(
        {
            "partialSuccess": record(
                {
                    "rejectedSpans": text("How many tool spans were not taken."),
                    "errorMessage": text("Why, for people."),
                }
            )
        },
        optional=("partialSuccess",),
        description="Empty unless tool spans were refused.",
    ),
    "Status": record(
        {"code": {"type": "integer", "description": "Of `google.rpc.Code`."}, "message": text("What was wrong, for people.")},
        description="`google.rpc.Status`: how OTLP tells of errors.",
    ),
}


def _answer(description: str, schema: Json, *, headers: tuple[str, ...] = ()) -> Json:
    """Describe an answer in the encoding of the request."""
    told = answer(description, schema, headers=headers)
    return {**told, "content": {**told["content"], _PROTOBUF: {"schema": {"type": "string", "format": "binary"}}}}


_DESCRIPTION: Final = f"""\
Takes an `ExportTraceServiceRequest` in protobuf or JSON, and answers in the same. Tool executions are spans of the GenAI
conventions (`gen_ai.operation.name` is `execute_tool`), of OpenInference (kind `TOOL`), of OpenLLMetry (kind `tool`), MCP
calls (`mcp.method.name` is `tools/call`), and those of Pydantic AI, Strands Agents, Google ADK and the Vercel AI SDK. All
other spans are passed over and counted in `/metrics`.

Trace id and span id make the event's id, `otel_<trace id>_<span id>`: an export that is sent again counts once. `parent` is
made of the parent span's id in the same way, whether that is a tool's or not. Every span is a call of its own: where both sides
of an MCP call are exported, both count.

What a log has is taken from the first of these that is there:

- `tool_slug`: `gen_ai.tool.name`, `tool.name`, `mcp.tool.name`, `traceloop.entity.name`, the name of the span.
- `toolkit_slug`: `mcp.server.name`, the server in a tool's name of the form `mcp__SERVER__TOOL`; of MCP calls the server's own
  `service.name`, or the `server.address` a client called.
- `session_id`: `gen_ai.conversation.id`, `session.id`, `traceloop.association.properties.session_id`, `mcp.session.id`.
- `user_id`: `user.id`, `enduser.id`, `traceloop.association.properties.user_id`.
- `status`: `failed` if the span's status is an error; where it is unset, if there is an `error.type`, an exception that left
  the span, or an MCP result with `isError`.
- `error`: type, message and code of `error.type`, the span's status, its last `exception` event, and a response's status code.
- `data.request`: `gen_ai.tool.call.arguments`, `input.value`, `tool.parameters`, `traceloop.entity.input`, the event
  `gen_ai.tool.message`. `data.response`: `gen_ai.tool.call.result`, `output.value`, `traceloop.entity.output`, the event
  `gen_ai.choice`. A text that is an object or an array of JSON is kept as that, byte for byte.
- `source`: the instrumentation's scope, `telemetry.sdk.language` and `host.name`.
- `metadata`: `tool_call_id`, and under `otel` the span's ids and name, `service.name`, and the attributes that have no member
  of their own.

Limits are those of `/v1/events`; beside them a request holds at most {limits.EVENTS_MAX:,} tool spans, unless set otherwise.
A tool span that breaks a limit, or whose ids or times are none, is refused by itself and told in `partialSuccess`.
"""
_REFUSALS: Final = {
    400: "The body is no export request.",
    401: "No key, a wrong or revoked one, or more than one credential.",
    403: "The key may not send events, or is an organisation's.",
    413: "The body, or what it holds, is more than is taken; `message` names the limit.",
    415: "The content type or encoding is not understood; in JSON where the request is in neither of OTLP's encodings.",
}
_LATER: Final = {
    429: "Too much in work at once; the exporter sends again after `Retry-After`.",
    503: "Kafka is away, or the keys have not been read yet; the exporter sends again after `Retry-After`.",
}

TRACES: Final = Part(
    tag="Traces",
    tag_description="OpenTelemetry in: point an SDK's or collector's OTLP/HTTP exporter here, with the key among its headers"
    " (`OTEL_EXPORTER_OTLP_HEADERS=x-api-key=ak_...`). Executions of tools become events, everything else is passed over.",
    operations=(
        Operation(
            method="POST",
            path="/v1/traces",
            name="exportTraces",
            tag="Traces",
            summary="Export traces (OTLP)",
            description=_DESCRIPTION,
            parameters=(
                parameter(
                    "Content-Encoding",
                    {"type": "string", "examples": ["gzip", "zstd"]},
                    "`gzip`, `zstd` or `identity`; two at once at most.",
                    place="header",
                ),
            ),
            body={
                JSON_TYPE: ref("ExportTraceServiceRequest"),
                _PROTOBUF: {"type": "string", "format": "binary", "description": "The same message in protobuf."},
            },
            body_required=True,
            answers={
                200: _answer(
                    "Kafka has the tool spans, but for those that `partialSuccess` tells of; they are not to be sent again.",
                    ref("ExportTraceServiceResponse"),
                ),
                **{status: _answer(told, ref("Status")) for status, told in _REFUSALS.items()},
                **{status: _answer(told, ref("Status"), headers=("RetryAfter",)) for status, told in _LATER.items()},
            },
            errors=(408, 500),
            examples=(_EXPORT,),
        ),
    ),
    schemas=_SCHEMAS,
)
