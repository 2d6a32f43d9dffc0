"""Statements as the engine gets them: with the files of our own that carry data in and results out."""

from __future__ import annotations

from dataclasses import replace

from deploy.embedded.clickhouse.errors import SYNTAX_ERROR, ClickHouseError
from deploy.embedded.clickhouse.insert import Statement
from deploy.embedded.clickhouse.processes import RunningQueries
from deploy.embedded.clickhouse.sql_tokens import quote_string, tokens


def outfile_sql(statement: Statement, path: str, output_format: str, clause: str) -> bytes:
    """A SELECT that writes its result to `path`."""
    tail = statement.text[statement.clause_at :] or f"FORMAT {output_format}".encode()
    settings = f"\nSETTINGS {clause}" if clause else ""
    outfile = f"\nINTO OUTFILE {quote_string(path)} TRUNCATE\n".encode()
    return statement.text[: statement.clause_at] + outfile + tail + settings.encode()


def insert_sql(statement: Statement, path: str, clause: str) -> bytes:
    """An INSERT that reads its rows from `path`."""
    if statement.input_function is not None:
        start, end, columns = statement.input_function
        source = f"file({quote_string(path)}, {quote_string(statement.input_format)}, ".encode() + columns
        source += b", 'none')"
        tail = f"\nSETTINGS {clause}".encode() if clause else b""
        return statement.text[:start] + source + statement.text[end:] + tail
    infile = f"\nFROM INFILE {quote_string(path)}"
    if clause:
        infile += f" SETTINGS {clause}"
    return (
        statement.text[: statement.clause_at]
        + infile.encode()
        + b"\n"
        + statement.text[statement.clause_at :]
        + f"\nFORMAT {statement.input_format}".encode()
    )


# Words that may follow a table in FROM; any other word there is an alias the user gave.
_AFTER_TABLE = frozenset(
    b"WHERE PREWHERE GROUP ORDER LIMIT OFFSET FETCH HAVING WINDOW QUALIFY FORMAT SETTINGS UNION EXCEPT INTERSECT FINAL SAMPLE "
    b"JOIN INNER LEFT RIGHT FULL CROSS ANY ALL ASOF SEMI ANTI GLOBAL ARRAY ON USING INTO".split()
)


def with_processes_view(statement: Statement, queries: RunningQueries) -> Statement:
    """The statement with `system.processes` replaced by a view that carries this server's query ids."""
    words = statement.words
    text = statement.text
    shift = 0
    clause_at = statement.clause_at
    for place in range(len(words) - 2):
        before = words[place - 1] if place else None
        if not (
            words[place].is_word(b"SYSTEM")
            and words[place + 1].text == b"."
            and words[place + 2].is_word(b"PROCESSES")
            and before is not None
            and (before.is_word(b"FROM", b"JOIN") or before.text == b",")
        ):
            continue
        behind = words[place + 3] if place + 3 < len(words) else None
        aliased = behind is not None and behind.kind in ("word", "quoted") and behind.text.upper() not in _AFTER_TABLE
        view = (queries.processes_view() + ("" if aliased else " AS processes")).encode()
        start, end = words[place].start + shift, words[place + 2].end + shift
        text = text[:start] + view + text[end:]
        shift += len(view) - (end - start)
        if words[place].start < clause_at:
            clause_at += len(view) - (end - start)
    return replace(statement, text=text, clause_at=clause_at) if shift else statement


def kill_sql(statement: Statement, queries: RunningQueries) -> bytes:
    """`KILL QUERY WHERE ..` with its condition judged over the view that carries this server's query ids.

    Its result is in TabSeparated whatever format was asked for: `killed_sql` goes on from there.
    """
    words = [word for word in statement.words if word.depth == 0]
    where = next((word for word in words if word.is_word(b"WHERE")), None)
    if where is None:
        raise ClickHouseError(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error: KILL QUERY needs a WHERE clause")
    behind = [word for word in words if word.start > where.end]
    mode = next((word for word in behind if word.is_word(b"SYNC", b"ASYNC", b"TEST")), None)
    stop = next((word.start for word in behind if word.is_word(b"SYNC", b"ASYNC", b"TEST", b"FORMAT")), len(statement.text))
    condition = statement.text[where.end : stop]
    if next(tokens(condition), None) is None:
        raise ClickHouseError(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error: the WHERE clause of KILL QUERY is empty")
    return (
        statement.text[: where.end]
        + b" query_id IN (SELECT engine_query_id FROM "
        + queries.processes_view().encode()
        + b" AS processes WHERE "
        + condition
        + b"\n) "
        + (mode.text if mode is not None else b"ASYNC")
    )


def processes_sql(queries: RunningQueries) -> bytes:
    """A SELECT of the engine's id, this server's id and the text of each running query."""
    return f"SELECT engine_query_id, query_id, query FROM {queries.processes_view()}".encode()


def killed_sql(killed: bytes, processes: bytes) -> bytes:
    """A SELECT of what KILL QUERY answered, with this server's ids and texts in it.

    Args:
        killed: the answer of KILL QUERY, TabSeparated.
        processes: the answer to `processes_sql` from before the KILL, TabSeparated.
    """
    answer = _rows("kill_status String, query_id String, user String, query String", killed)
    process = _rows("engine_query_id String, id Nullable(String), text Nullable(String)", processes)
    return (
        "SELECT kill_status, ifNull(id, row.query_id) AS query_id, row.user AS user, ifNull(text, row.query) AS query "
        f"FROM {answer} AS row LEFT JOIN {process} AS process ON process.engine_query_id = row.query_id"
    ).encode()


def _rows(columns: str, tab_separated: bytes) -> str:
    return f"format(TabSeparated, {quote_string(columns)}, {quote_string(tab_separated.decode(errors='replace'))})"
