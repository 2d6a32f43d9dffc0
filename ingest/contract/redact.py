"""Take secrets out of events, payloads and texts, before anything leaves the process and before anything is stored. Pure.

The client, ingest and the worker each do it, by the same rules; to redact twice is to redact once. What holds no secret stays
byte for byte, JSON stays JSON, and a string's text is never taken for a member of what it stands in: strings are told apart
from left to right, and what is in one is looked at by itself, as JSON where it is JSON.
"""

import json
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import msgspec

from ingest.contract.secret_names import (
    AMBIGUOUS_CHARS_MIN,
    AMBIGUOUS_NAMES,
    HEADER_NAMES,
    OTHER_HEADERS,
    is_secret,
    plain,
)
from ingest.contract.secret_signs import may_hold
from ingest.contract.secret_texts import REPLACEMENT, clean

# JSON in JSON in JSON: what is written deeper than that is a text.
_DEPTH_MAX: Final = 8
# What asking costs beside looking is paid once for so many; one that may hold a secret has them looked at one by one.
_LOOKED_AT_ONCE: Final = 8
# Shorter strings hold no token; `password=x` in a text of its own is longer, too.
_CHARS_MIN: Final = 8
# No key that shows by its shape is shorter; all else that is a secret is told by one of these.
_KEY_CHARS_MIN: Final = 15
_TELLING: Final = re.compile(r"[=: \\]")
# What is made of a text may show what was hidden by what went; each time it has fewer characters that could go.
_PASSES_MAX: Final = 4

# A string that does not end takes the rest, so that no quote within it is looked at again.
_TOKEN: Final = re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)(?:"|\Z)(\s*+:)?+|[{}\[\]]', re.DOTALL)
_SPACE: Final = re.compile(r"[ \t\r\n]*+")
_NUMBER: Final = re.compile(r"-?[0-9][0-9.eE+-]*+")
_MEMBERS_OF_PAIRS: Final = frozenset({"name", "key", "header", "headername", "field"})
_SCHEMA_TYPES: Final = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})
# Of a schema (`"password":{"type":"string"}`), where a secret could stand after all.
_SCHEMA_VALUES: Final = frozenset({"const", "default", "enum", "example", "examples", "value"})
_STRING: Final = r'"(?:[^"\\]|\\.){0,2000}"'
_SCHEMA: Final = re.compile(rf'\{{\s*+(?:{_STRING}\s*+:\s*+{_STRING}\s*+,\s*+){{0,8}}"type"\s*+:\s*+"(\w{{1,16}})"')

# Of an event's own members: what names and places it, which must not change on its way. Its messages and payloads may.
KEPT_MEMBERS: Final = frozenset(
    {
        "id", "project_id", "tool_slug", "toolkit_slug", "status", "duration_ms", "timestamp", "user_id", "session_id",
        "context", "source", "connected_account_id", "auth_config_id", "sandbox_id", "parent",
    }
)  # fmt: skip

Span = tuple[int, int]


class OwnRules(Protocol):
    """An operator's own rules (`redact_patterns`)."""

    @property
    def names(self) -> Set[str]:
        """Names of secrets, as `plain` gives them."""

    def may_match(self, raw: bytes) -> bool:
        """Tell whether a JSON text or a plain one could hold what they redact; never False where it does."""

    def clean(self, text: str) -> str:
        """Replace what the patterns match."""


