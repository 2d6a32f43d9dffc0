"""Running one request's statement, in a thread of the pool."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from deploy.embedded.clickhouse.body import Spool
from deploy.embedded.clickhouse.channel import ClientGone, Outcome, ResultChannel
from deploy.embedded.clickhouse.compression import Encoder, choose_encoding, encoder
from deploy.embedded.clickhouse.connections import Connections
from deploy.embedded.clickhouse.engine import EngineConnection, Statistics
from deploy.embedded.clickhouse.errors import BAD_ARGUMENTS, UNKNOWN_EXCEPTION, ClickHouseError
from deploy.embedded.clickhouse.insert import DEFAULT_FORMAT, Kind, Statement
from deploy.embedded.clickhouse.loading import Loaded, load
from deploy.embedded.clickhouse.native_frames import NativeFrameEncoder
from deploy.embedded.clickhouse.processes import RunningQueries, RunningQuery
from deploy.embedded.clickhouse.request import QueryRequest
from deploy.embedded.clickhouse.rewriting import (
    insert_sql,
    kill_sql,
    killed_sql,
    outfile_sql,
    processes_sql,
    with_processes_view,
)
from deploy.embedded.clickhouse.sessions import Session

log = structlog.get_logger("toolledger.clickhouse")

_FORMAT_NAME: Final = re.compile(r"\w+\Z")
_PIPE_BYTES: Final = 1 << 20  # the most an unprivileged process may ask for
_SHOWN_TEXT_BYTES: Final = 4096  # of a statement, in system.processes


@dataclass(slots=True, kw_only=True)
class Job:
    """One request on its way through the engine."""

    request: QueryRequest
    body: Spool
    channel: ResultChannel
    running: RunningQuery
    session: Session | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)


class Execution:
    """Runs jobs on the engine; `run` is called in a pool's thread.

    Args:
        connections: gives each statement its connection.
        queries: the register of running statements.
        readers: threads that drain results while the engine writes them; as many as there are query threads.
        new_spool: makes an empty spool with this server's limits.
    """

    def __init__(
        self,
        *,
        connections: Connections,
        queries: RunningQueries,
        readers: ThreadPoolExecutor,
        new_spool: Callable[[], Spool],
    ) -> None:
        self._connections = connections
        self._queries = queries
        self._readers = readers
        self.new_spool = new_spool

    def run(self, job: Job) -> None:
        """Run a job to its end; the outcome, whatever it is, goes to its channel."""
        started = time.perf_counter_ns()
        try:
            outcome = self._run(job)
        except ClickHouseError as error:
            outcome = Outcome(error=error)
        except ClientGone:
            outcome = Outcome()
        except Exception as error:
            log.exception("query_crashed", query_id=job.running.query_id)
            outcome = Outcome(error=ClickHouseError(UNKNOWN_EXCEPTION, "UNKNOWN_EXCEPTION", f"{type(error).__name__}: {error}"))
        finally:
            self._queries.end(job.running)
            job.body.close()
        job.channel.finish(replace(outcome, elapsed_ns=time.perf_counter_ns() - started))

    def _run(self, job: Job) -> Outcome:
        loaded = load(job.request, job.body, self.new_spool)
        try:
            text = loaded.statement.text[:_SHOWN_TEXT_BYTES].decode(errors="replace").strip()
            self._queries.begin(job.running, text)
            with self._connections.open(job.request, loaded.statement, job.files, job.session) as (connection, clause):
                return self._execute(job, loaded, connection, clause)
        finally:
            if loaded.data is not None:
                loaded.data.close()

    def _execute(self, job: Job, loaded: Loaded, connection: EngineConnection, clause: str) -> Outcome:
        statement = loaded.statement
        output_format = statement.output_format or job.request.default_format or DEFAULT_FORMAT
        if not _FORMAT_NAME.match(output_format):
            raise ClickHouseError(BAD_ARGUMENTS, "BAD_ARGUMENTS", f"{output_format!r} is not the name of a format")
        if statement.kind is Kind.SELECT:
            self._describe(job, output_format)
            statement = with_processes_view(statement, self._queries)
            if output_format.lower() == "native":
                statistics = self._stream_native(job, statement, connection, clause)
            else:
                statistics = self._stream_through_pipe(job, statement, connection, output_format, clause)
            return self._done(job, output_format, statistics)
        if statement.kind is Kind.INSERT_DATA:
            assert loaded.data is not None
            self._describe(job, None)
            sql = insert_sql(statement, loaded.data.path, clause)
            _, statistics = connection.execute(sql, parameters=job.request.parameters)
            return self._done(job, None, statistics)
        sql = statement.text
        if statement.kind is Kind.KILL:
            processes, _ = connection.execute(processes_sql(self._queries))
            killed, _ = connection.execute(kill_sql(statement, self._queries), parameters=job.request.parameters)
            sql = killed_sql(killed, processes)
        output, statistics = connection.execute(sql, output_format=output_format, parameters=job.request.parameters)
        shown = output_format if statement.kind is not Kind.NO_RESULT or output else None
        self._describe(job, shown)
        if output:
            job.channel.put(output)
        return self._done(job, shown, statistics)

    def _stream_native(self, job: Job, statement: Statement, connection: EngineConnection, clause: str) -> Statistics:
        """Native blocks stand alone: they come straight out of the engine, each as soon as it is made."""
        sql = statement.text + (f"\nSETTINGS {clause}".encode() if clause else b"")
        total = Statistics()
        for block, counted in connection.stream(sql, output_format="Native", parameters=job.request.parameters):
            job.channel.put(block)
            total = Statistics(
                read_rows=max(total.read_rows, counted.read_rows),
                read_bytes=max(total.read_bytes, counted.read_bytes),
                result_rows=total.result_rows + counted.result_rows,
                result_bytes=total.result_bytes + counted.result_bytes,
            )
        return total

    def _stream_through_pipe(
        self, job: Job, statement: Statement, connection: EngineConnection, output_format: str, clause: str
    ) -> Statistics:
        """Every other format is written by the engine's own writer into a pipe, which gives it a head and a foot once."""
        read_end, write_end = os.pipe()
        try:
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            sql = outfile_sql(statement, f"/dev/fd/{write_end}", output_format, clause)
        except BaseException:
            os.close(read_end)
            os.close(write_end)
            raise
        drained: Future[None] = self._readers.submit(_drain, read_end, job.channel)
        failure: ClickHouseError | None = None
        statistics = Statistics()
        try:
            _, statistics = connection.execute(sql, parameters=job.request.parameters)
        except ClickHouseError as error:
            failure = error
        finally:
            os.close(write_end)
        drained.result()  # ClientGone goes first: the engine's error is then only that nobody reads
        if failure is not None:
            raise failure
        return statistics

    def _describe(self, job: Job, output_format: str | None) -> None:
        encoding: tuple[str, Encoder] | None = None
        if output_format is not None and job.request.native_output_compression:
            encoding = ("", NativeFrameEncoder())  # ClickHouse's own blocks: no header names them
        elif output_format is not None and (chosen := choose_encoding(job.request.accept_encoding)):
            encoding = (chosen, encoder(chosen, job.request.zlib_level))
        job.channel.describe(output_format, encoding)

    def _done(self, job: Job, output_format: str | None, statistics: Statistics) -> Outcome:
        job.channel.flush()
        return Outcome(output_format=output_format, statistics=statistics)


def _drain(read_end: int, channel: ResultChannel) -> None:
    try:
        while chunk := os.read(read_end, _PIPE_BYTES):
            channel.put(chunk)
    finally:
        os.close(read_end)
