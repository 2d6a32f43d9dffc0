"""One HTTP request, read: where each member of ClickHouse's HTTP interface comes from and what it means."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from deploy.embedded.clickhouse.errors import (
    AUTHENTICATION_FAILED,
    BAD_REQUEST_PARAMETER,
    INVALID_SESSION_TIMEOUT,
    UNKNOWN_ROLE,
    ClickHouseError,
)

DEFAULT_SESSION_TIMEOUT_SECONDS: Final = 60
MAX_SESSION_TIMEOUT_SECONDS: Final = 3600  # ClickHouse's max_session_timeout

# Members of the HTTP interface itself; everything else in the URL is a setting of the query.
# Source: ClickHouse, src/Server/HTTPHandler.cpp (reserved_param_names).
_RESERVED: Final = frozenset(
    {
        "query", "database", "default_format", "user", "password", "quota_key", "stacktrace", "role", "query_id",
        "session_id", "session_timeout", "session_check", "close_session",
        "compress", "decompress", "buffer_size", "wait_end_of_query", "client_protocol_version",
    }
)  # fmt: skip

# Settings of the HTTP layer: judged here, nothing in the engine reads them.
_HTTP_SETTINGS: Final = frozenset(
    {
        "enable_http_compression", "http_zlib_compression_level", "http_native_compression_disable_checksumming_on_decompress",
        "send_progress_in_http_headers", "http_headers_progress_interval_ms", "add_http_cors_header",
        "cancel_http_readonly_queries_on_client_close", "http_wait_end_of_query", "http_response_buffer_size",
        "http_write_exception_in_output_format",
    }
)  # fmt: skip

_TRUE: Final = frozenset({"1", "true"})
_EXTERNAL_SUFFIXES: Final = ("_format", "_types", "_structure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who asks, as the request says it."""

    user: str
    password: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """The session a request wants to run in."""

    session_id: str
    timeout_seconds: int
    must_exist: bool
    close: bool


@dataclass(slots=True, kw_only=True)
class QueryRequest:
    """A request for one statement, without its body.

    Args:
        query: the statement's text that came in the URL or a form field; the body's text follows it.
        parameters: values of `{name:Type}` placeholders, escaped as the protocol has them.
        settings: settings for this statement only, without those of the HTTP layer.
        read_only_method: GET and HEAD may not change anything.
        external: `<table>_format`, `_types` and `_structure` of external tables.
    """

    query: bytes
    credentials: Credentials
    query_id: str = ""
    database: str = ""
    default_format: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    external: dict[str, str] = field(default_factory=dict)
    session: SessionRequest | None = None
    read_only_method: bool = False
    wait_end_of_query: bool = False
    content_encoding: str = ""
    content_type: str = ""
    accept_encoding: str = ""
    zlib_level: int = 3
    native_output_compression: bool = False
    native_input_compression: bool = False
    verify_checksums: bool = True
    cors: bool = False

    @property
    def encoded(self) -> bool:
        """Whether the body is compressed in any way."""
        return self.native_input_compression or self.content_encoding not in ("", "identity")


