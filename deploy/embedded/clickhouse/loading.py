"""From the bytes of a request to one statement and the data it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy.embedded.clickhouse.body import Spool
from deploy.embedded.clickhouse.compression import decode
from deploy.embedded.clickhouse.errors import ClickHouseError
from deploy.embedded.clickhouse.insert import MAX_QUERY_BYTES, Kind, Statement, parse_insert
from deploy.embedded.clickhouse.native_frames import read_frames
from deploy.embedded.clickhouse.request import QueryRequest
from deploy.embedded.clickhouse.statement import parse_statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A statement, and for INSERT_DATA its rows in the statement's input format."""

    statement: Statement
    data: Spool | None = None


def statement_bytes(beginning: bytes) -> int:
    """How many bytes of `beginning`, where a request's text begins, are the statement of an INSERT with rows behind it.

    0 where that is not certain from these bytes alone. It saves a copy of the rows: they can be stored without the statement.
    """
    try:
        statement = parse_insert(beginning)
    except ClickHouseError:
        return 0  # told when the request is whole
    return statement.data_at if statement is not None and statement.data_at < len(beginning) else 0


def load(request: QueryRequest, body: Spool, new_spool: Callable[[], Spool]) -> Loaded:
    """Find the statement in URL and body, and set its rows apart.

    The text is the URL's `query`, a line break, and the body, as in ClickHouse.

    Raises:
        ClickHouseError: no statement, or a body that cannot be decoded.
    """
    head = request.query
    plain = body
    if body.size and request.encoded:
        head, plain = _decoded(request, body, new_spool)
    if head and not head.endswith(b"\n"):
        head += b"\n"
    try:
        text = head + plain.head(2 * MAX_QUERY_BYTES)
        statement = parse_statement(text, complete=plain.size <= 2 * MAX_QUERY_BYTES)
        if statement.kind is not Kind.INSERT_DATA:
            return Loaded(statement=statement)
        inline, skipped = head[statement.data_at :], max(0, statement.data_at - len(head))
        if not inline and not skipped:
            data, plain = plain, body  # what came behind the head is the rows, as it stands
        else:
            data = new_spool()
            data.write(inline)
            data.copy_from(plain, skipped)
        return Loaded(statement=statement, data=data)
    finally:
        if plain is not body:
            plain.close()


def _decoded(request: QueryRequest, body: Spool, new_spool: Callable[[], Spool]) -> tuple[bytes, Spool]:
    """The head of the text, and the rest of the body in a new spool."""
    if request.native_input_compression:
        pieces = read_frames(body.read, body.size, verify=request.verify_checksums)
    else:
        pieces = decode(body.read, body.size, request.content_encoding)
    head = request.query
    plain = new_spool()
    try:
        for piece in pieces:
            if not head and not plain.size and (size := statement_bytes(piece)):
                head = piece[:size]
                plain.write(memoryview(piece)[size:])
            else:
                plain.write(piece)
    except BaseException:
        plain.close()
        raise
    return head, plain