@dataclass(frozen=True, slots=True)
class Redactor:
    """The rules, with those of an operator's own where there are any."""

    own: OwnRules | None = None

    @property
    def names(self) -> Set[str]:
        """An operator's own names of secrets."""
        return frozenset() if self.own is None else self.own.names

    def may_hold(self, raw: bytes | memoryview | msgspec.Raw) -> bool:
        """Tell quickly whether a text or a JSON text could hold a secret; never False where redacting would change it."""
        seen = bytes(raw)
        return may_hold(seen) or (self.own is not None and self.own.may_match(seen))

    def is_worth_a_look(self, inner: str) -> bool:
        """Tell whether a string of JSON, as it is written there, could hold a secret."""
        # What an operator looks for may be of any length.
        if self.own is None and (len(inner) < _CHARS_MIN or (len(inner) < _KEY_CHARS_MIN and not _TELLING.search(inner))):
            return False
        return self.may_hold(inner.encode(errors="surrogatepass"))

    def suspects(self, raws: Sequence[bytes | msgspec.Raw]) -> list[int]:
        """Return the places of those that may hold a secret; most do not, so they are looked at many at a time."""
        found: list[int] = []
        for start in range(0, len(raws), _LOOKED_AT_ONCE):
            some = raws[start : start + _LOOKED_AT_ONCE]
            if self.may_hold(b"\n".join(some)):
                found += [start + place for place, raw in enumerate(some) if self.may_hold(raw)]
        return found

    def json(self, raw: bytes) -> bytes:
        """Return a JSON text without secrets."""
        return self._bytes(raw, frozenset(), drop=frozenset()) if self.may_hold(raw) else raw

    def event(self, raw: bytes, *, keeps_payload: bool = True) -> bytes:
        """Return an event's JSON without secrets; what it is called and where it belongs stays as it is.

        Args:
            keeps_payload: False puts null in the place of `data`.
        """
        if keeps_payload and not self.may_hold(raw):
            return raw
        return self._bytes(raw, KEPT_MEMBERS, drop=frozenset() if keeps_payload else frozenset({"data"}))

    def text(self, text: str) -> str:
        """Return a message without secrets."""
        return self._text(text, 0) if self.may_hold(text.encode(errors="surrogatepass")) else text

    def _bytes(self, raw: bytes, kept: frozenset[str], *, drop: frozenset[str]) -> bytes:
        text = raw.decode(errors="surrogateescape")
        scan = _Scan(text, self, 0, kept, drop)
        return scan.result().encode(errors="surrogateescape") if scan.edits else raw

    def _text(self, text: str, depth: int) -> str:
        """Redact what a string says: JSON as JSON, anything else as a text."""
        if depth < _DEPTH_MAX and _is_json(text):
            return _Scan(text, self, depth + 1, frozenset(), frozenset()).result()
        for _ in range(_PASSES_MAX):
            before = text
            text = clean(text, self.names)
            if self.own is not None:
                text = self.own.clean(text)
            if text == before:
                break
        return text


def redact_json(raw: bytes) -> bytes:
    """Return a JSON text without secrets; the very same bytes where it holds none."""
    return COMMON.json(raw)


def redact_text(text: str) -> str:
    """Return a message without secrets; the very same text where it holds none."""
    return COMMON.text(text)


@dataclass(slots=True)
class _Frame:
    """An object or array that is open."""

    kind: Literal["{", "["]
    start: int
    # The name of the member whose value comes next.
    name: str = ""
    # Of `{"name":"Authorization","value":".."}`: whether the name is a secret's, and where the value is.
    names_secret: bool = False
    value: Span | None = None
    # Of `["Authorization",".."]`: the next item is a secret.
    after_header: bool = False
    # The schema of a member with a secret name.
    of_secret: bool = False


