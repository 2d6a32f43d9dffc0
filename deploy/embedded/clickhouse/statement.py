"""What a request asks for: the kind of statement, where its inline data begins, where clauses of ours go.

ClickHouse over HTTP takes one statement, with the data of an INSERT straight behind it. The engine in chDB has the
grammar of the command line client, which also takes several statements and writes files; what a server refuses of that
is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from deploy.embedded.clickhouse.errors import (
    INTO_OUTFILE_NOT_ALLOWED,
    NOT_IMPLEMENTED,
    SYNTAX_ERROR,
    ClickHouseError,
)
from deploy.embedded.clickhouse.sql_tokens import Token, tokens

# ClickHouse looks for a statement in this much text at most (`max_query_size`); only INSERT data may reach further.
MAX_QUERY_BYTES: Final = 262_144

DEFAULT_FORMAT: Final = "TabSeparated"


class Kind(Enum):
    """What running a statement means for the server."""

    SELECT = auto()
    """Rows of any number, streamed."""
    INSERT_DATA = auto()
    """Rows that the request carries."""
    KILL = auto()
    """KILL QUERY: ids are the server's own."""
    SMALL_RESULT = auto()
    """A bounded result: SHOW, DESCRIBE, EXPLAIN, ..."""
    NO_RESULT = auto()
    """DDL, SET, INSERT .. SELECT, ..."""


_SMALL_RESULT_WORDS: Final = frozenset(
    {b"SHOW", b"DESC", b"DESCRIBE", b"EXPLAIN", b"EXISTS", b"CHECK", b"KILL", b"BACKUP", b"RESTORE", b"VALUES"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement, taken apart as far as the server needs.

    Args:
        kind: what running it means.
        text: the statement without a closing semicolon and without inline data.
        output_format: the format its FORMAT clause names, or None.
        clause_at: offset in `text` where an INTO OUTFILE (SELECT) or FROM INFILE (INSERT) clause belongs.
        data_at: INSERT_DATA only: offset in the whole request text where the data begins.
        input_format: INSERT_DATA only: format of the data.
        has_settings: whether the statement has a SETTINGS clause of its own at its outermost level.
        words: the tokens, for who needs a closer look.
    """

    kind: Kind
    text: bytes
    output_format: str | None = None
    clause_at: int = 0
    data_at: int = 0
    input_format: str = ""
    has_settings: bool = False
    words: Sequence[Token] = ()


def parse_statement(head: bytes, *, complete: bool) -> Statement:
    """Take a request's text apart.

    Args:
        head: the text from its start; all of it, or the first `MAX_QUERY_BYTES` and more.
        complete: whether `head` is the whole text. Only an INSERT with data may be longer.

    Raises:
        ClickHouseError: no statement, several statements, a file clause, or a statement longer than ClickHouse reads.
    """
    insert = _parse_insert(head)
    if insert is not None:
        return insert
    if not complete and len(head) >= MAX_QUERY_BYTES:
        raise ClickHouseError(
            SYNTAX_ERROR, "SYNTAX_ERROR", f"Max query size exceeded: the statement is longer than {MAX_QUERY_BYTES} bytes"
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
        return Kind.NO_RESULT if any(word.is_word(b"INSERT") and word.depth == 0 for word in words) else Kind.SELECT
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
    for word, following in zip(words, words[1:], strict=False):
        if word.is_word(b"INTO") and following.is_word(b"OUTFILE"):
            raise ClickHouseError(INTO_OUTFILE_NOT_ALLOWED, "INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")
        if word.is_word(b"FROM") and following.is_word(b"INFILE"):
            raise ClickHouseError(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", "FROM INFILE is for the command line client")


def _parse_insert(head: bytes) -> Statement | None:
    """Take apart an INSERT that carries data; None for every other statement, INSERT .. SELECT among them.

    Its clauses: INSERT INTO [TABLE] [FUNCTION] name [(columns)] [PARTITION BY ..] [SETTINGS ..] FORMAT name | VALUES
    """
    words: list[Token] = []
    settings_at: int | None = None
    # Lexed word by word, never further than the statement itself: behind it may lie megabytes of anything.
    for word in tokens(head[:MAX_QUERY_BYTES]):
        if not words and not word.is_word(b"INSERT"):
            return None
        if word.depth == 1 and word.is_word(b"SELECT", b"WITH") and words[-1].text == b"(" and words[-1].depth == 0:
            return None
        if word.depth == 0 and len(words) > 1:
            if word.is_word(b"SELECT", b"WITH", b"WATCH"):
                return None
            if word.is_word(b"FROM"):
                _refuse_files([word, *tokens(head[word.end : word.end + 64])])
                return None
            if word.is_word(b"SETTINGS") and settings_at is None:
                settings_at = word.start
            if word.is_word(b"VALUES") and not words[-1].is_word(b"INTO", b"TABLE", b"FORMAT") and words[-1].text != b".":
                return _insert(head, words, word.start, word.end, "Values", settings_at)
            if words[-1].is_word(b"FORMAT") and words[-1].depth == 0 and word.kind == "word" and len(words) > 2:
                data_at = _data_start(head, word.end)
                return _insert(head, words, words[-1].start, data_at, word.text.decode(errors="replace"), settings_at)
        words.append(word)
    return _insert_without_format(head, words, settings_at)


def _insert(
    head: bytes, words: Sequence[Token], tail_at: int, data_at: int, input_format: str, settings_at: int | None
) -> Statement:
    return Statement(
        kind=Kind.INSERT_DATA,
        text=head[:tail_at],
        clause_at=tail_at if settings_at is None else settings_at,
        data_at=data_at,
        input_format=input_format,
        has_settings=settings_at is not None,
        words=words,
    )


def _insert_without_format(head: bytes, words: Sequence[Token], settings_at: int | None) -> Statement | None:
    """`INSERT INTO t` alone: ClickHouse takes the data as Values."""
    if len(words) < 3 or any(word.kind == "semicolon" for word in words) or not words[1].is_word(b"INTO"):
        return None
    return _insert(head, words, len(head), len(head), "Values", settings_at)


def _data_start(head: bytes, name_end: int) -> int:
    """Where data begins behind `FORMAT name`: past blanks and one line break, as in ClickHouse; a `;` may end the head."""
    position = name_end
    while position < len(head) and head[position : position + 1] in (b" ", b"\t", b"\f", b"\v"):
        position += 1
    if head[position : position + 1] == b";":
        position += 1
    if head[position : position + 2] == b"\r\n":
        return position + 2
    if head[position : position + 1] == b"\n":
        return position + 1
    return position
