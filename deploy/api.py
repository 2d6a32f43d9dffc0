"""A small blocking client of our own HTTP API, for the commands: one kept connection, errors as one line."""

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from ingest.contract.addresses import is_http, is_key
from ingest.contract.errors import ConfigurationError, LedgerError, QueryError

_TIMEOUT_S: Final = 60.0
# What is asked of whoever gets an answer that is not ours.
ANOTHER: Final = "is it toolledger that listens there?"


class BrokenOffError(Exception):
    """An answer that was being read ended before it was whole, or did not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Status, headers and body of one answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            LedgerError: it is no JSON object, or, later, has not the member that is asked for: something else listens at that
                address.
        """
        try:
            found = json.loads(self.body, object_hook=_Members)
        except ValueError:
            raise LedgerError(f"the answer (HTTP {self.status}) is not JSON: {ANOTHER}") from None
        if not isinstance(found, dict):
            raise LedgerError(f"the answer (HTTP {self.status}) is no JSON object: {ANOTHER}")
        return found


class _Members(dict[str, Any]):
    """An object of an answer, of which a member that is not there is no fault of ours."""

    def __missing__(self, name: str) -> Any:
        raise LedgerError(f"the answer has no `{name}`: {ANOTHER}")


class Api:
    """Talks to one address with one key."""

    def __init__(self, url: str, key: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Prepare; nothing is sent yet.

        Raises:
            ConfigurationError: the address is none, or the key cannot be one.
        """
        if not is_http(url):
            raise ConfigurationError(f"{url!r} is no address: put http(s)://host:port into TOOLLEDGER_URL")
        if not is_key(key):
            # Found by the library it would be shown whole.
            raise ConfigurationError("TOOLLEDGER_API_KEY holds a character that no key has, as a line end: copy it once more")
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._headers = {"x-api-key": key, "user-agent": "toolledger-cli"}
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
        self._aborted = False

    def send(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """Send one request and return the answer, whatever its status.

        Raises:
            ConfigurationError: nothing answers at the address.
        """
        try:
            answer = self._request(method, path, body, headers)
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ConfigurationError(
                f"no answer from {self.url} ({error or type(error).__name__}): start it with `toolledger up`, "
                "or name its address in TOOLLEDGER_URL"
            ) from None
        return Answer(status=answer.status, headers=dict(answer.headers.items()), body=content)

    def abort(self) -> None:
        """End whatever another thread waits for here: it gets no answer."""
        self._aborted = True
        if (waiting := self._connection.sock) is not None:
            with contextlib.suppress(OSError):
                waiting.shutdown(socket.SHUT_RDWR)

    def get(self, path: str, parameters: Mapping[str, object] | None = None) -> Any:
        """Ask with GET and return the JSON of a 200.

        Raises:
            LedgerError: any other status, with what the server says about it.
        """
        return self._expect(self.send("GET", path + query(parameters)))

    def post(self, path: str, body: object) -> Any:
        """Ask with POST and return the JSON of a 200, as `get`."""
        return self._expect(self.send("POST", path, json.dumps(body).encode(), {"content-type": "application/json"}))

    @contextlib.contextmanager
    def open(
        self, path: str, parameters: Mapping[str, object], headers: Mapping[str, str] | None = None
    ) -> Iterator["Reading"]:
        """Give a 200 whose body is read by the caller, part by part or line by line.

        Raises:
            LedgerError: any other status.
            BrokenOffError: nothing answers.
        """
        try:
            with _breaking_off():
                answer = self._request("GET", path + query(parameters), None, headers)
                if answer.status != 200:
                    raise fault(Answer(status=answer.status, headers=dict(answer.headers.items()), body=answer.read()))
            yield Reading(answer)
        finally:
            self._connection.close()

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> http.client.HTTPResponse:
        if self._aborted:
            raise ConnectionAbortedError("given up")
        every = {**self._headers, **(headers or {})}
        kept = self._connection.sock is not None
        try:
            self._connection.request(method, self._prefix + path, body, every)
            return self._connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # A kept connection may have been closed meanwhile; a new one that is closed at once is a fault.
            self._connection.close()
            if not kept or self._aborted:
                raise
            self._connection.request(method, self._prefix + path, body, every)
            return self._connection.getresponse()

    def _expect(self, answer: Answer) -> Any:
        if answer.status == 200:
            return answer.json()
        raise fault(answer)


class Reading:
    """An answer that is being read. Calls raise BrokenOffError where it ends before it is whole."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.headers = answer.headers
        self._answer = answer

    def part(self, bytes_max: int) -> bytes:
        """Return the next part, none at the end."""
        with _breaking_off():
            # `read1` would take an answer that broke off for one that ended; so does `read` where its length was told.
            data = self._answer.read(bytes_max)
            if not data and self._answer.length:
                raise http.client.IncompleteRead(data, self._answer.length)
            return data

    def line(self, bytes_max: int) -> bytes:
        """Return the next line with its end, none at the end."""
        with _breaking_off():
            return self._answer.readline(bytes_max)


@contextlib.contextmanager
def _breaking_off() -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOffError(str(error) or type(error).__name__) from None


def query(parameters: Mapping[str, object] | None) -> str:
    """Return `?name=value&...` of what is not None; a list repeats its name."""
    given = {name: value for name, value in (parameters or {}).items() if value is not None}
    return "?" + urlencode(given, doseq=True) if given else ""


def fault(answer: Answer) -> LedgerError:
    """Turn an answer of another status into an error with the server's own words and what to do."""
    try:
        error = json.loads(answer.body)["error"]
        message, slug, fix = str(error["message"]), str(error.get("slug", "")), error.get("suggested_fix")
    except (ValueError, KeyError, TypeError):
        message, slug, fix = f"HTTP {answer.status} without a reason", "", ANOTHER
    if answer.status == 401 and not fix:
        fix = "put a key that is in force into TOOLLEDGER_API_KEY"
    return QueryError(answer.status, slug, f"{message.rstrip('.')}{f': {fix}' if fix else ''}")
