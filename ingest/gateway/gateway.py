"""The gateway: what is under `/api` and not answered here goes to the upstream; what runs a tool there is recorded."""

import functools
from collections import OrderedDict
from typing import Final

from ingest.contract.control import ControlFollower
from ingest.gateway.credentials import Grant, grant
from ingest.gateway.executions import Executions
from ingest.gateway.passage import Passage
from ingest.gateway.payloads import read, text_of
from ingest.gateway.recorder import Recorder
from ingest.gateway.routes import execution_of, session_of
from ingest.http.answers import Receive, Refused, Scope, Send
from ingest.http.body import InFlight
from ingest.http.upstream import RawHeader, Upstream
from ingest.settings import IngestSettings

# Sessions whose user is known: some 20 MB.
_SESSIONS_MAX: Final = 100_000
_SESSION_BYTES_MAX: Final = 64 * 1024


class Gateway:
    """Made and closed in the loop that uses it."""

    def __init__(self, settings: IngestSettings, *, control: ControlFollower, recorder: Recorder, in_flight: InFlight) -> None:
        assert settings.upstream is not None, "without an upstream there is no gateway"
        self._settings = settings
        self._control = control
        self._recorder = recorder
        self._upstream = Upstream(settings.upstream, connect_timeout_s=settings.upstream_connect_timeout_s)
        self._passage = Passage(self._upstream, timeout_s=settings.upstream_timeout_s)
        self._users: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._executions = Executions(
            settings, upstream=self._upstream, recorder=recorder, in_flight=in_flight, users=self._users
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Pass one request on and answer it; the status that was answered. Raises as `Passage` and `Executions` do."""
        if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in scope["headers"]):
            raise Refused(501, "websockets are not passed on; connect to the upstream itself", slug="Upstream_NoWebsockets")
        granted = self._grant(scope["headers"])
        execution = execution_of(scope["method"], scope["raw_path"])
        if execution is not None:
            return await self._executions(execution, scope, receive, send, request_id, granted)
        see = None
        if session_of(scope["method"], scope["raw_path"]):
            see = functools.partial(self._see_session, granted.project_id)
        # A large upload may take longer than the bodies that are read here.
        scope["unhurried"] = True
        return await self._passage(scope, receive, send, request_id, granted, see)

    def start(self) -> None:
        """Begin to bring what is recorded to Kafka."""
        self._recorder.start()

    def end_streams(self) -> None:
        """End answers that have no end of their own."""
        self._passage.end_streams()

    async def stop(self) -> None:
        """Bring what is recorded to Kafka, as far as that is possible, and close the kept connections."""
        await self._recorder.stop()
        self._upstream.close()

    def _grant(self, headers: list[RawHeader]) -> Grant:
        key = self._settings.upstream_api_key
        return grant(
            self._control.access,
            headers,
            caught_up=self._control.caught_up.is_set(),
            upstream_key=None if key is None else key.get_secret_value(),
            upstream_project=self._settings.upstream_project,
        )

    def _see_session(self, project_id: str, status: int, headers: list[RawHeader], raw: bytes) -> None:
        """Remember whose a session is: its executions do not say it."""
        if not 200 <= status < 300:
            return
        told = read(raw, dict(headers), bytes_max=_SESSION_BYTES_MAX).members() or {}
        config = read(bytes(told.get("config", b"")), {}, bytes_max=_SESSION_BYTES_MAX).members() or {}
        session_id = text_of(told.get("session_id"))
        user_id = text_of(config.get("user_id")) or text_of(told.get("user_id"))
        if session_id and user_id:
            self._users[project_id, session_id] = user_id
            self._users.move_to_end((project_id, session_id))
            if len(self._users) > _SESSIONS_MAX:
                self._users.popitem(last=False)