@dataclass(slots=True)
class _Scan:
    """One way through a JSON text, from token to token, collecting what is replaced."""

    text: str
    redactor: Redactor
    depth: int
    kept: frozenset[str]
    drop: frozenset[str]
    edits: list[tuple[int, int, str]] = field(default_factory=list)
    _open: list[_Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        done = 0
        for found in _TOKEN.finditer(self.text):
            if found.start() < done:
                continue
            head = self.text[found.start()]
            if head == '"':
                done = self._member(found) if found[2] and self._in_object() else self._string(found)
            elif head in "{[":
                self._opens(found.start(), "{" if head == "{" else "[")
            elif self._open:
                self._close(found.end())

    def result(self) -> str:
        parts: list[str] = []
        done = 0
        # A value of a pair may stand before its name.
        for start, end, new in sorted(self.edits):
            if start >= done:
                parts += (self.text[done:start], new)
                done = end
        return "".join((*parts, self.text[done:])) if parts else self.text

    def _in_object(self) -> bool:
        return bool(self._open) and self._open[-1].kind == "{"

    def _member(self, found: re.Match[str]) -> int:
        """Take in a member's name, and its value too where it goes or stays as a whole. Return where to read on."""
        frame = self._open[-1]
        said = _decoded(found[1])
        start = self._after_space(found.end())
        if len(self._open) == 1 and self.depth == 0 and (said in self.kept or said in self.drop):
            span = self._value(start)
            if said in self.drop and self.text[slice(*span)] != "null":
                self.edits.append((*span, "null"))
            return span[1]
        name = frame.name = plain(said)
        if name == "value" and (number := _NUMBER.match(self.text, start)):
            frame.value = number.span()
        if not (is_secret(name, self.redactor.names) or (frame.of_secret and name in _SCHEMA_VALUES)) or self._is_schema(start):
            return found.end()
        secret = self._secret(start, name)
        if secret is None:
            return found.end()
        self._replace(secret)
        return secret[1]

    def _string(self, found: re.Match[str]) -> int:
        """Take in a string that is a value: text to be redacted, and perhaps the name of a pair."""
        start, end = found.span()
        if found[2]:
            end = found.end(1) + 1
        frame = self._open[-1] if self._open else None
        if frame is not None and frame.kind == "[":
            name = plain(found[1])
            if frame.after_header and name not in OTHER_HEADERS and name not in HEADER_NAMES:
                frame.after_header = False
                if found[1]:
                    self._replace((start, end))
                return end
            frame.after_header = name in HEADER_NAMES
        elif frame is not None and frame.name == "value":
            frame.value = (start, end)
        elif frame is not None and frame.name in _MEMBERS_OF_PAIRS:
            frame.names_secret = frame.names_secret or is_secret(plain(_decoded(found[1])), self.redactor.names)
        self._clean(found)
        return end

    def _clean(self, found: re.Match[str]) -> None:
        inner = found[1]
        if not self.redactor.is_worth_a_look(inner):
            return
        said = _decoded(inner)
        cleaned = self.redactor._text(said, self.depth)
        if cleaned != said:
            self.edits.append((*found.span(1), _encoded(cleaned)))

    def _opens(self, start: int, kind: Literal["{", "["]) -> None:
        around = self._open[-1] if self._in_object() else None
        of_secret = around is not None and is_secret(around.name, self.redactor.names) and self._is_schema(start)
        self._open.append(_Frame(kind, start, of_secret=of_secret))

    def _close(self, end: int) -> None:
        frame = self._open.pop()
        if frame.names_secret and frame.value is not None and self._says_something(frame.value):
            self._replace(frame.value)
        if self._in_object() and self._open[-1].name == "value":
            self._open[-1].value = (frame.start, end)

    def _replace(self, span: Span) -> None:
        if self.text[span[0] + 1 : span[1] - 1] != REPLACEMENT:
            self.edits.append((*span, f'"{REPLACEMENT}"'))

    def _secret(self, start: int, name: str) -> Span | None:
        """Return where a secret's value stands; None where it is nothing: null, true, false, or empty."""
        span = self._value(start)
        quotes = 2 if self.text[start : start + 1] == '"' else 0
        if name in AMBIGUOUS_NAMES and self.text[start : start + 1] not in ("{", "["):
            return span if span[1] - span[0] - quotes >= AMBIGUOUS_CHARS_MIN and self._says_something(span) else None
        return span if self._says_something(span) else None

    def _says_something(self, span: Span) -> bool:
        head = self.text[span[0] : span[0] + 1]
        if head in ('"', "{", "["):
            return bool(self.text[span[0] + 1 : span[1] - 1].strip())
        return _NUMBER.match(self.text, span[0]) is not None

    def _value(self, start: int) -> Span:
        """Return where the value that begins at a place stands."""
        head = self.text[start : start + 1]
        if head == '"':
            found = _TOKEN.match(self.text, start)
            assert found is not None, "a quote always begins a token"
            return start, min(found.end(1) + 1, len(self.text))
        if head in ("{", "["):
            deep = 0
            for found in _TOKEN.finditer(self.text, start):
                head = self.text[found.start()]
                deep += 1 if head in "{[" else -1 if head in "}]" else 0
                if not deep:
                    return start, found.end()
            return start, len(self.text)
        found = _NUMBER.match(self.text, start)
        if found is not None:
            return found.span()
        literal = next((word for word in ("null", "true", "false") if self.text.startswith(word, start)), "")
        return start, start + len(literal)

    def _after_space(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return at if found is None else found.end()

    def _is_schema(self, start: int) -> bool:
        """Tell whether a value is no secret but the description of one, as tools describe their parameters."""
        found = _SCHEMA.match(self.text, start)
        return found is not None and found[1] in _SCHEMA_TYPES


def _is_json(text: str) -> bool:
    """Tell whether a text is JSON that could hold members: an object, an array, or a string in which one is written."""
    if text.lstrip(" \t\r\n")[:1] not in ("{", "[", '"'):
        return False
    try:
        _any(text)
    except (ValueError, RecursionError):
        return False
    return True


def _decoded(inner: str) -> str:
    """Return what a JSON string says; its own text where it says nothing readable."""
    if "\\" not in inner:
        return inner
    try:
        said = _decode_string(f'"{inner}"')
    except ValueError:
        return inner
    return str(said)


def _encoded(said: str) -> str:
    """Return the inside of the JSON string that says this."""
    # Halves of surrogate pairs were escapes, and have to be again.
    readable = not _SURROGATES.search(said)
    return json.dumps(said, ensure_ascii=not readable)[1:-1]


_any: Final = msgspec.json.Decoder(msgspec.Raw).decode
_decode_string: Final = json.JSONDecoder(strict=False).decode
_SURROGATES: Final = re.compile("[\ud800-\udfff]")
# The rules that are always in force.
COMMON: Final = Redactor()
