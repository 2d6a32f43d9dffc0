"""Take secrets out of plain text: messages, and the strings of payloads. Pure, and linear in the text's length.

What it knows: assignments and members with secret names (`password=..`, `"api_key": ".."`, `?token=..`), header lines,
`Bearer ..` and `Basic ..`, `user:password@host`, private key blocks, and keys that show by their shape whose they are.
Prose about secrets (`invalid password: at least 8 characters`), names in code and placeholders stay.
"""

import re
from collections.abc import Set
from typing import Final

from ingest.contract.secret_names import AMBIGUOUS_CHARS_MIN, AMBIGUOUS_NAMES, HEADER_NAMES, PARAMETER_NAMES, is_secret, plain

REPLACEMENT: Final = "[redacted]"
# Longer than any word of a language that is written in letters alone.
_WORD_CHARS_MAX: Final = 20

_BLOCK: Final = re.compile(r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)", re.DOTALL)
_USER: Final = re.compile(r"(://[^\s/?#@:\"'<>\\]{0,256}+:)([^\s/?#@\"'<>\\]{1,512}+)(?=@)")
_SCHEME: Final = re.compile(
    r"(?<![A-Za-z0-9])((?:bearer|basic)[ \t\r\n]{1,8})([A-Za-z0-9._~+/-]{8,}+=*)", re.IGNORECASE | re.ASCII
)
_ASSIGNED: Final = re.compile(
    r"(?<![A-Za-z0-9_])([A-Za-z_][A-Za-z0-9_-]{1,39}+)(\\{0,8}[\"'])?[ \t\r\n]{0,4}([=:])(?![=:])[ \t]{0,4}(\\{0,8}[\"'])?"
)
_QUOTED: Final = {'"': re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL), "'": re.compile(r"(?:[^'\\]++|\\.)*+", re.DOTALL)}
# No header that is sent is longer; a line without end must not make a search without end.
_BARE: Final = re.compile(r"[^\s&;,\"'<>)\]}|\\]{1,8192}+")
_LINE_BEGUN: Final = re.compile(r"[^\r\n\"'\\]{1,80}+")
_LINE: Final = re.compile(r"[^\r\n\"'\\]{1,8192}+")
_LITERAL: Final = frozenset({"true", "false", "null", "none", "nil", "undefined", "nan", "yes", "no"})
_WORDS: Final = re.compile(r"(?:[A-Z]?[a-z]+|[A-Z]+)(?:[-/.,_:][A-Za-z]+)*[.,;:!?]?")
_PARTS: Final = re.compile(r"[A-Za-z]+")
_CODE: Final = re.compile(r"[$<{%(\[]|[^(\[]*[(\[]|[A-Za-z_]+(?:\.[A-Za-z_]+)+\Z")
_SCHEMES: Final = re.compile(r"(?:bearer|basic|digest|negotiate|token|apikey|aws4-hmac-sha256)\s+\S+\s*\Z", re.IGNORECASE)

# What the makers of these keys say of their shape. Each begins at no letter or digit, so that no blob holds one by chance.
_SHAPES: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?P<loose>sk-[A-Za-z0-9_-]{20,}+|o?ak_[A-Za-z0-9_-]{32}(?![A-Za-z0-9_-]))"
    r"|(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}+"
    r"|gh[pousr]_[A-Za-z0-9]{20,}+|github_pat_[A-Za-z0-9_]{20,}+|glpat-[A-Za-z0-9_-]{20,}+"
    r"|xox[a-z]-[A-Za-z0-9-]{10,}+|xapp-[A-Za-z0-9-]{10,}+"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}+"
    r"|hf_[A-Za-z0-9]{30,}+|npm_[A-Za-z0-9]{36}|SG\.[A-Za-z0-9_-]{16,}+\.[A-Za-z0-9_-]{16,}+"
    # Its parts may be long, so that it must not be looked for within them.
    r"|(?<![_-])eyJ[A-Za-z0-9_-]{5,}+\.[A-Za-z0-9_-]{5,}+\.[A-Za-z0-9_-]*+"
    r")"
)