def _pairs(scope: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    # surrogateescape keeps bytes that are not UTF-8 in a query as they are.
    return parse_qsl(
        scope["query_string"].decode("latin-1"), keep_blank_values=True, encoding="utf-8", errors="surrogateescape"
    )


def text_bytes(text: str) -> bytes:
    """The bytes `text` stood for in the URL."""
    return text.encode("utf-8", errors="surrogateescape")


def read_headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Header names, in lower case, to values; of a repeated one the last counts."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _credentials(headers: Mapping[str, str], members: Mapping[str, str]) -> Credentials:
    """Headers of ClickHouse's own win over Basic, and Basic over the URL, as in ClickHouse."""
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return Credentials(user=headers.get("x-clickhouse-user") or "default", password=headers.get("x-clickhouse-key", ""))
    authorization = headers.get("authorization", "")
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ClickHouseError(
                AUTHENTICATION_FAILED,
                "AUTHENTICATION_FAILED",
                "The Authorization header is not valid Basic authentication",
            ) from None
        return Credentials(user=user or "default", password=password)
    if authorization:
        raise ClickHouseError(
            AUTHENTICATION_FAILED,
            "AUTHENTICATION_FAILED",
            f"Authentication scheme {scheme!r} is not supported here: use Basic or X-ClickHouse-User and X-ClickHouse-Key",
        )
    return Credentials(user=members.get("user") or "default", password=members.get("password", ""))


def _session(members: Mapping[str, str]) -> SessionRequest | None:
    session_id = members.get("session_id", "")
    if not session_id:
        return None
    timeout = members.get("session_timeout", str(DEFAULT_SESSION_TIMEOUT_SECONDS))
    if not timeout.isdigit():
        raise ClickHouseError(INVALID_SESSION_TIMEOUT, "INVALID_SESSION_TIMEOUT", f"Invalid session timeout: '{timeout}'")
    if int(timeout) > MAX_SESSION_TIMEOUT_SECONDS:
        raise ClickHouseError(
            INVALID_SESSION_TIMEOUT,
            "INVALID_SESSION_TIMEOUT",
            f"Session timeout '{timeout}' is larger than max_session_timeout: {MAX_SESSION_TIMEOUT_SECONDS}",
        )
    return SessionRequest(
        session_id=session_id,
        timeout_seconds=int(timeout),
        must_exist=members.get("session_check") == "1",
        close=members.get("close_session") == "1",
    )


def read_request(scope: Mapping[str, Any], form: Iterable[tuple[str, str]] = (), tables: Iterable[str] = ()) -> QueryRequest:
    """Read a request's URL, headers and form fields.

    Args:
        scope: the ASGI scope.
        form: text fields of a multipart body; they count as members of the URL.
        tables: names of the external tables that came with it.

    Raises:
        ClickHouseError: a member that is not valid, or that this server cannot honour (roles).
    """
    headers = read_headers(scope)
    # Only names of tables that are there: settings end in `_types` and `_format` too.
    external = {table + suffix for table in tables for suffix in _EXTERNAL_SUFFIXES}
    members: dict[str, str] = {}
    request = QueryRequest(query=b"", credentials=Credentials(user="", password=""))
    for name, value in [*_pairs(scope), *form]:
        if name == "query":
            request.query += text_bytes(value)
        elif name.startswith("param_"):
            request.parameters[name[6:]] = value
        elif name in _RESERVED or name in _HTTP_SETTINGS:
            members[name] = value
        elif name in external:
            request.external[name] = value
        else:
            request.settings[name] = value
    if members.get("role"):
        # chDB has no access control: a role could neither restrict nor grant, and silence would look like protection.
        raise ClickHouseError(
            UNKNOWN_ROLE, "UNKNOWN_ROLE", f"There is no role `{members['role']}`: the embedded ClickHouse has no roles"
        )
    request.credentials = _credentials(headers, members)
    request.query_id = members.get("query_id", "") or headers.get("x-clickhouse-query-id", "")
    request.database = members.get("database", "") or headers.get("x-clickhouse-database", "")
    request.default_format = members.get("default_format", "") or headers.get("x-clickhouse-format", "")
    request.session = _session(members)
    request.read_only_method = scope["method"] in ("GET", "HEAD")
    request.wait_end_of_query = bool(
        _TRUE & {members.get("wait_end_of_query", "").lower(), members.get("http_wait_end_of_query", "").lower()}
    )
    request.content_encoding = headers.get("content-encoding", "").lower()
    request.content_type = headers.get("content-type", "")
    if members.get("enable_http_compression", "").lower() in _TRUE:
        request.accept_encoding = headers.get("accept-encoding", "")
    level = members.get("http_zlib_compression_level", "")
    if level:
        if not level.isdigit() or not 1 <= int(level) <= 9:
            raise ClickHouseError(
                BAD_REQUEST_PARAMETER,
                "BAD_REQUEST_PARAMETER",
                f"http_zlib_compression_level must be 1 to 9, not {level!r}",
            )
        request.zlib_level = int(level)
    request.native_output_compression = members.get("compress", "").lower() in _TRUE
    request.native_input_compression = members.get("decompress", "").lower() in _TRUE
    request.verify_checksums = (
        members.get("http_native_compression_disable_checksumming_on_decompress", "").lower() not in _TRUE
    )
    request.cors = members.get("add_http_cors_header", "").lower() in _TRUE and "origin" in headers
    return request
