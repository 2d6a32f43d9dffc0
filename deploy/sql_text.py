"""Read SQL as text: split a file into statements and drop comments, minding quotes. Pure.

Source: ClickHouse's lexer. Strings in single quotes, names in double quotes or backticks, each with backslash escapes and
doubled quotes; heredocs `$tag$...$tag$`; comments `--`, `#!`, `# ` to the end of the line, and `/* */`.
"""

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""
    (?P<quoted> '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*` | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
  | (?P<comment> --[^\n]* | \#[!\ ][^\n]* | /\*.*?\*/ )
  | (?P<space> \s+ )
  | (?P<end> ; )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


def statements(text: str) -> list[str]:
    """Split a file into its statements, in order, without comments; empty ones are left out.

    Space outside quotes becomes one blank, so that a statement's text tells whether it was changed, not how it was laid out.
    """
    found: list[str] = []
    parts: list[str] = []
    for token in _TOKEN.finditer(text):
        if token.lastgroup == "end":
            found.append("".join(parts).strip())
            parts = []
        elif token.lastgroup in ("comment", "space"):
            # A comment parts words as a blank does: `a/**/b` is two words.
            if parts and parts[-1] != " ":
                parts.append(" ")
        else:
            parts.append(token.group())
    found.append("".join(parts).strip())
    return [statement for statement in found if statement]
