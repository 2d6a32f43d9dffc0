"""Halves of surrogate pairs in JSON, as programs write them that cut texts by UTF-16: escapes that are no characters. Pure.

Many readers take them, ours do not, and no event may hold one. So what comes from programs that cannot be told to send it again
is read without them.
"""

import re
from typing import Final

_ANY: Final = re.compile(rb"\\u[dD][89a-fA-F]")
# A backslash that is escaped begins no escape; of a pair both halves stay.
_PASSED: Final = rb"(?:\\\\)+|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HALF: Final = re.compile(_PASSED + rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})")
_REPLACEMENT: Final = rb"\ufffd"


def without_halves(raw: bytes) -> bytes:
    """Return JSON with U+FFFD in the place of each half; every other byte as it was."""
    if _ANY.search(raw) is None:
        return raw
    return _HALF.sub(lambda found: found[0] if found[1] is None else _REPLACEMENT, raw)
