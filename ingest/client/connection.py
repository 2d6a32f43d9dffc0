"""HTTP to one address, from the standard library: kept alive, with timeouts, through the proxy that the environment names.

No third-party client: one would be a dependency of every application that records, and needs care at a fork.
"""

import contextlib
import http.client
import os
import socket
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from ingest.contract.errors import TransportError

CONNECT_TIMEOUT_S: Final = 5.0
# An answer to a batch names each refused event at most; one log with its payload has a megabyte.
# This machine is reached without help.
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024


class ServiceUnavailable(TransportError):
    """The toolledger service could not be reached, or broke off; the same call may succeed later."""

    code = "service_unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete answer; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """One connection, made when it is needed; for one thread at a time."""

    def __init__(self, base_url: str, *, timeout_s: float, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        parts = urlsplit(base_url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._path = parts.path.rstrip("/")
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._connect_timeout_s = min(connect_timeout_s, timeout_s)
        self._connection: http.client.HTTPConnection | None = None
        # Of a proxy that is asked for the whole address.
        self._prefix = ""
        self._proxy_headers: dict[str, str] = {}

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Send a request and return its answer.

        A kept connection may just have been closed by the server; then it is tried once more on a new one, which is safe,
        because an event counts once by its id and everything else only reads.

        Raises:
            ServiceUnavailable: no connection, or no complete answer in time.
        """
        kept = self._connection is not None
        try:
            return self._exchange(method, path, headers, body)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            if not kept:
                raise self._unavailable(error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise self._unavailable(error) from None
        try:
            return self._exchange(method, path, headers, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            raise self._unavailable(error) from None

    def close(self) -> None:
        """Close the connection; the next request makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """In a forked child: let go of the parent's socket, without a word to the server.

        Not by closing it: a thread of the parent's may have held the lock of its buffer at the fork, and here nobody gives
        that back. The number stays taken, so that no late close of these objects meets a file of somebody else's.
        """
        connection, self._connection = self._connection, None
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, connection.sock.fileno(), inheritable=False)
                os.close(nothing)

    def abort(self) -> None:
        """From another thread: break off what is going on."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        connection.request(method, self._prefix + self._path + path, body, {**headers, **self._proxy_headers})
        response = connection.getresponse()
        read = response.read(_ANSWER_BYTES_MAX)
        if response.length and len(read) < _ANSWER_BYTES_MAX:
            # Asked for so much at most, the library does not tell that the connection ended before.
            raise http.client.IncompleteRead(read, response.length)
        if response.will_close or not response.isclosed():
            self.close()
        return Answer(status=response.status, headers={name.lower(): value for name, value in response.getheaders()}, body=read)

    def _connect(self) -> http.client.HTTPConnection:
        proxy = self._proxy()
        host, port = (proxy[0], proxy[1]) if proxy else (self._host, self._port)
        connection: http.client.HTTPConnection
        if self._secure:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=self._connect_timeout_s, context=context)
            if proxy:
                connection.set_tunnel(self._host, self._port, proxy[2])
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self._connect_timeout_s)
            if proxy:
                name = f"[{self._host}]" if ":" in self._host else self._host
                self._prefix = f"http://{name}:{self._port}"
                self._proxy_headers = proxy[2]
        connection.connect()
        connection.sock.settimeout(self._timeout_s)
        return connection

    def _proxy(self) -> tuple[str, int, dict[str, str]] | None:
        """Return host, port and headers of the proxy that the environment (HTTPS_PROXY, NO_PROXY, ...) asks for."""
        address = urllib.request.getproxies().get("https" if self._secure else "http")
        if self._host in _LOOPBACK or not address or urllib.request.proxy_bypass(f"{self._host}:{self._port}"):
            return None
        parts = urlsplit(address if "//" in address else f"//{address}")
        if not parts.hostname:
            return None
        headers = {}
        if parts.username is not None:
            who = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["proxy-authorization"] = "Basic " + b64encode(who.encode()).decode()
        return parts.hostname, parts.port or 80, headers

    def _unavailable(self, error: Exception) -> ServiceUnavailable:
        what = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return ServiceUnavailable(f"{self._base_url}: {what}; is the service running, and the address (TOOLLEDGER_URL) right?")
