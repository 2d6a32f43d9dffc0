"""From the bytes of a request to one statement and the data it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy.embedded.clickhouse.body import Spool
from deploy.embedded.clickhouse.compression import decode
from deploy.embedded.clickhouse.insert import MAX_QUERY_BYTES, Kind, Statement
from deploy.embedded.clickhouse.request import QueryRequest
from deploy.embedded.clickhouse.statement import parse_statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A statement, and for INSERT_DATA its rows in the statement's input format."""

    statement: Statement
    data: Spool | None = None


def load(request: QueryRequest, body: Spool, new_spool: Callable[[], Spool]) -> Loaded:
    """Find the statement in URL and body, and set its rows apart.

    The text is the URL's `query`, a line break, and the body, as in ClickHouse.

    Raises:
        ClickHouseError: no statement, or a body that cannot be decoded.
    """
    url_text = request.query + (b"" if not request.query or request.query.endswith(b"\n") else b"\n")
    if url_text and not body.size:
        statement = parse_statement(url_text, complete=True)
        if statement.kind is not Kind.INSERT_DATA:
            return Loaded(statement=statement)
    plain = _decoded(body, request.content_encoding, new_spool)
    try:
        text = url_text + plain.head(2 * MAX_QUERY_BYTES)
        statement = parse_statement(text, complete=plain.size <= 2 * MAX_QUERY_BYTES)
        if statement.kind is not Kind.INSERT_DATA:
            return Loaded(statement=statement)
        inline, skipped = url_text[statement.data_at :], max(0, statement.data_at - len(url_text))
        if not inline and not skipped:
            data, plain = plain, new_spool()  # the body is the rows, as it stands
        else:
            data = new_spool()
            data.write(inline)
            data.copy_from(plain, skipped)
        return Loaded(statement=statement, data=data)
    finally:
        if plain is not body:
            plain.close()


def _decoded(body: Spool, encoding: str, new_spool: Callable[[], Spool]) -> Spool:
    if not encoding or encoding == "identity" or not body.size:
        return body
    plain = new_spool()
    try:
        for piece in decode(body.read, body.size, encoding):
            plain.write(piece)
    except BaseException:
        plain.close()
        raise
    return plain
