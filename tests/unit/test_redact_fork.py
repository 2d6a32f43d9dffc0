"""The quick look for secrets in a process that was forked."""

import os

import pytest
import re2

from ingest.contract import secret_signs


def test_a_child_looks_with_an_automaton_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An automaton has a lock, which a thread of the parent may hold at the fork: in a child it would never be given back."""
    made: list[int] = []
    search_set = re2.Set.SearchSet
    monkeypatch.setattr(re2.Set, "SearchSet", staticmethod(lambda options: made.append(os.getpid()) or search_set(options)))
    found = secret_signs.by_automaton("secret[0-9]+x")
    assert found(b"a secret12x")
    assert made == [os.getpid()]
    child = os.fork()
    if child == 0:
        # Whatever happens, nothing of the test's own process may go on here.
        right = found(b"a secret12x") and not found(b"secretx") and made[1:] == [os.getpid()]
        os._exit(0 if right else 3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert found(b"a secret12x")
    assert len(made) == 1
