"""A lexer for ClickHouse SQL: enough to find clauses without being fooled by strings, comments and brackets.

It works on bytes, because a query may carry binary data; positions are byte offsets into the text it was given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["word", "string", "quoted", "number", "semicolon", "open", "close", "other"]

_TOKEN: Final = re.compile(
    rb"""
      (?P<space>   [\s\x00\x0b]+ | --[^\n]* | \#[!\ ][^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<string>  '(?:[^'\\]|\\.|'')*(?:'|\Z) | (?P<tag>\$\w*\$).*?(?P=tag) )
    | (?P<quoted>  "(?:[^"\\]|\\.|"")*(?:"|\Z) | `(?:[^`\\]|\\.|``)*(?:`|\Z) )
    | (?P<number>  \d[\w.]* )
    | (?P<word>    [A-Za-z_$\x80-\xff][\w\x80-\xff$]* )
    | (?P<semicolon> ; )
    | (?P<open>    [(\[{] )
    | (?P<close>   [)\]}] )
    | (?P<other>   . )
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One piece of SQL: its kind, where it stands, and how deep inside brackets."""

    kind: Kind
    start: int
    end: int
    depth: int
    text: bytes

    def is_word(self, *words: bytes) -> bool:
        """Whether this is one of the keywords `words` (given in upper case)."""
        return self.kind == "word" and self.text.upper() in words


def tokens(sql: bytes) -> Iterator[Token]:
    """Yield the tokens of `sql` in order, without white space and comments.

    A bracket carries the depth outside of it. An unfinished string or comment reaches to the end of the text;
    `$tag$` opens a heredoc only where a second one closes it, and is a word otherwise, as in ClickHouse.
    """
    depth = 0
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup
        if kind == "space":
            continue
        if kind == "tag":  # a heredoc: the group inside it closed last
            kind = "string"
        if kind == "close":
            depth = max(0, depth - 1)
        yield Token(kind, match.start(), match.end(), depth, match.group())  # type: ignore[arg-type]
        if kind == "open":
            depth += 1


def string_value(literal: bytes) -> bytes:
    """The value of a quoted string or identifier token; backslash escapes other than quotes are kept as they stand."""
    quote = literal[:1]
    body = literal[1:-1]
    return body.replace(b"\\" + quote, quote).replace(quote + quote, quote)


def quote_string(value: str) -> str:
    """`value` as a ClickHouse string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_identifier(name: str) -> str:
    """`name` as a quoted ClickHouse identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
