"""A plain HTTP client for the ClickHouse contract: it sends what a test says and shows what came back, nothing more."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer, headers by name in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> int:
        """The ClickHouse error code, 0 for none."""
        return int(self.headers.get("x-clickhouse-exception-code", "0"))

    @property
    def summary(self) -> dict[str, int]:
        return {name: int(value) for name, value in json.loads(self.headers["x-clickhouse-summary"]).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickHouse:
    """A ClickHouse server at an address."""

    host: str
    port: int
    user: str = "default"
    password: str = ""

    @classmethod
    def at(cls, url: str) -> ClickHouse:
        parts = urlsplit(url)
        assert parts.hostname is not None
        return cls(
            host=parts.hostname,
            port=parts.port or 8123,
            user=unquote(parts.username or "default"),
            password=unquote(parts.password or ""),
        )

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            yield connection
        finally:
            connection.close()

    def request(
        self,
        method: str,
        path: str,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        *,
        authenticated: bool = True,
    ) -> Answer:
        """Send one request as it stands."""
        own = {"X-ClickHouse-User": self.user, "X-ClickHouse-Key": self.password} if authenticated else {}
        with self.connection() as connection:
            connection.request(method, path, body=body, headers={**own, **(headers or {})})
            response = connection.getresponse()
            content = response.read()
            return Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=content,
            )

    def ask(
        self, query: str | bytes = b"", /, body: Any = None, headers: Mapping[str, str] | None = None, **members: Any
    ) -> Answer:
        """POST a query: in the body, or in the URL where there is a body as well; `members` go into the URL."""
        if body is None:
            return self.request("POST", "/?" + urlencode(members), query, headers)
        return self.request("POST", "/?" + urlencode({"query": query, **members}), body, headers)

    def get(self, query: str, headers: Mapping[str, str] | None = None, **members: Any) -> Answer:
        """GET with the query in the URL."""
        return self.request("GET", "/?" + urlencode({"query": query, **members}), b"", headers)

    def rows(self, query: str | bytes, /, **members: Any) -> list[list[str]]:
        """The rows of a query, as text."""
        answer = self.ask(query, **members)
        assert answer.status == 200, answer.text
        return [line.split("\t") for line in answer.text.splitlines()]

    def value(self, query: str | bytes, /, **members: Any) -> str:
        """The one value of a query, as text."""
        return self.rows(query, **members)[0][0]

    def done(
        self, query: str | bytes = b"", /, body: Any = None, headers: Mapping[str, str] | None = None, **members: Any
    ) -> Answer:
        """Like `ask`, for what must succeed."""
        answer = self.ask(query, body, headers, **members)
        assert answer.status == 200, answer.text
        return answer


def form(boundary: str, fields: Mapping[str, str], files: Mapping[str, bytes]) -> bytes:
    """A multipart/form-data body."""
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in fields.items()]
    for name, content in files.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.tsv"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode()
