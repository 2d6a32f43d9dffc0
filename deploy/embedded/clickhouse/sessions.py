"""Sessions: connections that outlive a request, with their temporary tables and SET values.

A session belongs to one user and runs one statement at a time. It ends when it was idle for its timeout.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from deploy.embedded.clickhouse.engine import EngineConnection
from deploy.embedded.clickhouse.errors import SESSION_IS_LOCKED, SESSION_NOT_FOUND, ClickHouseError
from deploy.embedded.clickhouse.request import SessionRequest


@dataclass(slots=True, kw_only=True)
class Session:
    """One session.

    Args:
        key: user and session id.
        connection: opened by the first statement that runs in it.
        database: what `USE` in the session chose.
        connection_database: where the connection stands now; a request's own `database` moves it for one statement.
        assigned: settings that SET statements of the session assigned.
    """

    key: tuple[str, str]
    connection: EngineConnection | None = None
    database: str = ""
    connection_database: str = "default"
    assigned: dict[str, str] = field(default_factory=dict)
    busy: bool = False
    expiry: asyncio.TimerHandle | None = None


@dataclass(slots=True, kw_only=True)
class Lease:
    """One request's hold on its session; None where it asked for no session."""

    session: Session | None = None
    wanted: SessionRequest | None = None


class Sessions:
    """The sessions of one server; used from the event loop only.

    Args:
        close: closes a connection, away from the event loop.
    """

    def __init__(self, close: Callable[[EngineConnection], object]) -> None:
        self._close = close
        self._sessions: dict[tuple[str, str], Session] = {}

    def acquire(self, user: str, wanted: SessionRequest | None) -> Lease:
        """Find or make the session and lock it for one statement.

        Raises:
            ClickHouseError: 372, it must exist and does not; 373, another statement runs in it.
        """
        if wanted is None:
            return Lease()
        key = (user, wanted.session_id)
        session = self._sessions.get(key)
        if session is None:
            if wanted.must_exist:
                raise ClickHouseError(SESSION_NOT_FOUND, "SESSION_NOT_FOUND", f"Session {wanted.session_id} not found")
            session = self._sessions[key] = Session(key=key)
        elif session.busy:
            raise ClickHouseError(
                SESSION_IS_LOCKED, "SESSION_IS_LOCKED", f"Session {wanted.session_id} is locked by a concurrent client"
            )
        session.busy = True
        if session.expiry is not None:
            session.expiry.cancel()
            session.expiry = None
        return Lease(session=session, wanted=wanted)

    def release(self, lease: Lease) -> None:
        """Give a session back; it ends now, or when it was idle for the timeout the request asked for.

        A lease that was given back already stays so: the session may be another request's by then.
        """
        session, wanted = lease.session, lease.wanted
        lease.session = None
        if session is None or wanted is None:
            return
        session.busy = False
        if wanted.close:
            self._end(session)
            return
        session.expiry = asyncio.get_running_loop().call_later(wanted.timeout_seconds, self._end, session)

    def close_all(self) -> None:
        """End all sessions: the engine shuts down only without them."""
        for session in list(self._sessions.values()):
            self._end(session)

    def _end(self, session: Session) -> None:
        self._sessions.pop(session.key, None)
        if session.expiry is not None:
            session.expiry.cancel()
        if session.connection is not None:
            self._close(session.connection)
            session.connection = None
