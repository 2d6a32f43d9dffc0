"""Settings of one statement: how they reach the engine without staying behind.

A request without a session has a connection of its own, so its settings are given when it is opened. In a session the
connection stays: there they ride in a SETTINGS clause where the statement can take one, and are otherwise set and set
back around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from deploy.embedded.clickhouse.sql_tokens import Token, quote_string, string_value

# What every connection starts with.
CONNECTION_DEFAULTS: Final[Mapping[str, str]] = {
    # chDB reads `1 + 1` as a statement; a server does not, and its errors say what is really wrong.
    "implicit_select": "0",
    # An insert is answered when its parts are written, each request as its own block, so that its token stands for it.
    "async_insert": "0",
    # chDB's own defaults, which a server does not have.
    "allow_introspection_functions": "0",
    "storage_file_read_method": "pread",
}


def setting_literal(value: str) -> str:
    """`value` as the right-hand side of a setting; the engine reads numbers out of quoted text as well."""
    return quote_string(value)


def set_statement(settings: Mapping[str, str]) -> bytes:
    """One SET for all of `settings`."""
    return ("SET " + settings_clause(settings)).encode("utf-8", errors="surrogateescape")


def settings_clause(settings: Mapping[str, str]) -> str:
    """`name = value, ...`; names are checked by the engine, which knows no setting with odd characters in its name."""
    return ", ".join(f"{_name(name)} = {setting_literal(value)}" for name, value in settings.items())


def _name(name: str) -> str:
    return name if name.isidentifier() else "`" + name.replace("`", "") + "`"


def restore_statement(names: Iterable[str], base: Mapping[str, str]) -> bytes:
    """One SET that gives `names` back the values of `base`, or the engine's defaults."""
    parts = [f"{name} = {setting_literal(base[name]) if name in base else 'DEFAULT'}" for name in names]
    return ("SET " + ", ".join(parts)).encode()


def assigned_by_set(words: Iterable[Token]) -> dict[str, str]:
    """The settings a `SET a = 1, b = 'x'` statement assigns; empty for any other statement."""
    assigned: dict[str, str] = {}
    pending: list[Token] = []
    for place, word in enumerate(words):
        if place == 0:
            if not word.is_word(b"SET"):
                return {}
            continue
        if word.text == b",":
            pending = []
            continue
        pending.append(word)
        if len(pending) >= 3 and pending[1].text == b"=":
            value = b"".join(part.text for part in pending[2:])
            literal = string_value(value) if pending[2].kind == "string" else value
            assigned[pending[0].text.decode(errors="replace")] = literal.decode(errors="replace")
    return assigned
