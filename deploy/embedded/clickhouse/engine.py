"""The one file that talks to chDB: opening the engine, and running SQL on a connection of it.

A connection is a ClickHouse session: settings, current database and temporary tables live and die with it. Opening one
on the running engine takes about 0.15 ms, so each request gets its own and nothing can be left behind for the next.
Calls release the GIL while the engine works.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.embedded.clickhouse.errors import ClickHouseError, parse_engine_error


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What the engine counted while it ran a statement; bytes are uncompressed."""

    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    result_rows: int = 0
    result_bytes: int = 0


class EngineConnection:
    """One ClickHouse session on the running engine. Used by one thread at a time."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def execute(
        self, sql: bytes, *, output_format: str = "TabSeparated", parameters: Mapping[str, str] | None = None
    ) -> tuple[bytes, Statistics]:
        """Run a statement to its end and return its whole output in `output_format`.

        A `FORMAT` clause in the statement wins over `output_format`.

        Raises:
            ClickHouseError: what the engine refused or could not do.
        """
        try:
            result = self._handle.query(sql, output_format, params=dict(parameters or {}))
        except RuntimeError as error:
            raise parse_engine_error(str(error)) from None
        if result.has_error():
            raise parse_engine_error(result.error_message())
        statistics = Statistics(
            read_rows=result.rows_read(),
            read_bytes=result.bytes_read(),
            written_rows=result.rows_written(),
            written_bytes=result.bytes_written(),
        )
        return result.bytes(), statistics

    def stream(
        self, sql: bytes, *, output_format: str, parameters: Mapping[str, str] | None = None
    ) -> Iterator[tuple[bytes, Statistics]]:
        """Run a SELECT and yield its output block by block, as the engine makes it.

        Only for formats whose blocks stand alone (Native): others write a header in front of every block.

        Raises:
            ClickHouseError: at the block where the query failed; blocks before it have been yielded.
        """
        try:
            stream = self._handle.send_query(sql, output_format, params=dict(parameters or {}))
        except RuntimeError as error:
            raise parse_engine_error(str(error)) from None
        try:
            while True:
                result = self._fetch(stream)
                block = result.bytes()
                if not block:
                    return
                yield (
                    block,
                    Statistics(
                        read_rows=result.storage_rows_read(),
                        read_bytes=result.storage_bytes_read(),
                        result_rows=result.rows_read(),
                        result_bytes=len(block),
                    ),
                )
        finally:
            # Also frees an unfinished stream: a connection with one open answers the next query with nothing.
            self._handle.streaming_cancel_query(stream)

    def _fetch(self, stream: Any) -> Any:
        try:
            result = self._handle.streaming_fetch_result(stream)
        except RuntimeError as error:
            raise parse_engine_error(str(error)) from None
        if result.has_error():
            raise parse_engine_error(result.error_message())
        return result

    def is_read_only(self, sql: bytes) -> bool:
        """Whether the engine's own parser sees nothing in `sql` that writes or steers."""
        return bool(self._handle.classify_query(sql)["query_class"].name == "READ_ONLY")

    def close(self) -> None:
        """End the session; its temporary tables are gone."""
        self._handle.close()


class Engine:
    """The ClickHouse engine of this process; there can be one at a time.

    Args:
        folder: where the tables live.
        config_file: ClickHouse server configuration (pools, caches, memory).
        defaults: settings every connection starts with.
    """

    def __init__(self, *, folder: Path, config_file: Path, defaults: Mapping[str, str]) -> None:
        # Loaded here because that takes a third of a second and 150 MB: importing this module must not.
        chdb: Any = importlib.import_module("chdb._chdb")
        # Without this chDB takes over SIGINT and SIGTERM, which belong to the server.
        chdb.set_signal_handlers_enabled(False)
        self._connect = chdb.connect
        self._folder = os.fspath(folder)
        self.defaults = dict(defaults)
        # Held for the life of the server: the engine shuts down when its last connection closes.
        self._keeper = self._open({"config-file": os.fspath(config_file)})
        self.version = self._scalar(b"SELECT version()")
        self.timezone = self._scalar(b"SELECT timezone()")
        names, _ = self._keeper.execute(b"SELECT name FROM system.settings UNION ALL SELECT alias_for FROM system.settings")
        self.setting_names = frozenset(name for name in names.decode().splitlines() if name)

    def connect(self, settings: Mapping[str, str] | None = None) -> EngineConnection:
        """Open a session with the defaults and `settings` on top.

        Settings given here are not judged by `readonly`, and unknown names are ignored by chDB: callers pass names out
        of `setting_names`, with values free of `&`.

        Raises:
            ClickHouseError: a value the engine cannot take.
        """
        return self._open(settings or {})

    def close(self) -> None:
        """Shut the engine down; every other connection must be closed."""
        self._keeper.close()

    def _open(self, arguments: Mapping[str, str]) -> EngineConnection:
        pairs = "&".join(f"{name}={value}" for name, value in {**self.defaults, **arguments}.items())
        try:
            return EngineConnection(self._connect(f"{self._folder}?{pairs}"))
        except RuntimeError as error:
            raise parse_engine_error(str(error)) from None

    def _scalar(self, sql: bytes) -> str:
        output, _ = self._keeper.execute(sql)
        return output.decode().strip()


__all__ = ["ClickHouseError", "Engine", "EngineConnection", "Statistics"]
