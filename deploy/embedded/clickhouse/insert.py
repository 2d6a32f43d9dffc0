"""Statements that carry rows: where their clauses stand and where the rows begin.

Also the words all statements share (`Kind`, `Statement`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal

from deploy.embedded.clickhouse.errors import NOT_IMPLEMENTED, ClickHouseError
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
        input_function: where `input('columns')` stands in `text`, if the rows go through it, and its argument.
        has_settings: whether the statement has a SETTINGS clause of its own at its outermost level.
        words: the tokens, for who needs a closer look.
    """

    kind: Kind
    text: bytes
    output_format: str | None = None
    clause_at: int = 0
    data_at: int = 0
    input_format: str = ""
    input_function: tuple[int, int, bytes] | None = None
    has_settings: bool = False
    words: Sequence[Token] = ()


Role = Literal["part", "query", "values", "format"]


def refuse_infile(word: Token, following: Token | None) -> None:
    """Refuse FROM INFILE, which belongs to the command line client: here it would read files of the server."""
    if word.is_word(b"FROM") and following is not None and following.is_word(b"INFILE"):
        raise ClickHouseError(NOT_IMPLEMENTED, "NOT_IMPLEMENTED", "FROM INFILE is for the command line client")


def parse_insert(head: bytes) -> Statement | None:
    """Take apart an INSERT that carries rows; None for every other statement, INSERT .. SELECT among them.

    Its form: [WITH ..] INSERT INTO [TABLE] [FUNCTION] name [(columns)] [PARTITION BY ..] [SETTINGS ..] FORMAT name | VALUES,
    or INSERT INTO .. SELECT .. FROM input('columns') .. FORMAT name.
    """
    words: list[Token] = []
    # Lexed word by word, never further than the statement itself: behind it may lie megabytes of anything.
    stream = _from_insert(head[:MAX_QUERY_BYTES])
    for word in stream:
        role = _role(words, word)
        if role == "query":
            return _insert_through_input(head, [*words, word], stream)
        if role == "values":
            return _insert(head, words, word.start, word.end, "Values")
        if role == "format":
            name = word.text.decode(errors="replace")
            return _insert(head, words[:-1], words[-1].start, _data_start(head, word.end), name)
        if words:
            refuse_infile(words[-1], word)
        words.append(word)
    if len(words) < 3 or any(word.kind == "semicolon" for word in words) or not words[1].is_word(b"INTO"):
        return None
    # `INSERT INTO t` alone: ClickHouse takes the rows as Values.
    return _insert(head, words, len(head), len(head), "Values")


def _from_insert(head: bytes) -> Iterator[Token]:
    """The tokens from INSERT on; none where the statement, past a WITH clause, does not begin with it."""
    stream = tokens(head)
    first = next(stream, None)
    if first is not None and first.is_word(b"INSERT"):
        yield first
        yield from stream
        return
    if first is None or not first.is_word(b"WITH"):
        return
    previous = first
    for word in stream:
        is_name = previous.is_word(b"AS", b"WITH") or previous.text == b","
        previous = word
        if word.depth > 0 or is_name:
            continue
        if word.kind == "semicolon" or word.is_word(b"SELECT"):
            return
        if word.is_word(b"INSERT"):
            yield word
            yield from stream
            return


def _role(words: Sequence[Token], word: Token) -> Role:
    """What `word` is to the INSERT whose words came before it."""
    if len(words) < 2:
        return "part"
    last = words[-1]
    starts_query = word.is_word(b"SELECT", b"WITH", b"WATCH", b"FROM")
    if word.depth == 1 and starts_query and last.text == b"(" and last.depth == 0:
        return "query"
    role: Role = "part"
    if word.depth > 0 or len(words) == 2:
        return role
    if starts_query and not word.is_word(b"FROM"):
        role = "query"
    elif word.is_word(b"VALUES") and not last.is_word(b"TABLE", b"FORMAT") and last.text != b".":
        role = "values"
    elif last.depth == 0 and last.is_word(b"FORMAT") and word.kind == "word" and len(words) > 3:
        role = "format"
    return role


def _insert(
    head: bytes,
    words: Sequence[Token],
    tail_at: int,
    data_at: int,
    input_format: str,
    input_function: tuple[int, int, bytes] | None = None,
) -> Statement:
    settings_at = next((word.start for word in words if word.depth == 0 and word.is_word(b"SETTINGS")), None)
    return Statement(
        kind=Kind.INSERT_DATA,
        text=head[:tail_at],
        clause_at=tail_at if settings_at is None else settings_at,
        data_at=data_at,
        input_format=input_format,
        input_function=input_function,
        has_settings=settings_at is not None,
        words=words,
    )


def _insert_through_input(head: bytes, words: list[Token], stream: Iterator[Token]) -> Statement | None:
    """An INSERT .. SELECT whose rows come with the request, through the table function `input`."""
    found: tuple[int, int, bytes] | None = None
    for word in stream:
        if found is None and word.text == b")" and len(words) > 2:
            name, bracket, columns = words[-3:]
            if name.is_word(b"INPUT") and bracket.text == b"(" and columns.kind == "string":
                found = (name.start, word.end, columns.text)
        if found and words[-1].is_word(b"FORMAT") and words[-1].depth == 0 and word.kind == "word":
            input_format = word.text.decode(errors="replace")
            return _insert(head, words[:-1], words[-1].start, _data_start(head, word.end), input_format, found)
        words.append(word)
    return None


def _data_start(head: bytes, name_end: int) -> int:
    """Where rows begin behind `FORMAT name`: past blanks and one line break, as in ClickHouse; a `;` may end the head."""
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
