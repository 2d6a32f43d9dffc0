"""Questions to the service: what a client asks of logs and usage. Other than recording, these wait, and raise clear errors."""

import os
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from ingest.client.connection import Answer, Connection, ServiceUnavailable
from ingest.client.judging import retry_after_s
from ingest.client.options import Options
from ingest.client.pauses import jittered
from ingest.client.version import user_agent
from ingest.contract.errors import ConfigurationError, QueryError


class Answered(msgspec.Struct, kw_only=True):
    """What every answer has: it holds all that was accepted before `complete_until` (ISO 8601)."""

    complete_until: str | None = None


M = TypeVar("M", bound=Answered)

_TRIES: Final = 3
_AGAIN: Final = frozenset({429, 502, 503})
_PAUSE_S: Final = 0.5
# Whoever asks waits for the answer; a server that wants more time than that is better told of.
_PAUSE_S_MAX: Final = 10.0
_KEPT_MAX: Final = 8
_TEXT_CHARS_MAX: Final = 300

_encode = msgspec.json.Encoder().encode


class RequestFailed(QueryError):
    """The service refused a question.

    `status`, `slug`, `message`, `suggested_fix` and `errors` are the answer's own; `request_id` finds it in the service's logs.
    """

    def __init__(self, status: int, slug: str, message: str, *, request_id: str | None = None, **more: Any) -> None:
        super().__init__(status, slug, message, **more)
        self.request_id = request_id

    def __str__(self) -> str:
        fix = f" {self.suggested_fix}" if self.suggested_fix else ""
        errors = f" ({'; '.join(self.errors)})" if self.errors else ""
        return f"{self.status} {self.message}{errors}{fix} [request {self.request_id or 'without id'}]"


class LogNotFound(RequestFailed):
    """There is no such log in this project, or not yet: a call is searchable within about a second."""


class _Error(msgspec.Struct):
    message: str = ""
    slug: str = "unknown"
    request_id: str | None = None
    suggested_fix: str | None = None
    errors: list[str] = msgspec.field(default_factory=list)


class _ErrorBody(msgspec.Struct):
    error: _Error | None = None
    message: str | None = None


class Reader:
    """Asks, with a few kept connections, from any number of threads."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._idle: deque[Connection] = deque(maxlen=_KEPT_MAX)
        self._process_id = os.getpid()

    def post(self, path: str, body: Mapping[str, Any], kind: type[M]) -> M:
        """Ask with a body."""
        return self._ask("POST", path, _encode({name: value for name, value in body.items() if value is not None}), kind)

    def get(self, path: str, name: str, kind: type[M]) -> M:
        """Ask for one thing by its name."""
        return self._ask("GET", path + quote(name, safe=""), None, kind)

    def close(self) -> None:
        """Close what is kept."""
        while self._idle:
            self._idle.pop().close()

    def _ask(self, method: str, path: str, body: bytes | None, kind: type[M]) -> M:
        key = self._options.api_key
        if key is None:
            raise ConfigurationError("no API key: give api_key=, or put one into TOOLLEDGER_API_KEY")
        headers = {"x-api-key": key, "accept": "application/json", "user-agent": user_agent()}
        if body is not None:
            headers["content-type"] = "application/json"
        answer = self._answer(method, path, headers, body)
        if not 200 <= answer.status < 300:
            raise _failed(answer)
        try:
            found = msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            why = f"{self._options.base_url} answered something else than toolledger does ({error}); is TOOLLEDGER_URL right?"
            raise RequestFailed(answer.status, "unreadable_answer", why) from None
        found.complete_until = answer.headers.get("x-complete-until")
        return found

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        for tries_left in reversed(range(_TRIES)):
            connection = self._connection()
            try:
                answer = connection.request(method, path, headers, body)
            except ServiceUnavailable:
                if not tries_left:
                    raise
                time.sleep(jittered(_PAUSE_S))
                continue
            finally:
                self._idle.append(connection)
            asked_s = retry_after_s(answer.headers, now_s=time.time())
            pause_s = _PAUSE_S if asked_s is None else asked_s
            final = answer.headers.get("x-should-retry") == "false" or pause_s > _PAUSE_S_MAX
            if answer.status not in _AGAIN or final or not tries_left:
                return answer
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _connection(self) -> Connection:
        if os.getpid() != self._process_id:
            # A fork: the connections are the parent's, who goes on with them.
            self._idle, self._process_id = deque(maxlen=_KEPT_MAX), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return Connection(self._options.base_url, timeout_s=self._options.timeout_s)


def _failed(answer: Answer) -> RequestFailed:
    try:
        body = msgspec.json.decode(answer.body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = _ErrorBody(message=answer.body[:_TEXT_CHARS_MAX].decode(errors="replace"))
    error = body.error or _Error(message=body.message or f"answered {answer.status}")
    kind = LogNotFound if answer.status == 404 and error.message == "Log not found" else RequestFailed
    return kind(
        answer.status,
        error.slug,
        error.message,
        request_id=answer.headers.get("x-request-id") or error.request_id,
        suggested_fix=error.suggested_fix,
        errors=tuple(error.errors),
    )
