"""Which span is a tool execution, and under which names each convention keeps what a log wants to know. Pure tables.

Of several names the first one that is there counts: those of OpenTelemetry's own GenAI and MCP conventions, then those of
OpenInference, then those of OpenLLMetry, then what single frameworks send beside or instead of them.

Source: open-telemetry/semantic-conventions (docs/gen-ai, docs/mcp), Arize-ai/openinference (spec/semantic_conventions.md),
traceloop/openllmetry (semantic-conventions-ai, traceloop-sdk associations); Pydantic AI, Strands Agents, Google ADK and the
Vercel AI SDK as openinference's instrumentations read them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ingest.otlp.spans import Attributes

# A span without any of these is no tool execution, whatever else it holds: protobuf spans are passed over by them unread.
MARKS: Final = (
    "execute_tool",
    "openinference.span.kind",
    "traceloop.span.kind",
    "tools/call",
    "gen_ai.tool.name",
    "mcp.tool.name",
    "ai.toolCall",
)

_OPERATION: Final = "gen_ai.operation.name"
_EXECUTE_TOOL: Final = "execute_tool"
_MCP_METHOD: Final = "mcp.method.name"
_MCP_CALL: Final = "tools/call"
_SPAN_KINDS: Final = ("openinference.span.kind", "traceloop.span.kind")

TOOL: Final = (
    "gen_ai.tool.name",
    "tool.name",
    "mcp.tool.name",
    "ai.toolCall.name",
    "tool_call.function.name",
    "traceloop.entity.name",
)
# Where none of these names is there, the span's own name says it: behind or before these words.
SPAN_NAME_HEADS: Final = ("execute_tool ", "tools/call ", "running tool: ", "ai.toolCall ")
SPAN_NAME_TAILS: Final = (".tool",)
CALL_ID: Final = ("gen_ai.tool.call.id", "tool_call.id", "tool.id", "ai.toolCall.id")
ARGUMENTS: Final = (
    "gen_ai.tool.call.arguments",
    "input.value",
    "tool.parameters",
    "tool_call.function.arguments",
    "traceloop.entity.input",
    "mcp.request.argument",
    "mcp.tool.arguments",
    "tool_arguments",
    "gcp.vertex.agent.tool_call_args",
    "ai.toolCall.args",
    "ai.toolCall.input",
)
RESULT: Final = (
    "gen_ai.tool.call.result",
    "output.value",
    "traceloop.entity.output",
    "mcp.response.value",
    "mcp.tool.result",
    "tool_response",
    "gcp.vertex.agent.tool_response",
    "ai.toolCall.result",
    "ai.toolCall.output",
)
SESSION: Final = (
    "gen_ai.conversation.id",
    "session.id",
    "traceloop.association.properties.session_id",
    "traceloop.association.properties.conversation_id",
    "traceloop.association.properties.thread_id",
    "traceloop.association.properties.chat_id",
    "langfuse.session.id",
    "ai.telemetry.metadata.sessionId",
    "gcp.vertex.agent.session_id",
    # The connection to one MCP server: a session for want of a conversation.
    "mcp.session.id",
)
USER: Final = (
    "user.id",
    "enduser.id",
    "traceloop.association.properties.user_id",
    "langfuse.user.id",
    "ai.telemetry.metadata.userId",
)
TOOLKIT: Final = ("mcp.server.name", "gen_ai.toolkit.name", "tool.server.name")
# Of a client's MCP span; a server's own span has its name as `service.name`.
SERVER_ADDRESS: Final = ("server.address",)
REQUEST_ID: Final = ("jsonrpc.request.id", "mcp.request.id", "rpc.jsonrpc.request_id")
ERROR_TYPE: Final = ("error.type",)
ERROR_MESSAGE: Final = ("error.message",)
ERROR_CODE: Final = (
    "http.response.status_code",
    "http.status_code",
    "rpc.response.status_code",
    "rpc.jsonrpc.error_code",
    "jsonrpc.error.code",
)
# Frameworks that leave the span's status alone and say it so.
TOOL_STATUS: Final = ("gen_ai.tool.status", "tool.status")
_FAILED_STATUS: Final = frozenset(("error", "failed", "failure"))

# The conventions of 2024 and 2025 kept contents in span events: (event, member). The tool's input comes as the message to the
# tool, its output as the choice.
ARGUMENT_EVENTS: Final = (("gen_ai.tool.message", "content"),)
RESULT_EVENTS: Final = (("gen_ai.choice", "message"), ("gen_ai.choice", "content"), ("gen_ai.tool.result", "content"))
EXCEPTION_EVENT: Final = "exception"

# `mcp__github__create_issue`: how agents name the tools of MCP servers that they were given.
_MCP_NAME_HEAD: Final = "mcp__"


def is_tool_execution(attributes: Attributes) -> bool:
    """Tell whether a span is the execution of a tool."""
    if attributes.get(_OPERATION) == _EXECUTE_TOOL or is_mcp_call(attributes):
        return True
    kinds = [value for name in _SPAN_KINDS if (value := attributes.get(name))]
    if kinds:
        return any(isinstance(kind, str) and kind.lower() == "tool" for kind in kinds)
    if _OPERATION in attributes or _MCP_METHOD in attributes:
        return False
    # Before the operation had a name of its own, the tool's name told; a list of tools has none.
    return any(attributes.get(name) for name in ("gen_ai.tool.name", "mcp.tool.name", "ai.toolCall.name"))


def is_mcp_call(attributes: Attributes) -> bool:
    """Tell whether a span is an MCP call of a tool, seen from either side."""
    return attributes.get(_MCP_METHOD) == _MCP_CALL


def first(attributes: Attributes, names: Sequence[str]) -> Any:
    """Return the first value that is there under one of several names; empty is not there."""
    for name in names:
        value = attributes.get(name)
        if value is not None and value != "":
            return value
    return None


def says_failed(attributes: Attributes) -> bool:
    """Tell whether a framework's own status of the tool is one of failure."""
    status = first(attributes, TOOL_STATUS)
    return isinstance(status, str) and status.lower() in _FAILED_STATUS


def tool_in(span_name: str) -> str:
    """Return the tool that a span's name speaks of."""
    for head in SPAN_NAME_HEADS:
        if span_name.startswith(head):
            return span_name[len(head) :].strip()
    for tail in SPAN_NAME_TAILS:
        if span_name.endswith(tail):
            return span_name[: -len(tail)]
    return span_name


def toolkit_in(tool: str) -> str | None:
    """Return the server that the name of an MCP tool speaks of."""
    if not tool.startswith(_MCP_NAME_HEAD):
        return None
    server, _, rest = tool[len(_MCP_NAME_HEAD) :].partition("__")
    return server if server and rest else None


# Told only of what failed.
ERRORS: Final = (ERROR_TYPE, ERROR_MESSAGE, ERROR_CODE)
# What stands under these names is told in members of its own: name -> all that mean the same.
TOLD: Final[Mapping[str, Sequence[str]]] = {
    name: same for same in (TOOL, CALL_ID, ARGUMENTS, RESULT, SESSION, USER, TOOLKIT, REQUEST_ID, *ERRORS) for name in same
}
