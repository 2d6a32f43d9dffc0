"""From the bytes of a request to one statement and the data it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy.embedded.clickhouse.body import Spool
from deploy.embedded.clickhouse.compression import ENGINE_METHODS, decode
from deploy.embedded.clickhouse.request import QueryRequest
from deploy.embedded.clickhouse.statement import MAX_QUERY_BYTES, Kind, Statement, parse_statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A statement, and for INSERT_DATA its data.

    Args:
        data: the rows, in the statement's input format.
        engine_compression: how `data` is compressed, in the engine's words; None where it is plain.
    """

    statement: Statement
    data: Spool | None = None
    engine_compression: str | None = None


def load(request: QueryRequest, body: Spool, new_spool: Callable[[], Spool]) -> Loaded:
    """Find the statement in URL and body, and set its data apart.

    The text is the URL's `query`, a line break, and the body, as in ClickHouse. Rows go to the engine as they came:
    a compressed body whose statement is in the URL is decompressed by the engine itself.

    Raises:
        ClickHouseError: no statement, or a body that cannot be decoded.
    """
    url_text = request.query + b"\n" if request.query else b""
    if url_text:
        statement = parse_statement(url_text, complete=True) if _is_insert(url_text) or not body.size else None
        if statement is not None and statement.kind is not Kind.INSERT_DATA and not body.size:
            return Loaded(statement=statement)
        if statement is not None and statement.kind is Kind.INSERT_DATA:
            return _insert_from_url(statement, url_text[statement.data_at :], request, body, new_spool)
    plain = _decoded(body, request.content_encoding, new_spool)
    text = url_text + plain.head(2 * MAX_QUERY_BYTES)
    statement = parse_statement(text, complete=plain.size <= 2 * MAX_QUERY_BYTES)
    if statement.kind is not Kind.INSERT_DATA:
        if plain is not body:
            plain.close()
        return Loaded(statement=statement)
    data = new_spool()
    data.write(text[statement.data_at : len(url_text)])
    data.copy_from(plain, max(0, statement.data_at - len(url_text)))
    if plain is not body:
        plain.close()
    return Loaded(statement=statement, data=data)


def _is_insert(text: bytes) -> bool:
    return b"insert" in text[:MAX_QUERY_BYTES].lower()


def _insert_from_url(
    statement: Statement, inline: bytes, request: QueryRequest, body: Spool, new_spool: Callable[[], Spool]
) -> Loaded:
    if not inline.strip():
        method = ENGINE_METHODS.get(request.content_encoding)
        if not request.content_encoding or method is not None:
            return Loaded(statement=statement, data=body, engine_compression=method if body.size else None)
    plain = _decoded(body, request.content_encoding, new_spool)
    data = new_spool()
    data.write(inline)
    data.copy_from(plain, 0)
    if plain is not body:
        plain.close()
    return Loaded(statement=statement, data=data)


def _decoded(body: Spool, encoding: str, new_spool: Callable[[], Spool]) -> Spool:
    if not encoding or encoding == "identity" or not body.size:
        return body
    plain = new_spool()
    with body.map() as content:
        for piece in decode(content, encoding):
            plain.write(piece)
    return plain
