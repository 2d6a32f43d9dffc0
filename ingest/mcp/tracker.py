"""Which request belongs to which answer: every `tools/call` comes out once, whatever the order of things. Pure.

A scope is what an id is unique in: over stdio the whole, over HTTP a session, or where there is none a single exchange.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from ingest.mcp.call import Call, Fault, Peers
from ingest.mcp.endings import INPUT_REQUIRED, UNANSWERED, Ending, cancelled
from ingest.mcp.frames import Moment
from ingest.mcp.lines import Line
from ingest.mcp.messages import Id, Members, identity, members, messages, text, value

# Calls that wait for an answer; beyond it the oldest is given up. Clients have a handful.
OPEN_CALLS_MAX: Final = 10_000
# Arguments held for them; beyond it those of new calls are left out.
HELD_BYTES_MAX: Final = 64 * 1024 * 1024
# One call's arguments; more than an event can hold.
REQUEST_BYTES_MAX: Final = 1024 * 1024
SCOPES_MAX: Final = 10_000

_META: Final = "io.modelcontextprotocol/"
_TRACE_PARENT_PARTS: Final = 4

Key = tuple[str, Id]


class Tracker:
    """Follows both directions; what it returns are calls that have ended."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, Call] = OrderedDict()
        self._by_id: dict[Key, list[int]] = {}
        self._by_token: dict[Key, int] = {}
        self._introductions: OrderedDict[Key, Members] = OrderedDict()
        self._peers: OrderedDict[str, Peers] = OrderedDict()
        # Calls answered with a question, by tool and state; continued by a call that brings the answer.
        self._asked: OrderedDict[tuple[str, bytes], Call] = OrderedDict()
        # One run has one server, over however many sessions.
        self._server = ("", "")
        self._next = 0
        self._held_bytes = 0

    @property
    def open_calls(self) -> int:
        return len(self._open)

    def from_client(self, line: Line, scope: str, at: Moment, *, stream: int = 0) -> list[Call]:
        """Take what the client said; return what has ended by it."""
        ended: list[Call] = []
        for message in messages(line):
            method = text(message.get("method"))
            if method == "tools/call":
                ended += self._begin(message, scope, at, stream)
            elif method == "notifications/cancelled":
                params = members(message.get("params"))
                if (id_ := identity(params.get("requestId"))) is not None:
                    ended += self._cancel((scope, id_), text(params.get("reason")), at)
            elif method in ("initialize", "server/discover") and (id_ := identity(message.get("id"))) is not None:
                self._introductions[scope, id_] = members(message.get("params"))
                _bound(self._introductions)
        return ended

    def from_server(self, line: Line, scope: str, at: Moment) -> list[Call]:
        """Take what the server said; return what has ended by it."""
        ended: list[Call] = []
        for message in messages(line):
            if "method" in message:
                self._progress(message, scope)
                continue
            if "result" not in message and "error" not in message:
                continue
            id_ = identity(message.get("id"))
            if id_ is None:
                continue
            introduction = self._introductions.pop((scope, id_), None)
            if introduction is not None:
                self._introduce(introduction, members(message.get("result")), scope)
            elif (number := self._oldest((scope, id_))) is not None:
                call = self._close(number, at)
                self._answer(call, message)
                ended += self._ask(call) if call.result_type == "input_required" else [call]
        return ended

    def end(self, ending: Ending, at: Moment) -> list[Call]:
        """End everything: nothing more will come."""
        ended = self.end_some(ending, at, lambda _: True)
        ended += [self._give_up(call, INPUT_REQUIRED) for call in self._asked.values()]
        self._asked.clear()
        return ended

    def end_some(self, ending: Ending, at: Moment, those: Callable[[Call], bool]) -> list[Call]:
        """End some of the open calls."""
        numbers = [number for number, call in self._open.items() if those(call)]
        return [self._give_up(self._close(number, at), ending) for number in numbers]

    def forget(self, those: Callable[[Call], bool]) -> int:
        """Drop open calls whose answers may have been missed; return how many these were."""
        numbers = [number for number, call in self._open.items() if those(call)]
        for number in numbers:
            self._close(number, self._open[number].started)
        return len(numbers)

    def answer_some(self, response: bytes, at: Moment, those: Callable[[Call], bool]) -> list[Call]:
        """End some of the open calls, of whose answers no more is known than that they came."""
        ended = [self._close(number, at) for number in [number for number, call in self._open.items() if those(call)]]
        for call in ended:
            call.response = response
            self._end_call(call)
        return ended

    def waits(self, those: Callable[[Call], bool]) -> bool:
        """Tell whether any of some calls is open."""
        return any(those(call) for call in self._open.values())

    # A call.

    def _begin(self, message: Members, scope: str, at: Moment, stream: int) -> list[Call]:
        params = members(message.get("params"))
        meta = members(params.get("_meta"))
        peers = self._peers.get(scope)
        if f"{_META}protocolVersion" in meta:
            # Since 2026-07-28 each request introduces its client.
            peers = Peers(protocol_version=text(meta[f"{_META}protocolVersion"]) or "")
            peers.client, peers.client_version = _named(meta.get(f"{_META}clientInfo"))
        tool = text(params.get("name")) or ""
        call = Call(
            tool=tool,
            request_id=identity(message.get("id")),
            scope=scope,
            stream=stream,
            started=at,
            peers=peers or Peers(),
            request=self._held(params.get("arguments")),
            progress_token=identity(meta.get("progressToken")),
            trace_id=_trace_id(text(meta.get("traceparent"))),
        )
        if "inputResponses" in params or "requestState" in params:
            asked = self._asked.pop((tool, bytes(params.get("requestState", b""))), None)
            if asked is not None:
                call.started, call.rounds = asked.started, asked.rounds + 1
        if call.request_id is None:
            # A notification, which nobody answers: no call of a tool has a result without one.
            return []
        number, self._next = self._next, self._next + 1
        self._open[number] = call
        self._held_bytes += len(call.request or b"")
        self._by_id.setdefault((scope, call.request_id), []).append(number)
        if call.progress_token is not None:
            self._by_token[scope, call.progress_token] = number
        if len(self._open) > OPEN_CALLS_MAX:
            return [self._give_up(self._close(next(iter(self._open)), at), UNANSWERED)]
        return []

    def _held(self, arguments: msgspec.Raw | None) -> bytes | None:
        if arguments is None:
            return None
        size = memoryview(arguments).nbytes
        if size > REQUEST_BYTES_MAX or self._held_bytes + size > HELD_BYTES_MAX:
            return msgspec.json.encode({"cut": True, "bytes": size})
        return bytes(arguments)

    def _close(self, number: int, at: Moment) -> Call:
        call = self._open.pop(number)
        call.ended = at
        self._held_bytes -= len(call.request or b"")
        assert call.request_id is not None, "only calls with an id are held"
        same = self._by_id[call.scope, call.request_id]
        same.remove(number)
        if not same:
            del self._by_id[call.scope, call.request_id]
        if call.progress_token is not None and self._by_token.get((call.scope, call.progress_token)) == number:
            del self._by_token[call.scope, call.progress_token]
        return call

    def _oldest(self, key: Key) -> int | None:
        # An id that is used again before it is answered breaks the protocol; answers then come in the order of requests.
        return self._by_id[key][0] if key in self._by_id else None

    def _cancel(self, key: Key, reason: str | None, at: Moment) -> list[Call]:
        number = self._oldest(key)
        if number is None:
            return []
        call = self._close(number, at)
        return [self._give_up(call, cancelled(reason))]

    def _ask(self, call: Call) -> list[Call]:
        key = (call.tool, call.state)
        crowded_out = self._asked.pop(key, None)
        self._asked[key] = call
        given_up = [] if crowded_out is None else [crowded_out]
        if len(self._asked) > OPEN_CALLS_MAX:
            given_up.append(self._asked.popitem(last=False)[1])
        return [self._give_up(each, INPUT_REQUIRED) for each in given_up]

    def _progress(self, message: Members, scope: str) -> None:
        if text(message["method"]) != "notifications/progress":
            return
        token = identity(members(message.get("params")).get("progressToken"))
        number = None if token is None else self._by_token.get((scope, token))
        if number is not None:
            self._open[number].progress_count += 1

    def _answer(self, call: Call, message: Members) -> None:
        """Put the server's answer into a call."""
        # Some write both members, the one that does not apply as null.
        if "error" in message and (bytes(message["error"]) != b"null" or "result" not in message):
            error = members(message["error"])
            code = value(error.get("code"))
            call.fault = Fault(
                message=text(error.get("message")) or "the server answered with an error",
                code=code if isinstance(code, int) and not isinstance(code, bool) else None,
            )
            call.response = b'{"error":' + bytes(message["error"]) + b"}"
        else:
            result = members(message["result"])
            call.response = bytes(message["result"])
            call.result_type = text(result.get("resultType")) or ""
            call.state = bytes(result.get("requestState", b""))
            call.task_id = text(members(result.get("task")).get("taskId")) or ""
            server = members(result.get("_meta")).get(f"{_META}serverInfo")
            if server is not None:
                self._server = _named(server)
            if value(result.get("isError")) is True:
                said = _said(result.get("content"))
                call.fault = Fault(message=said or "the tool failed and did not say why", kind="tool_error")
        self._end_call(call)

    def _give_up(self, call: Call, ending: Ending) -> Call:
        call.cancelled = ending.why == "cancelled"
        call.fault = Fault(message=ending.message, code=ending.code, kind=ending.why)
        self._end_call(call)
        return call

    def _end_call(self, call: Call) -> None:
        call.server, call.server_version = self._server

    # Who talks.

    def _introduce(self, asked: Members, result: Members, scope: str) -> None:
        peers = self._peers.setdefault(scope, Peers())
        self._peers.move_to_end(scope)
        _bound(self._peers)
        client, server = asked.get("clientInfo"), result.get("serverInfo")
        if client is None:
            client = members(asked.get("_meta")).get(f"{_META}clientInfo")
        if server is None:
            server = members(result.get("_meta")).get(f"{_META}serverInfo")
        if client is not None:
            peers.client, peers.client_version = _named(client)
        if server is not None:
            self._server = _named(server)
        peers.protocol_version = text(result.get("protocolVersion")) or peers.protocol_version


def _said(content: msgspec.Raw | None) -> str:
    """Return the texts of a result's content."""
    items = value(content)
    texts = [item.get("text") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    return "\n".join(one for one in texts if isinstance(one, str))


def _named(info: msgspec.Raw | None) -> tuple[str, str]:
    read = members(info)
    return text(read.get("name")) or "", text(read.get("version")) or ""


def _trace_id(parent: str | None) -> str | None:
    """Return the trace of a W3C `traceparent`."""
    parts = (parent or "").split("-")
    return parts[1] if len(parts) >= _TRACE_PARENT_PARTS and len(parts[1]) == 32 else None


def _bound(kept: OrderedDict[str, Peers] | OrderedDict[Key, Members]) -> None:
    if len(kept) > SCOPES_MAX:
        kept.popitem(last=False)
