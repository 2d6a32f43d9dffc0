"""How deep JSON may be nested: readers give up at about 1000 levels, and not all at the same one. Pure.

What is taken must be readable for whoever asks for it later, within an answer that adds some levels of its own: half of that
is far beyond what any tool returns, and safe everywhere.
"""

import re
from itertools import accumulate
from typing import Final

LEVELS_MAX: Final = 512

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEP: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
# Almost everything is done after so many.
_PASSES: Final = 12


def too_deep(raw: bytes) -> bool:
    """Tell whether JSON is nested deeper than `LEVELS_MAX`; brackets within its texts may hide some levels, never add any.

    Costs nothing where it is short or has few brackets.
    """
    if len(raw) <= 2 * LEVELS_MAX or raw.count(b"{") + raw.count(b"[") <= LEVELS_MAX:
        return False
    brackets = raw.translate(None, _NO_BRACKETS)
    for _ in range(_PASSES):
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if len(brackets) <= LEVELS_MAX:
            return False
    # Deep, or with brackets in its texts.
    brackets = _STRING.sub(b"", raw).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > LEVELS_MAX
