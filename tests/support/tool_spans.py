"""Spans of tool calls as each convention writes them, made with the real SDK, and what the ledger should make of them.

The attributes are those the instrumentations set (names, nesting and encoding of values); the values are our own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.exporter.otlp.json.common.trace_encoder import encode_spans as encode_json
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

RESOURCE = {"service.name": "travel-agent", "host.name": "agent-7"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One span: what an instrumentation records, and the members of the event it becomes."""

    name: str
    attributes: Mapping[str, Any]
    expected: Mapping[str, Any]
    kind: SpanKind = SpanKind.INTERNAL
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()
    status: Status = field(default_factory=lambda: Status(StatusCode.UNSET))
    scope: str = "tests"


def provider(*exporters: SpanExporter) -> TracerProvider:
    """Return a provider that hands each span to the exporters as it ends."""
    made = TracerProvider(resource=Resource.create(RESOURCE))
    for exporter in exporters:
        made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


def record(made: TracerProvider, recorded: Recorded) -> None:
    """Record one span with a tracer of its scope."""
    tracer = made.get_tracer(recorded.scope, "1.4.0")
    with tracer.start_as_current_span(recorded.name, kind=recorded.kind, attributes=dict(recorded.attributes)) as span:
        for name, attributes in recorded.events:
            span.add_event(name, dict(attributes))
        span.set_status(recorded.status)


def spans_of(*recorded: Recorded) -> Sequence[ReadableSpan]:
    """Return finished spans."""
    memory = InMemorySpanExporter()
    made = provider(memory)
    for one in recorded:
        record(made, one)
    return memory.get_finished_spans()


def protobuf_of(spans: Sequence[ReadableSpan]) -> bytes:
    """Return the request that the SDK's protobuf exporter would send."""
    return encode_spans(spans).SerializeToString()


def json_of(spans: Sequence[ReadableSpan]) -> bytes:
    """Return the request that the SDK's JSON exporter would send."""
    return json.dumps(encode_json(spans).to_dict()).encode()


