"""What is known of one tool call and of who makes it."""

from dataclasses import dataclass, field

from ingest.mcp.frames import Moment
from ingest.mcp.messages import Id


@dataclass(slots=True, kw_only=True)
class Peers:
    """The client of one conversation, as it introduced itself, and the protocol that was agreed on."""

    client: str = ""
    client_version: str = ""
    protocol_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Why a call failed: `kind` is the error's type."""

    message: str
    code: int | str | None = None
    kind: str | None = None


@dataclass(slots=True, kw_only=True)
class Call:
    """One `tools/call`; complete once `ended` is set.

    `request` are the arguments, `response` is the result or the error, both as they were sent. `result_type` is what the server
    called its result, where it is more than an answer.
    """

    tool: str
    request_id: Id | None
    scope: str
    started: Moment
    peers: Peers
    request: bytes | None = None
    progress_token: Id | None = None
    trace_id: str | None = None
    progress_count: int = 0
    rounds: int = 1
    server: str = ""
    server_version: str = ""
    # The exchange that began it, over HTTP.
    stream: int = 0
    ended: Moment | None = None
    response: bytes | None = None
    fault: Fault | None = None
    cancelled: bool = False
    result_type: str = ""
    task_id: str = ""
    # In what state the server wants the call to be continued.
    state: bytes = field(default=b"", repr=False)
