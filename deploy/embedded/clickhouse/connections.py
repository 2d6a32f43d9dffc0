"""The connection a statement runs on, with the settings of its request and nothing of anyone else's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from deploy.embedded.clickhouse.body import Spool
from deploy.embedded.clickhouse.engine import Engine, EngineConnection
from deploy.embedded.clickhouse.errors import READONLY, UNKNOWN_DATABASE, ClickHouseError
from deploy.embedded.clickhouse.external import create_external_tables, drop_external_tables
from deploy.embedded.clickhouse.insert import Kind, Statement
from deploy.embedded.clickhouse.request import QueryRequest
from deploy.embedded.clickhouse.sessions import Session
from deploy.embedded.clickhouse.settings import (
    assigned_by_set,
    restore_statement,
    set_statement,
    settings_clause,
)
from deploy.embedded.clickhouse.sql_tokens import quote_identifier


class Connections:
    """Gives each statement its connection: a new one, or its session's.

    Args:
        engine: the engine of this process.
        new_spool: makes a spool to hand external tables to the engine.
    """

    def __init__(self, engine: Engine, new_spool: Callable[[], Spool]) -> None:
        self._engine = engine
        self._new_spool = new_spool

    @contextmanager
    def open(
        self, request: QueryRequest, statement: Statement, files: Mapping[str, bytes], session: Session | None
    ) -> Iterator[tuple[EngineConnection, str]]:
        """A connection with the request's settings in force, and the SETTINGS clause the statement has to carry.

        Args:
            request: what is asked.
            statement: its statement.
            files: external tables that came with it.
            session: the session it runs in, or None.

        Raises:
            ClickHouseError: a setting or an external table the engine cannot take, or a write where reading is allowed only.
        """
        if session is not None:
            with self._in_session(request, statement, files, session) as prepared:
                yield prepared
            return
        settings = dict(request.settings)
        read_only = self._read_only(request)
        if read_only:
            settings["readonly"] = read_only
        at_opening = {
            name: value for name, value in settings.items() if name in self._engine.setting_names and "&" not in value
        }
        if files:
            at_opening.pop("readonly", None)  # the external tables are made first
        unknown = {name: value for name, value in settings.items() if name not in at_opening and name != "readonly"}
        if request.database:
            if "&" in request.database:
                raise ClickHouseError(UNKNOWN_DATABASE, "UNKNOWN_DATABASE", f"Database {request.database} does not exist.")
            at_opening["database"] = request.database
        connection = self._engine.connect(at_opening)
        try:
            if unknown:
                connection.execute(set_statement(unknown))
            if files:
                create_external_tables(connection, files, request.external, self._new_spool)
                if read_only:
                    connection.execute(set_statement({"readonly": read_only}))
            yield connection, ""
        finally:
            connection.close()

    @contextmanager
    def _in_session(
        self, request: QueryRequest, statement: Statement, files: Mapping[str, bytes], session: Session
    ) -> Iterator[tuple[EngineConnection, str]]:
        """A session's connection outlives the request: what the request sets is set back, or rides in a clause."""
        if session.connection is None:
            session.connection = self._engine.connect()
        connection = session.connection
        settings = dict(request.settings)
        read_only = self._read_only(request)
        # A clause would come too late for the external tables.
        takes_clause = statement.kind in (Kind.SELECT, Kind.INSERT_DATA) and not statement.has_settings and not files
        if read_only:
            # SET readonly could not be taken back in a session.
            settings.pop("readonly", None)
            if statement.kind is Kind.SELECT and takes_clause:
                settings["readonly"] = read_only
            elif statement.kind is Kind.INSERT_DATA or not connection.is_read_only(statement.text):
                raise ClickHouseError(READONLY, "READONLY", "default: Cannot execute query in readonly mode.")
        database = request.database or session.database or "default"
        if database != session.connection_database:
            connection.execute(f"USE {quote_identifier(database)}".encode())
            session.connection_database = database
        around = {} if takes_clause else settings
        try:
            if around:
                connection.execute(set_statement(around))
            create_external_tables(connection, files, request.external, self._new_spool)
            yield connection, settings_clause(settings) if takes_clause and settings else ""
        finally:
            known = [name for name in around if name in self._engine.setting_names]
            if known:
                connection.execute(restore_statement(known, {**self._engine.defaults, **session.assigned}))
            drop_external_tables(connection, files)
        session.assigned.update(assigned_by_set(statement.words))
        if statement.words and statement.words[0].is_word(b"USE"):
            output, _ = connection.execute(b"SELECT currentDatabase()", output_format="TabSeparatedRaw")
            session.database = session.connection_database = output.decode().rstrip("\n")

    @staticmethod
    def _read_only(request: QueryRequest) -> str:
        """The value of `readonly` in force: GET may read and set settings (2), as in ClickHouse."""
        asked = request.settings.get("readonly", "0")
        return "2" if request.read_only_method and asked in ("", "0") else asked.strip("0")
