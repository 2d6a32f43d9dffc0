"""The one place that asks ClickHouse: read-only, with caps on time, memory and rows, and its errors turned into ours."""

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import ClientError
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError

from ingest.contract.errors import QueryError, StoreUnavailable
from ingest.contract.logs import logger
from ingest.contract.store import READ_INDEXES, async_client
from query_api.settings import QuerySettings
from query_api.tenant import Statement
from query_api.waiting import Queue

log = logger(__name__)

Row = list[Any]

# ClickHouse's own numbers, from src/Common/ErrorCodes.cpp.
_TIMEOUT_EXCEEDED: Final = 159
_TOO_SLOW: Final = 160
_MEMORY_LIMIT_EXCEEDED: Final = 241
_TOO_MANY_ROWS: Final = 158
_TOO_MANY_BYTES: Final = 307
_TOO_MANY_ROWS_OR_BYTES: Final = 396
_TOO_SLOW_CODES: Final = frozenset((_TIMEOUT_EXCEEDED, _TOO_SLOW))
_TOO_LARGE_CODES: Final = frozenset((_MEMORY_LIMIT_EXCEEDED, _TOO_MANY_ROWS, _TOO_MANY_BYTES, _TOO_MANY_ROWS_OR_BYTES))
# Away, starting, overloaded, or not migrated yet: the same question may be answered later.
# UNKNOWN_TABLE, UNKNOWN_DATABASE, UNKNOWN_IDENTIFIER (a migration to come); ALL_CONNECTION_TRIES_FAILED,
# TOO_MANY_SIMULTANEOUS_QUERIES, SOCKET_TIMEOUT, NETWORK_ERROR; TABLE_IS_READ_ONLY, KEEPER_EXCEPTION; QUERY_WAS_CANCELLED,
# ABORTED.
_AWAY_CODES: Final = frozenset((60, 81, 47, 279, 202, 209, 210, 242, 999, 394, 236))
# How ClickHouse tells its memory limit for everything from the one of this question. Source: src/Common/MemoryTracker.cpp.
_TOTAL: Final = "(total)"
_CODE: Final = re.compile(r"(?:Code: |error code )(\d+)")
_NARROW: Final = "Ask for a shorter time range, a smaller limit, fewer groups or more filters."
TOO_LARGE: Final = "Query_TooLarge"
# Of logs that are read at once, in ClickHouse's memory: what is read and written on one loop for everybody.
PAGE_BYTES_MAX: Final = 16 * 1024 * 1024
# The client waits a little longer than ClickHouse works, so that ClickHouse's own refusal arrives.
_READ_SLACK_S: Final = 5
# The line of questions that are nobody's, and that every answer needs: freshness above all.
_SYSTEM: Final = "system"
# With names in the first line, so that there is no empty answer.
_FORMAT: Final = "JSONCompactEachRowWithNames"


