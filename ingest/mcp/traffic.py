"""From frames to calls. Pure."""

from typing import Protocol

from ingest.mcp import scopes
from ingest.mcp.call import Call
from ingest.mcp.endings import Ending
from ingest.mcp.frames import Frame, Kind, Moment
from ingest.mcp.lines import Lines
from ingest.mcp.tracker import Tracker


class Traffic(Protocol):
    """One run's traffic, of whatever transport; `missed` counts the calls that were lost sight of."""

    missed: int

    def take(self, frame: Frame) -> list[Call]:
        """Take the next frame; return the calls that have ended by it."""

    def end(self, ending: Ending, at: Moment) -> list[Call]:
        """Return the calls that are open when nothing more will come."""


class Pipes:
    """The stdio transport: one message a line, both ways."""

    def __init__(self) -> None:
        self.missed = 0
        self._tracker = Tracker()
        self._client = Lines()
        self._server = Lines()

    def take(self, frame: Frame) -> list[Call]:
        """Take the next frame; return the calls that have ended by it."""
        if frame.kind is Kind.CLIENT:
            found = [self._tracker.from_client(line, scopes.WHOLE, frame.at) for line in self._client.feed(frame.payload)]
        elif frame.kind is Kind.SERVER:
            found = [self._tracker.from_server(line, scopes.WHOLE, frame.at) for line in self._server.feed(frame.payload)]
        elif frame.kind is Kind.CLIENT_END and (line := self._client.rest()) is not None:
            # Most servers take a last line without its end for one, and answer it.
            found = [self._tracker.from_client(line, scopes.WHOLE, frame.at)]
        else:
            if frame.kind is Kind.LOST:
                self._client.lost()
                self._server.lost()
                self.missed += max(1, self._tracker.forget(lambda _: True))
            return []
        return [call for calls in found for call in calls]

    def end(self, ending: Ending, at: Moment) -> list[Call]:
        """Return the calls that are open when nothing more will come."""
        ended: list[Call] = []
        # Without its end a last line is no message for most readers, but it may be whole.
        if (line := self._client.rest()) is not None:
            ended += self._tracker.from_client(line, scopes.WHOLE, at)
        if (line := self._server.rest()) is not None:
            ended += self._tracker.from_server(line, scopes.WHOLE, at)
        return ended + self._tracker.end(ending, at)
