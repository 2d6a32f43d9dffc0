"""Tell in one pass whether a text could hold a secret, so that almost all are passed on unread. Pure.

With RE2 at hand (the services have it) it is one automaton over the bytes, 2 us for an event of 800 bytes; without it a search
for each sign, ten times as slow.
"""

import importlib
import os
from collections.abc import Callable, Iterable
from typing import Final

from ingest.contract.secret_names import PARAMETER_NAMES, SECRET_ENDINGS, SECRET_NAMES

# Of these one stands in every text that could hold a secret: names in lower case and without `-`, `_` and space, and others.
_NAME_SIGNS: Final = (
    b"auth", b"token", b"key", b"secret", b"passw", b"passphrase", b"pwd", b"cookie", b"credential", b"jwt", b"sig",
)  # fmt: skip
_OTHER_SIGNS: Final = (
    b"bearer", b"basic", b"://", b":\\", b"sk-", b"ak_", b"k_live", b"k_test", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_",
    b"github_pat_", b"glpat-", b"xox", b"xapp-", b"akia", b"asia", b"aiza", b"ya29.", b"hf_", b"npm_", b"sg.", b"eyj", b"\\u00",
)  # fmt: skip

# The automaton's states are made as texts need them; a budget too small would have them made again and again.
_AUTOMATON_BYTES_MAX: Final = 32 * 1024 * 1024
_SPACE: Final = r"(?:\s|\\+[nrt])"
# An ending is found wherever it stands; a whole name has to begin there, so that `next_page_token` costs no closer look.
_ENDINGS: Final = frozenset(SECRET_ENDINGS)
_WHOLE: Final = frozenset(name for name in {*SECRET_NAMES, *PARAMETER_NAMES} if not name.endswith(SECRET_ENDINGS))
_BEGINNING: Final = r"(?:\A|[^A-Za-z0-9_]|\\[bfnrt])_*"
# Letters, digits and quotes written as escapes; `<`, `>` and `'`, which some always escape, are none of these.
_ESCAPES: Final = r"\\u00(?:2[0-689a-fA-F]|3[0-9abdfABDF]|[4-7])"


def by_search(raw: bytes) -> bool:
    """Tell it by searching for each sign."""
    lowered = raw.lower()
    if any(sign in lowered for sign in _OTHER_SIGNS):
        return True
    bare = lowered.translate(None, b"-_ ")
    return any(sign in bare for sign in _NAME_SIGNS)


def by_automaton(expression: str, *, utf8: bool = False) -> Callable[[bytes], bool]:
    """Return what tells whether an expression is found in bytes, in one pass.

    Raises:
        ImportError: RE2 is not there.
    """
    return _Automaton(expression, utf8=utf8)


class _Automaton:
    """An expression compiled for this process.

    States are made under a lock of the automaton's. Where a process forks while another thread is matching, that lock stays
    locked in the child for ever, so the child makes an automaton of its own.
    """

    def __init__(self, expression: str, *, utf8: bool) -> None:
        self._expression, self._utf8 = expression, utf8
        self._compile()

    def __call__(self, raw: bytes) -> bool:
        if self._process != os.getpid():
            # Kept: to take it apart might need the lock.
            self._parents = self._match
            self._compile()
        return bool(self._match(raw))

    def _compile(self) -> None:
        re2 = importlib.import_module("re2")
        options = re2.Options()
        options.max_mem = _AUTOMATON_BYTES_MAX
        if not self._utf8:
            options.encoding = re2.Options.Encoding.LATIN1
        found = re2.Set.SearchSet(options)
        found.Add(self._expression)
        found.Compile()
        self._match = found.Match
        self._process = os.getpid()


def name_sign(names: Iterable[str], *, whole: bool) -> str:
    """Return the expression for names in any spelling, with what makes of them a member or gives them a value.

    Args:
        whole: nothing of a name stands before them.
    """
    spelled = "|".join("[-_ ]*".join(name) for name in sorted(names))
    return rf"(?i:{_BEGINNING if whole else ''}(?:{spelled})[-_ ]*{_SPACE}*[\"'\\=:])"


_SIGN: Final = "|".join(
    (
        name_sign(_ENDINGS, whole=False),
        name_sign(_WHOLE, whole=True),
        rf"(?i:(?:bearer|basic){_SPACE}+[a-z0-9._~+/-]{{8}})",
        r":\\*/\\*/[^\s/?#@\"'<>]*:[^\s/?#@\"'<>]+@",
        r"PRIVATE KEY-----",
        r"sk-[A-Za-z0-9_-]{20}",
        r"ak_[A-Za-z0-9_-]{32}",
        r"[sr]k_(?:live|test)_[A-Za-z0-9]{16}",
        r"gh[pousr]_[A-Za-z0-9]{20}",
        r"github_pat_|glpat-|xox[a-z]-|xapp-|ya29\.",
        r"(?:AKIA|ASIA)[A-Z0-9]{16}",
        r"AIza[A-Za-z0-9_-]{35}",
        r"hf_[A-Za-z0-9]{30}",
        r"npm_[A-Za-z0-9]{36}",
        r"SG\.[A-Za-z0-9_-]{16}",
        r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5}",
        _ESCAPES,
    )
)


def _compiled() -> Callable[[bytes], bool]:
    try:
        return by_automaton(_SIGN)
    except ImportError:
        return by_search


may_hold: Final = _compiled()