class Reader:
    """Asks statements of ClickHouse; the connection is made with the first one and made again after an outage."""

    def __init__(self, settings: QuerySettings) -> None:
        self._settings = settings
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()
        self.queue = Queue(
            going_max=settings.query_in_flight_max,
            of_tenant_max=settings.query_in_flight_per_project_max,
            waiting_max=settings.query_waiting_per_project_max,
            wait_s_max=settings.query_wait_s_max,
            retry_after_s=settings.query_retry_after_s,
        )
        self._caps: dict[str, Any] = {
            # 2: reads only, while settings of the call itself are allowed.
            "readonly": 2,
            "max_execution_time": settings.query_time_s_max,
            "timeout_overflow_mode": "throw",
            "max_memory_usage": settings.query_memory_bytes_max,
            "max_result_rows": settings.query_result_rows_max,
            "result_overflow_mode": "throw",
            # An error halfway must not look like an answer.
            "wait_end_of_query": 1,
            # We go away, by closing the connection, when our own caller did or our time is up.
            "cancel_http_readonly_queries_on_client_close": 1,
            **READ_INDEXES,
        }
        if settings.query_threads_max:
            self._caps["max_threads"] = settings.query_threads_max

    async def rows(self, statement: Statement, *, bytes_max: int = 0, time_s_max: int = 0) -> list[Row]:
        """Return the rows of a statement, in its order.

        Args:
            bytes_max: of the rows in ClickHouse's memory; 0: no such cap.
            time_s_max: a shorter time than any question may take; 0: that one.

        Raises:
            QueryError: 400 over the caps on memory or rows, 504 over the cap on time; the message says how to narrow. 429 where
                the project asks too much at once.
            StoreUnavailable: ClickHouse is away, refuses work, or has no schema yet.
        """
        more = {"max_result_bytes": bytes_max} if bytes_max else {}
        if time_s_max:
            more["max_execution_time"] = min(time_s_max, self._settings.query_time_s_max)
        return await self._ask(statement.text, statement.parameters(), more, line=statement.tenant.line)

    async def page(self, statement: Callable[[int], Statement], limit: int) -> tuple[int, list[Row]]:
        """Return as many rows as asked for, or fewer where rows are so large that they would fill the memory.

        Args:
            statement: asks for a page of so many rows and one more.
            limit: rows of a whole page.

        Returns:
            How many rows are a page now, and one row more where there is a next one. Raises as `rows` does.
        """
        while True:
            try:
                return limit, await self.rows(statement(limit), bytes_max=PAGE_BYTES_MAX)
            except QueryError as error:
                if error.slug != TOO_LARGE or limit == 1:
                    raise
                limit = max(1, limit // 4)

    async def system_rows(self, text: str, parameters: Mapping[str, Any] | None = None, *, line: str = _SYSTEM) -> list[Row]:
        """Return the rows of a question that holds nobody's data: progress, receipts and schema. Raises as `rows` does.

        Args:
            line: who waits in line with it; by default what every answer needs.
        """
        return await self._ask(text, parameters or {}, {}, line=line)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _ask(self, text: str, parameters: Mapping[str, Any], more: Mapping[str, Any], *, line: str) -> list[Row]:
        async with self.queue.turn(line):
            try:
                # The client's own limit is one of silence, which an answer that comes in drops escapes.
                async with asyncio.timeout(self._settings.query_time_s_max + _READ_SLACK_S):
                    client = self._client or await self._connect()
                    return _parsed(await client.raw_query(text, dict(parameters), settings={**self._caps, **more}, fmt=_FORMAT))
            except ClickHouseError as error:
                raise _ours(error) from None
            except (ClientError, OSError, TimeoutError, orjson.JSONDecodeError) as error:
                raise StoreUnavailable(f"ClickHouse did not answer: {type(error).__name__}") from None

    async def _connect(self) -> AsyncClient:
        async with self._connecting:
            if self._client is None:
                self._client = await async_client(
                    self._settings.clickhouse.get_secret_value(),
                    read_timeout_s=self._settings.query_time_s_max + _READ_SLACK_S,
                    # Answers are small and on the same machine or network: packing them costs more than it saves.
                    compress=False,
                    query_limit=0,
                    connector_limit=self._settings.query_in_flight_max,
                    connector_limit_per_host=self._settings.query_in_flight_max,
                )
            return self._client


def _parsed(body: bytes) -> list[Row]:
    """Read the answer; line breaks stand only between rows, because JSON escapes those within.

    Raises:
        StoreUnavailable: it does not begin with names, so it is not ClickHouse's: nothing must not be read as "no rows".
    """
    lines = orjson.loads(b"[" + body.strip().replace(b"\n", b",") + b"]")
    if not lines or not isinstance(lines[0], list):
        raise StoreUnavailable("something else answered in ClickHouse's place")
    rows: list[Row] = lines[1:]
    return rows


def _ours(error: ClickHouseError) -> QueryError | StoreUnavailable:
    """Turn ClickHouse's refusal into ours."""
    found = _CODE.search(str(error))
    code = int(found[1]) if found else 0
    if code in _TOO_SLOW_CODES:
        return QueryError(504, "Query_TooSlow", f"The question took too long. {_NARROW}", suggested_fix=_NARROW)
    if code == _MEMORY_LIMIT_EXCEEDED and _TOTAL in str(error):
        # The server's own limit, over the questions and inserts of all: whichever asked next is refused, however small it is.
        return StoreUnavailable("ClickHouse is out of memory for now; try again shortly, or ask for less at once")
    if code in _TOO_LARGE_CODES:
        message = f"The question needs too much memory or too many rows. {_NARROW}"
        return QueryError(400, TOO_LARGE, message, suggested_fix=_NARROW)
    if code and code not in _AWAY_CODES:
        # Statements are ours, so a refusal of another kind is a fault of ours: it must be seen, and asking again is no use.
        log.error("query_refused", code=code, error=str(error)[:500])
        return QueryError(500, "Query_Failed", "The question could not be answered; the service's log says why.")
    return StoreUnavailable(f"ClickHouse could not answer (code {code})" if code else "ClickHouse did not answer")
