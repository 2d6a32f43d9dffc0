"""multipart/form-data bodies: text fields, and files that become temporary tables of one statement."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from deploy.embedded.clickhouse.body import Spool
from deploy.embedded.clickhouse.engine import EngineConnection
from deploy.embedded.clickhouse.errors import BAD_ARGUMENTS, INCORRECT_DATA, ClickHouseError
from deploy.embedded.clickhouse.sql_tokens import quote_identifier, quote_string

_DISPOSITION_MEMBER: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_FORMAT_NAME: Final = re.compile(r"\w+\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A multipart body, taken apart: text fields in order, and the content of files by field name."""

    fields: Sequence[tuple[str, str]]
    files: Mapping[str, bytes]


def parse_form(content: bytes, content_type: str) -> Form:
    """Take a multipart body apart.

    Raises:
        ClickHouseError: no boundary, or a body that is not multipart.
    """
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if boundary is None:
        raise ClickHouseError(INCORRECT_DATA, "INCORRECT_DATA", "The multipart body has no boundary in its Content-Type")
    delimiter = b"--" + boundary[1].encode("latin-1")
    fields: list[tuple[str, str]] = []
    files: dict[str, bytes] = {}
    # The first delimiter stands at the start; each further one behind a line break that belongs to it.
    for part in (b"\r\n" + content).split(b"\r\n" + delimiter)[1:]:
        if part.startswith(b"--"):
            break
        head, separator, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        members = dict(_DISPOSITION_MEMBER.findall(head.decode("utf-8", errors="replace")))
        if not separator or "name" not in members:
            raise ClickHouseError(INCORRECT_DATA, "INCORRECT_DATA", "The multipart body has a part without a name")
        if "filename" in members:
            files[members["name"]] = value
        else:
            fields.append((members["name"], value.decode("utf-8", errors="surrogateescape")))
    return Form(fields=fields, files=files)


def _structure(name: str, members: Mapping[str, str]) -> str:
    """The columns of an external table, from its `_structure` (`a UInt8, b String`) or `_types` (`UInt8,String`)."""
    if members.get(f"{name}_structure"):
        return members[f"{name}_structure"]
    types = members.get(f"{name}_types", "")
    if not types:
        raise ClickHouseError(
            BAD_ARGUMENTS, "BAD_ARGUMENTS", f"The external table {name} has neither {name}_structure nor {name}_types"
        )
    return ", ".join(f"_{place} {column}" for place, column in enumerate(_split_types(types), start=1))


def _split_types(types: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for place, character in enumerate(types):
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(types[start:place].strip())
            start = place + 1
    return [*parts, types[start:].strip()]


def create_external_tables(
    connection: EngineConnection, files: Mapping[str, bytes], members: Mapping[str, str], new_spool: Callable[[], Spool]
) -> None:
    """Fill one temporary table per file on `connection`; they end with it.

    Args:
        files: table name to content.
        members: `<table>_format`, `<table>_types` and `<table>_structure`.
        new_spool: makes a spool to hand content to the engine.

    Raises:
        ClickHouseError: a table without structure, or content that does not fit it.
    """
    for name, content in files.items():
        format_name = members.get(f"{name}_format") or "TabSeparated"
        if not _FORMAT_NAME.match(format_name):
            raise ClickHouseError(BAD_ARGUMENTS, "BAD_ARGUMENTS", f"{format_name!r} is not the name of a format")
        table = quote_identifier(name)
        connection.execute(f"CREATE TEMPORARY TABLE {table} ({_structure(name, members)})".encode())
        with new_spool() as spool:
            spool.write(content)
            connection.execute(f"INSERT INTO {table} FROM INFILE {quote_string(spool.path)} FORMAT {format_name}".encode())


def drop_external_tables(connection: EngineConnection, files: Mapping[str, bytes]) -> None:
    """Drop them again where the connection lives on (a session)."""
    for name in files:
        connection.execute(f"DROP TEMPORARY TABLE IF EXISTS {quote_identifier(name)}".encode())
