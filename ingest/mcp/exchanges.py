"""The streamable HTTP transport: many exchanges at once, sessions, and answers that come over another stream. Pure.

Where an answer is looked for: in the body of the answer, as JSON or as an event stream; on the stream that a client opens to
take up one that broke off (`Last-Event-ID`); and, of the transport of 2024, on the stream that told the address of the POST.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ingest.mcp import scopes
from ingest.mcp.bodies import Decoder, EventStream, ServerSentEvent, decoder_for
from ingest.mcp.call import Call
from ingest.mcp.endings import UNANSWERED, Ending, cancelled
from ingest.mcp.frames import Frame, Kind, Moment
from ingest.mcp.heads import AnswerHead, RequestHead
from ingest.mcp.lines import Gathering, Line, TooLong
from ingest.mcp.messages import members, text
from ingest.mcp.tracker import Tracker

# So long a call whose stream broke off may be taken up again. Clients try within seconds.
RESUMED_WITHIN_MS: Final = 600_000
# Broken streams and addresses kept in mind.
_KEPT_MAX: Final = 1_000
_STATELESS_SINCE: Final = "2026"
_EVENT_STREAM: Final = "text/event-stream"
_SAID_CHARS_MAX: Final = 500

_request: Final = msgspec.json.Decoder(RequestHead).decode
_answer: Final = msgspec.json.Decoder(AnswerHead).decode
_ending: Final = msgspec.json.Decoder(Ending).decode


@dataclass(slots=True)
class _Exchange:
    """One request and its answer, which may begin before the request is whole.

    `asked` waits for its scope, which only the answer's head may tell.
    """

    head: RequestHead
    scope: str | None
    asking: Decoder
    sent: Gathering = field(default_factory=Gathering)
    decoder: Decoder = field(default_factory=lambda: decoder_for(None))
    body: Gathering = field(default_factory=Gathering)
    asked: tuple[Line, Moment] | None = None
    answer: AnswerHead | None = None
    events: EventStream | None = None
    event_id: str | None = None
    blind: bool = False


class Exchanges:
    """Puts the exchanges of one run together."""

    def __init__(self) -> None:
        self.missed = 0
        self._tracker = Tracker()
        self._exchanges: dict[int, _Exchange] = {}
        # Streams that ended before their answer, with the moment they did.
        self._broken: OrderedDict[int, Moment] = OrderedDict()
        # In which scope a stream goes on: by the last event id seen, and by the address that was told to the client.
        self._resumed: OrderedDict[str, str] = OrderedDict()
        self._addresses: OrderedDict[str, str] = OrderedDict()
        self._steps: Mapping[Kind, Callable[[_Exchange, Frame], list[Call]]] = {
            Kind.CLIENT: self._asking,
            Kind.CLIENT_END: self._asked,
            Kind.ANSWER: self._answered,
            Kind.SERVER: self._said,
            Kind.LOST: self._lost,
            Kind.SERVER_END: self._end,
        }

    def take(self, frame: Frame) -> list[Call]:
        """Take the next frame; return the calls that have ended by it."""
        if frame.kind is Kind.REQUEST:
            self._begin(frame)
            return self._expire(frame.at)
        exchange = self._exchanges.get(frame.stream)
        if exchange is None:
            return []
        if exchange.blind and frame.kind is not Kind.SERVER_END:
            return []
        return self._steps[frame.kind](exchange, frame)

    def end(self, ending: Ending, at: Moment) -> list[Call]:
        """Return the calls that are open when nothing more will come."""
        ended = [call for stream, each in self._exchanges.items() for call in self._place(each, stream, None)]
        return ended + self._tracker.end(ending, at)

    # The request.

    def _begin(self, frame: Frame) -> None:
        head = _request(frame.payload)
        scope = scopes.of_session(head.session) if head.session else self._addresses.get(head.target)
        if head.last_event_id is not None:
            # It stays: an attempt that fails is followed by another with the same id.
            scope = self._resumed.get(head.last_event_id, scope)
        if scope is None and head.method == "GET":
            scope = scopes.of_exchange(frame.stream)
        self._exchanges[frame.stream] = _Exchange(head, scope, decoder_for(head.encoding))

    def _asking(self, exchange: _Exchange, frame: Frame) -> list[Call]:
        for piece in exchange.asking.decode(frame.payload):
            exchange.sent.add(piece)
        return []

    def _asked(self, exchange: _Exchange, frame: Frame) -> list[Call]:
        body = exchange.sent.take()
        if body is not None and exchange.head.method == "POST":
            exchange.asked = (body, frame.at)
        return self._place(exchange, frame.stream, None) if exchange.scope is not None else []

    def _place(self, exchange: _Exchange, stream: int, session: str | None) -> list[Call]:
        """Read what was asked, in the scope that is known by now."""
        if exchange.scope is None:
            exchange.scope = scopes.of_session(session) if session else scopes.of_exchange(stream)
        if exchange.asked is None:
            return []
        body, at = exchange.asked
        exchange.asked = None
        return self._tracker.from_client(body, exchange.scope, at, stream=stream)

    # The answer.

    def _answered(self, exchange: _Exchange, frame: Frame) -> list[Call]:
        exchange.answer = _answer(frame.payload)
        exchange.decoder = decoder_for(exchange.answer.encoding)
        if exchange.answer.content_type == _EVENT_STREAM:
            exchange.events = EventStream()
        return self._place(exchange, frame.stream, exchange.answer.session)

    def _said(self, exchange: _Exchange, frame: Frame) -> list[Call]:
        ended: list[Call] = []
        for piece in exchange.decoder.decode(frame.payload):
            if exchange.events is None:
                exchange.body.add(piece)
            else:
                for event in exchange.events.feed(piece):
                    ended += self._event(exchange, event, frame.at)
        return ended

    def _event(self, exchange: _Exchange, event: ServerSentEvent, at: Moment) -> list[Call]:
        assert exchange.scope is not None, "it is known once the answer has begun"
        exchange.event_id = event.id_ or exchange.event_id
        if event.data is None:
            return []
        if event.kind == "endpoint" and isinstance(event.data, bytes):
            address = urlsplit(event.data.decode(errors="replace").strip())
            _keep(self._addresses, f"{address.path}?{address.query}" if address.query else address.path, exchange.scope)
            return []
        return self._tracker.from_server(event.data, exchange.scope, at)

    def _end(self, exchange: _Exchange, frame: Frame) -> list[Call]:
        """End an exchange: what it asked and nobody answered has failed, unless it may still be answered elsewhere."""
        del self._exchanges[frame.stream]
        ended = self._place(exchange, frame.stream, None)
        assert exchange.scope is not None, "it is placed by now"
        for event in exchange.events.end() if exchange.events is not None else ():
            ended += self._event(exchange, event, frame.at)
        body = exchange.body.take() if exchange.answer is not None else None
        if body is not None:
            ended += self._tracker.from_server(body, exchange.scope, frame.at)
        status = 0 if exchange.answer is None else exchange.answer.status
        if exchange.head.method == "DELETE" and exchange.head.session and 200 <= status < 300:
            over = Ending(why="client_gone", message="connection closed: the client ended the session before an answer came")
            return ended + self._tracker.end_some(over, frame.at, lambda call: call.scope == exchange.scope)
        if exchange.head.method == "GET" and exchange.scope in self._addresses.values():
            gone = _ending(frame.payload) if frame.payload else _broken_off()
            return ended + self._tracker.end_some(gone, frame.at, lambda call: call.scope == exchange.scope)
        # A stream that took another one up holds the calls of that one.
        resumed = exchange.head.last_event_id is not None
        if not self._tracker.waits(lambda call: call.stream == frame.stream or (resumed and call.scope == exchange.scope)):
            return ended
        return ended + self._left_open(exchange, frame, body)

    def _left_open(self, exchange: _Exchange, frame: Frame, body: Line | None) -> list[Call]:
        """Decide on the calls of an exchange that is over, of whose answers nothing was read."""

        def own(call: Call) -> bool:
            return call.stream == frame.stream

        answer = exchange.answer
        if answer is not None and answer.asks_again:
            self._tracker.forget(own)
            return []
        if answer is not None and 200 <= answer.status < 300 and exchange.decoder.failed and not frame.payload:
            return self._tracker.answer_some(msgspec.json.encode({"cut": True, "encoding": answer.encoding}), frame.at, own)
        why = _why(exchange, body, _ending(frame.payload) if frame.payload else None)
        if why is None:
            self._broken[frame.stream] = frame.at
            if exchange.event_id is not None:
                _keep(self._resumed, exchange.event_id, exchange.scope or "")
            return []
        return self._tracker.end_some(why, frame.at, own)

    def _lost(self, exchange: _Exchange, frame: Frame) -> list[Call]:
        exchange.blind = True
        exchange.asked = None
        self.missed += max(1, self._tracker.forget(lambda call: call.stream == frame.stream))
        return []

    def _expire(self, at: Moment) -> list[Call]:
        """End the calls of streams that broke off long ago and were not taken up."""
        ended: list[Call] = []
        while self._broken:
            stream, since = next(iter(self._broken.items()))
            if at.ms_since(since) < RESUMED_WITHIN_MS:
                break
            del self._broken[stream]
            ended += self._tracker.end_some(UNANSWERED, at, lambda call, gone=stream: call.stream == gone)  # type: ignore[misc]
        return ended


def _why(exchange: _Exchange, body: Line | None, ending: Ending | None) -> Ending | None:
    """Return why an exchange that is over gave no answer; None where an answer may still come over another stream."""
    answer = exchange.answer
    if answer is not None and answer.status >= 300:
        return Ending(why="http_error", message=f"HTTP {answer.status}{_said_in(body)}", code=answer.status)
    stateless = (exchange.head.protocol or "") >= _STATELESS_SINCE
    if ending is not None and ending.why == "client_gone" and stateless:
        # Since 2026-07-28 closing the stream is how a client takes its request back.
        return cancelled("it closed the stream")
    if exchange.event_id is not None and not stateless:
        return None
    if answer is not None and answer.status == 202:
        # The transport of 2024: the answer comes over the stream that told the address.
        return None
    return ending or _broken_off()


def _broken_off() -> Ending:
    return Ending(why="connection_closed", message="connection closed: the server ended the stream before it answered")


def _said_in(body: Line | None) -> str:
    """Return what an answer with an error's status says, for a person."""
    if body is None:
        return ""
    start = body.head if isinstance(body, TooLong) else body
    said = text(members(members(start).get("error")).get("message")) or start[: 4 * _SAID_CHARS_MAX].decode(errors="replace")
    return f": {' '.join(said.split())[:_SAID_CHARS_MAX]}"


def _keep(kept: OrderedDict[str, str], name: str, scope: str) -> None:
    kept[name] = scope
    if len(kept) > _KEPT_MAX:
        kept.popitem(last=False)
