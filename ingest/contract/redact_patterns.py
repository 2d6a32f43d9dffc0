"""An operator's own rules of redaction: patterns and names, from settings. Pure.

Patterns are RE2's: its time is linear in the text whatever the pattern, so that none can stall ingest. What Python's own `re`
could do beyond it (look-around, back-references) is refused at the start.
"""

import importlib
import re
from collections.abc import Sequence
from typing import Any, Final

from ingest.contract.redact import Redactor
from ingest.contract.secret_names import plain
from ingest.contract.secret_signs import by_automaton, name_sign
from ingest.contract.secret_texts import REPLACEMENT

# Each is one more pass over every string.
PATTERNS_MAX: Final = 50
PATTERN_CHARS_MAX: Final = 1_000
NAMES_MAX: Final = 200
NAME_CHARS_MAX: Final = 64
# An expression that unfolds to more (`(\w{1000}){1000}`) is refused.
_PATTERN_BYTES_MAX: Final = 8 * 1024 * 1024
# These look at where a string begins or ends, which the quick look at a whole JSON text cannot.
_ANCHORS: Final = re.compile(r"[$^]|\\[AzbBQ]")
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


class OwnPatterns:
    """Patterns and names, compiled once.

    Args:
        patterns: RE2 expressions; what one matches is replaced, or, where it has a group, what its first group matched.
        names: of members whose values are replaced, in any spelling of case, `-` and `_`.

    Raises:
        ValueError: one line that says which one cannot be used and why.
    """

    def __init__(self, patterns: Sequence[str], names: Sequence[str] = ()) -> None:
        if len(patterns) > PATTERNS_MAX or len(names) > NAMES_MAX:
            raise ValueError(f"at most {PATTERNS_MAX} patterns and {NAMES_MAX} names are taken")
        self.names = frozenset(_name(name) for name in names)
        self._patterns = [_pattern(number, text) for number, text in enumerate(patterns, 1)]
        self._always = any(_ANCHORS.search(text) for text in patterns)
        self._found = None
        if patterns and not self._always:
            self._found = by_automaton("|".join(f"(?:{text})" for text in patterns), utf8=True)
        # A name of few letters is found in longer ones too, which costs a closer look and no more.
        self._named = by_automaton(name_sign(self.names, whole=True)) if self.names else None

    def may_match(self, raw: bytes) -> bool:
        """Tell whether something in a text could match; what is written with escapes is always looked at."""
        if self._named is not None and self._named(raw):
            return True
        return bool(self._patterns) and (self._always or self._found is None or b"\\" in raw or self._found(raw))

    def clean(self, text: str) -> str:
        """Replace what the patterns match; what is redacted already stays one whole."""
        for pattern in self._patterns:
            text = _replaced(pattern, text)
        return text


def redactor(patterns: str, names: str = "") -> Redactor:
    """Return the rules as settings give them.

    Args:
        patterns: one a line.
        names: with commas between.

    Raises:
        ValueError: as `OwnPatterns`.
    """
    lines = [line.strip() for line in patterns.splitlines() if line.strip()]
    named = [name.strip() for name in names.split(",") if name.strip()]
    return Redactor(own=OwnPatterns(lines, named)) if lines or named else Redactor()


def _pattern(number: int, text: str) -> Any:
    where = f"pattern {number}"
    if len(text) > PATTERN_CHARS_MAX:
        raise ValueError(f"{where} is longer than {PATTERN_CHARS_MAX} characters")
    try:
        re2 = importlib.import_module("re2")
    except ImportError:
        raise ValueError("own patterns need the package google-re2; install it") from None
    options = re2.Options()
    options.max_mem = _PATTERN_BYTES_MAX
    options.log_errors = False
    try:
        compiled = re2.compile(text, options)
    except re2.error as error:
        said = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"{where} is no RE2 expression: {said}") from None
    if compiled.search("") is not None:
        raise ValueError(f"{where} matches nothing at all (the empty text); it would be found everywhere")
    return compiled


def _name(name: str) -> str:
    compared = plain(name)
    if not compared.isalnum() or not compared.isascii() or len(compared) > NAME_CHARS_MAX:
        raise ValueError(f"a name is letters, digits, `-` and `_`, at most {NAME_CHARS_MAX} of them, not {name[:80]!r}")
    return compared


def _replaced(pattern: Any, text: str) -> str:
    # RE2 reads UTF-8, in which halves of surrogate pairs cannot stand; one character for one keeps the places.
    searched = _SURROGATES.sub("\ufffd", text)
    done = 0
    parts: list[str] = []
    for found in pattern.finditer(searched):
        start, end = found.span(1 if pattern.groups else 0)
        if start < done or end <= start or _is_within_replacement(searched, start, end):
            continue
        parts += (text[done:start], REPLACEMENT)
        done = end
    return "".join((*parts, text[done:])) if parts else text


def _is_within_replacement(text: str, start: int, end: int) -> bool:
    """Tell whether a match lies within a `[redacted]`, or cuts into one."""
    size = len(REPLACEMENT)
    at = text.find(REPLACEMENT, max(0, start - size + 1), end + size - 1)
    while at >= 0:
        if at < end and start < at + size and not (start <= at and at + size <= end and end - start > size):
            return True
        at = text.find(REPLACEMENT, at + 1, end + size - 1)
    return False
