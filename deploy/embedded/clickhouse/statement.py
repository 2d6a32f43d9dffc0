"""What a request asks for: the kind of statement, where its inline data begins, where clauses of ours go.

ClickHouse over HTTP takes one statement, with the data of an INSERT straight behind it. The engine in chDB has the
grammar of the command line client, which also takes several statements and writes files; what a server refuses of that
is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from deploy.embedded.clickhouse.errors import INTO_OUTFILE_NOT_ALLOWED, SYNTAX_ERROR, ClickHouseError
from deploy.embedded.clickhouse.insert import MAX_QUERY_BYTES, Kind, Statement, parse_insert, refuse_infile
from deploy.embedded.clickhouse.sql_tokens import Token, tokens

_SMALL_RESULT_WORDS: Final = frozenset(
    {b"SHOW", b"DESC", b"DESCRIBE", b"EXPLAIN", b"EXISTS", b"CHECK", b"KILL", b"BACKUP", b"RESTORE", b"VALUES"}
)


def parse_statement(head: bytes, *, complete: bool) -> Statement:
    """Take a request's text apart.

    Args:
        head: the text from its start; all of it, or the first `MAX_QUERY_BYTES` and more.
        complete: whether `head` is the whole text. Only an INSERT with data may be longer.

    Raises:
        ClickHouseError: no statement, several statements, a file clause, or a statement longer than ClickHouse reads.
    """
    insert = parse_insert(head)
    if insert is not None:
        return insert
    if not complete and len(head) >= MAX_QUERY_BYTES:
        raise ClickHouseError(
            SYNTAX_ERROR,
            "SYNTAX_ERROR",
            f"Max query size exceeded: the statement is longer than {MAX_QUERY_BYTES} bytes",
        )
    words = list(tokens(head))
    end = _single_statement_end(head, words)
    words = [word for word in words if word.start < end]
    if not words:
        raise ClickHouseError(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error: the request holds no statement")
    _refuse_files(words)
    format_at = _format_clause(words)
    output_format = None
    clause_at = end
    if format_at is not None:
        output_format = words[format_at + 1].text.decode(errors="replace")
        clause_at = words[format_at].start
    return Statement(
        kind=_kind(words),
        text=head[:end],
        output_format=output_format,
        clause_at=clause_at,
        has_settings=any(word.depth == 0 and word.is_word(b"SETTINGS") for word in words),
        words=words,
    )


def _kind(words: Sequence[Token]) -> Kind:
    first = words[0]
    if first.is_word(b"SELECT", b"FROM") or (first.kind == "open" and first.text == b"("):
        return Kind.SELECT
    if first.is_word(b"WITH"):
        inserts = any(
            word.depth == 0 and word.is_word(b"INSERT") and following.is_word(b"INTO") for word, following in pairwise(words)
        )
        return Kind.NO_RESULT if inserts else Kind.SELECT
    if first.is_word(b"KILL") and len(words) > 1 and words[1].is_word(b"QUERY"):
        return Kind.KILL
    if first.kind == "word" and first.text.upper() in _SMALL_RESULT_WORDS:
        return Kind.SMALL_RESULT
    return Kind.NO_RESULT


def _single_statement_end(sql: bytes, words: Sequence[Token]) -> int:
    """Where the one statement ends: at a semicolon with nothing but semicolons behind it, or at the end."""
    for place, word in enumerate(words):
        if word.kind == "semicolon" and word.depth == 0:
            rest = [later for later in words[place + 1 :] if later.kind != "semicolon"]
            if rest:
                raise ClickHouseError(
                    SYNTAX_ERROR,
                    "SYNTAX_ERROR",
                    f"Syntax error (Multi-statements are not allowed): failed at position {word.start + 1} "
                    "(end of query): send one statement a request",
                )
            return word.start
    return len(sql)


def _format_clause(words: Sequence[Token]) -> int | None:
    """Index of the FORMAT keyword of the statement's own FORMAT clause: the last one at depth 0 with a name behind it
    that is followed by the end or by SETTINGS."""
    for place in range(len(words) - 2, 0, -1):
        if words[place].depth == 0 and words[place].is_word(b"FORMAT") and words[place + 1].kind == "word":
            behind = words[place + 2] if place + 2 < len(words) else None
            if behind is None or behind.is_word(b"SETTINGS"):
                return place
    return None


def _refuse_files(words: Sequence[Token]) -> None:
    for word, following in pairwise(words):
        if word.is_word(b"INTO") and following.is_word(b"OUTFILE"):
            raise ClickHouseError(INTO_OUTFILE_NOT_ALLOWED, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
        refuse_infile(word, following)