def clean(text: str, own: Set[str] = frozenset()) -> str:
    """Return a text without secrets; the very same text where it shows none.

    Args:
        own: an operator's own names of secrets, as `plain` gives them.
    """
    if "PRIVATE KEY" in text:
        text = _BLOCK.sub(REPLACEMENT, text)
    if "=" in text or ":" in text:
        text = _assignments(text, own)
        if "://" in text and "@" in text:
            text = _USER.sub(r"\1" + REPLACEMENT, text)
    return _SHAPES.sub(_shape, _SCHEME.sub(_scheme, text))


def _assignments(text: str, own: Set[str]) -> str:
    parts: list[str] = []
    done = 0
    for found in _ASSIGNED.finditer(text):
        if found.start() < done or (span := _value(text, found, own)) is None:
            continue
        start, end = span
        parts += (text[done:start], REPLACEMENT)
        done = end
    return "".join((*parts, text[done:])) if parts else text


def _value(text: str, found: re.Match[str], own: Set[str]) -> tuple[int, int] | None:
    """Return where the secret stands that a name is given; None where it is given none."""
    name, closing, sign, opening = found.groups()
    name = plain(name)
    if not is_secret(name, own) and not (sign == "=" and name in PARAMETER_NAMES):
        return None
    start = found.end()
    if text.startswith(REPLACEMENT, start):
        return None
    if opening is not None:
        end = _closed(text, start, opening)
        return (start, end) if end - start >= (AMBIGUOUS_CHARS_MIN if name in AMBIGUOUS_NAMES else 1) else None
    if name in HEADER_NAMES:
        return _header_value(text, start, of_line=sign == ":")
    bare = _BARE.match(text, start)
    if bare is None or bare[0].lower() in _LITERAL:
        return None
    value = bare[0]
    if closing is not None:
        # `"token": 12`: of a member that could not be read as JSON.
        secret = len(value) >= AMBIGUOUS_CHARS_MIN or name not in AMBIGUOUS_NAMES
    elif sign == ":":
        # Of a configuration; prose has words there.
        secret = any(map(str.isdigit, value)) and _rest_is_empty(text, bare.end()) and not _CODE.match(value)
    elif found.start() and text[found.start() - 1] in "?&":
        secret = True
    else:
        secret = not _CODE.match(value) and (not _is_prose(value) or ("passw" in name or "secret" in name))
    return bare.span() if secret else None


def _closed(text: str, start: int, quote: str) -> int:
    """Return where a quoted value ends: before the same quote, or with a text that was cut."""
    if quote in _QUOTED:
        inside = _QUOTED[quote].match(text, start)
        assert inside is not None, "it matches nothing, too"
        return inside.end()
    # A quote that is escaped itself, as in JSON within a text: those of the value are escaped once more.
    at = text.find(quote, start)
    while at > start and text[at - 1] == "\\":
        at = text.find(quote, at + 1)
    return len(text) if at < 0 else at


def _header_value(text: str, start: int, *, of_line: bool) -> tuple[int, int] | None:
    # Whether it is prose shows at its beginning; a long line that names many headers must not be read once for each.
    begun = (_LINE_BEGUN if of_line else _BARE).match(text, start)
    if begun is None:
        return None
    value = begun[0].rstrip()
    if not value or value.lower() in _LITERAL:
        return None
    if not _SCHEMES.match(value) and all(_is_prose(word) for word in value.split()):
        return None
    line = (_LINE if of_line else _BARE).match(text, start)
    assert line is not None, "its beginning was found"
    return start, start + len(line[0].rstrip())


def _rest_is_empty(text: str, at: int) -> bool:
    return at == len(text) or text[at] in "\r\n,;"


def _is_prose(value: str) -> bool:
    """Tell words from tokens: letters as a language writes them, and none longer than its words are."""
    return _WORDS.fullmatch(value) is not None and all(len(part) <= _WORD_CHARS_MAX for part in _PARTS.findall(value))


def _scheme(found: re.Match[str]) -> str:
    return found[0] if _is_prose(found[2]) else found[1] + REPLACEMENT


def _shape(found: re.Match[str]) -> str:
    loose = found["loose"]
    if loose is None or _is_random(loose):
        return REPLACEMENT
    return found[0]


def _is_random(key: str) -> bool:
    """Tell a key from a name of many words (`sk-toggleable__label-arrow`)."""
    if key.startswith("sk-"):
        return any(len(part) >= 12 and any(map(str.isdigit, part)) for part in re.split("[-_]", key))
    body = key.partition("_")[2]
    return any(map(str.isdigit, body)) or (body.lower() != body and body.upper() != body)