GENAI = Recorded(
    name="execute_tool GMAIL_SEND_EMAIL",
    scope="opentelemetry.instrumentation.agents",
    attributes={
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "GMAIL_SEND_EMAIL",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "call_8sq",
        "gen_ai.tool.call.arguments": '{"to": "mia@example.com", "n": 1.50}',
        "gen_ai.tool.call.result": '{"id": "m1"}',
        "gen_ai.conversation.id": "conv_1",
        "user.id": "user_1",
    },
    expected={
        "tool_slug": "GMAIL_SEND_EMAIL",
        "status": "success",
        "session_id": "conv_1",
        "user_id": "user_1",
        "data": {"request": {"to": "mia@example.com", "n": 1.5}, "response": {"id": "m1"}},
        "source": {"framework": "opentelemetry.instrumentation.agents", "language": "python", "host": "agent-7"},
        "tool_call_id": "call_8sq",
    },
)
GENAI_FAILED = Recorded(
    name="execute_tool book_flight",
    attributes={
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "book_flight",
        "error.type": "PaymentError",
        "http.response.status_code": 402,
    },
    events=[
        (
            "exception",
            {"exception.type": "shop.PaymentError", "exception.message": "card refused", "exception.stacktrace": "at pay()"},
        )
    ],
    status=Status(StatusCode.ERROR, "PaymentError: card refused"),
    expected={
        "tool_slug": "book_flight",
        "status": "failed",
        "error": {"message": "card refused", "type": "PaymentError", "code": "402"},
    },
)
# Strands Agents, and others after the conventions of 2025: contents in events, failure in an attribute.
GENAI_EVENTS = Recorded(
    name="execute_tool weather",
    attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather", "gen_ai.tool.status": "error"},
    events=[
        ("gen_ai.tool.message", {"role": "tool", "content": '{"city": "Oslo"}', "id": "tooluse_1"}),
        ("gen_ai.choice", {"message": '[{"text": "no such city"}]', "id": "tooluse_1"}),
    ],
    expected={
        "tool_slug": "weather",
        "status": "failed",
        "data": {"request": {"city": "Oslo"}, "response": [{"text": "no such city"}]},
    },
)
# Pydantic AI before version 3 of its instrumentation: no operation, names of its own.
PYDANTIC = Recorded(
    name="running tool",
    attributes={
        "gen_ai.tool.name": "multiply",
        "gen_ai.tool.call.id": "call_7",
        "tool_arguments": '{"a":15,"b":7}',
        "tool_response": "105",
    },
    expected={
        "tool_slug": "multiply",
        "status": "success",
        "data": {"request": {"a": 15, "b": 7}, "response": "105"},
        "tool_call_id": "call_7",
    },
)
OPENINFERENCE = Recorded(
    name="search_hotels",
    scope="openinference.instrumentation.langchain",
    attributes={
        "openinference.span.kind": "TOOL",
        "tool.name": "search_hotels",
        "tool.description": "Finds hotels.",
        "tool.parameters": '{"city": "str"}',
        "input.value": '{"city": "Rome"}',
        "input.mime_type": "application/json",
        "output.value": "3 hotels",
        "session.id": "session_9",
        "user.id": "user_9",
        "metadata": '{"tier": "gold"}',
    },
    status=Status(StatusCode.OK),
    expected={
        "tool_slug": "search_hotels",
        "status": "success",
        "session_id": "session_9",
        "user_id": "user_9",
        "data": {"request": {"city": "Rome"}, "response": "3 hotels"},
        "source": {"framework": "openinference.instrumentation.langchain", "language": "python", "host": "agent-7"},
    },
)
OPENLLMETRY = Recorded(
    name="get_quote.tool",
    scope="traceloop.tracer",
    attributes={
        "traceloop.span.kind": "tool",
        "traceloop.entity.name": "get_quote",
        "traceloop.entity.input": '{"args": ["ACME"], "kwargs": {}}',
        "traceloop.entity.output": "12.5",
        "traceloop.workflow.name": "trade",
        "traceloop.association.properties.user_id": "user_3",
        "traceloop.association.properties.session_id": "session_3",
    },
    expected={
        "tool_slug": "get_quote",
        "status": "success",
        "session_id": "session_3",
        "user_id": "user_3",
        "data": {"request": {"args": ["ACME"], "kwargs": {}}, "response": "12.5"},
    },
)
MCP_CLIENT = Recorded(
    name="tools/call create_issue",
    kind=SpanKind.CLIENT,
    attributes={
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "create_issue",
        "mcp.session.id": "191c4850af6c49e08843a3f6c80e5046",
        "mcp.protocol.version": "2025-06-18",
        "jsonrpc.request.id": "42",
        "error.type": "tool_error",
        "gen_ai.tool.call.result": '{"content": [{"type": "text", "text": "no such repository"}], "isError": true}',
        "server.address": "mcp.example.com",
    },
    expected={
        "tool_slug": "create_issue",
        "toolkit_slug": "mcp.example.com",
        "status": "failed",
        "session_id": "191c4850af6c49e08843a3f6c80e5046",
        "error": {"message": "no such repository", "type": "tool_error"},
        "request_id": "42",
    },
)
MCP_SERVER = Recorded(
    name="tools/call list_files",
    kind=SpanKind.SERVER,
    attributes={"mcp.method.name": "tools/call", "mcp.tool.name": "list_files", "mcp.session.id": "s1"},
    expected={"tool_slug": "list_files", "toolkit_slug": "travel-agent", "status": "success", "session_id": "s1"},
)
MCP_NAMED = Recorded(
    name="execute_tool mcp__github__create_issue",
    attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "mcp__github__create_issue"},
    expected={"tool_slug": "mcp__github__create_issue", "toolkit_slug": "github", "status": "success"},
)
VERCEL = Recorded(
    name="ai.toolCall",
    scope="ai",
    attributes={
        "operation.name": "ai.toolCall",
        "ai.operationId": "ai.toolCall",
        "ai.toolCall.name": "weather",
        "ai.toolCall.id": "call_1",
        "ai.toolCall.args": '{"city":"Oslo"}',
        "ai.toolCall.result": '{"c":4}',
        "ai.telemetry.metadata.userId": "user_5",
        "ai.telemetry.metadata.sessionId": "session_5",
    },
    expected={
        "tool_slug": "weather",
        "status": "success",
        "session_id": "session_5",
        "user_id": "user_5",
        "data": {"request": {"city": "Oslo"}, "response": {"c": 4}},
        "tool_call_id": "call_1",
    },
)
TOOLS = (
    *(GENAI, GENAI_FAILED, GENAI_EVENTS, PYDANTIC, OPENINFERENCE, OPENLLMETRY),
    *(MCP_CLIENT, MCP_SERVER, MCP_NAMED, VERCEL),
)
# Spans of the same agents that are no tool executions, though they speak of tools.
OTHERS = (
    Recorded(
        name="chat gpt-5",
        attributes={"gen_ai.operation.name": "chat", "gen_ai.input.messages": '[{"parts":[{"name":"execute_tool"}]}]'},
        expected={},
    ),
    Recorded(name="invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.tool.name": "x"}, expected={}),
    Recorded(name="chain", attributes={"openinference.span.kind": "CHAIN", "input.value": "hi"}, expected={}),
    Recorded(name="trade.workflow", attributes={"traceloop.span.kind": "workflow"}, expected={}),
    Recorded(name="tools/list", attributes={"mcp.method.name": "tools/list"}, kind=SpanKind.CLIENT, expected={}),
    Recorded(name="running 2 tools", attributes={"tools": ["a", "b"]}, expected={}),
    Recorded(name="GET /", attributes={"http.request.method": "GET"}, kind=SpanKind.SERVER, expected={}),
)
