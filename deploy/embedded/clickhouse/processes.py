"""Running statements: their ids, and how one is stopped.

chDB gives every query an id of its own and takes none from outside. The server's ids are matched with the engine's by the
thread a query runs in: `system.processes.thread_ids` names it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from deploy.embedded.clickhouse.errors import QUERY_ALREADY_RUNNING, QUERY_WAS_CANCELLED, ClickHouseError
from deploy.embedded.clickhouse.sql_tokens import quote_string

# What stands in for `system.processes`, so that its rows carry the ids, users and texts of the requests.
_VIEW: Final = """(
SELECT * REPLACE (
    if(at = 0, query_id, ids[at]) AS query_id,
    if(at = 0, initial_query_id, ids[at]) AS initial_query_id,
    if(at = 0, user, users[at]) AS user,
    if(at = 0, query, texts[at]) AS query)
FROM (
    SELECT *, query_id AS engine_query_id,
        {threads} AS threads, {ids} AS ids, {users} AS users, {texts} AS texts,
        arrayFirstIndex(thread -> has(thread_ids, thread), threads) AS at
    FROM system.processes))"""


@dataclass(slots=True, kw_only=True)
class RunningQuery:
    """One statement between its request and its end."""

    query_id: str
    user: str
    text: str = ""
    started: float = field(default_factory=time.monotonic)
    thread_id: int = 0
    cancelled: bool = False
    done: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class RunningQueries:
    """All statements of this server that have not ended.

    Args:
        kill: stops the engine's query that runs in the given thread.
    """

    def __init__(self, kill: Callable[[int], None]) -> None:
        self._kill = kill
        self._lock = threading.Lock()
        self._queries: dict[str, RunningQuery] = {}

    def register(self, query_id: str, user: str) -> RunningQuery:
        """Enter a statement.

        Raises:
            ClickHouseError: 216, a statement with this id is still running.
        """
        query = RunningQuery(query_id=query_id, user=user)
        with self._lock:
            if query_id in self._queries:
                raise ClickHouseError(
                    QUERY_ALREADY_RUNNING,
                    "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
                    f"Query with id = {query_id} is already running.",
                )
            self._queries[query_id] = query
        return query

    def begin(self, query: RunningQuery, text: str) -> None:
        """Say that the statement now runs in the calling thread.

        Raises:
            ClickHouseError: 394, it was cancelled while it waited.
        """
        with query.lock:
            if query.cancelled:
                raise ClickHouseError(QUERY_WAS_CANCELLED, "QUERY_WAS_CANCELLED", "Query was cancelled.")
            query.text = text
            query.thread_id = threading.get_native_id()

    def end(self, query: RunningQuery) -> None:
        """Take a statement out; from here on its thread may run another one."""
        with query.lock:
            query.done = True
            query.thread_id = 0
        with self._lock:
            self._queries.pop(query.query_id, None)

    def cancel(self, query: RunningQuery) -> None:
        """Stop a statement, whether it runs or still waits. Blocks for as long as the engine takes the order.

        The query's lock is held meanwhile, so that its thread cannot go on to another statement and lose that one.
        """
        with query.lock:
            query.cancelled = True
            if query.thread_id and not query.done:
                self._kill(query.thread_id)

    def running(self) -> list[RunningQuery]:
        """Statements that have not ended."""
        with self._lock:
            return list(self._queries.values())

    def processes_view(self) -> str:
        """A subquery with the columns of `system.processes` (and `engine_query_id`), carrying this server's query ids."""
        begun = [query for query in self.running() if query.thread_id]
        return _VIEW.format(
            threads=f"CAST({[query.thread_id for query in begun]}, 'Array(UInt64)')",
            ids=_strings([query.query_id for query in begun]),
            users=_strings([query.user for query in begun]),
            texts=_strings([query.text for query in begun]),
        )


def _strings(values: list[str]) -> str:
    return f"CAST([{', '.join(quote_string(value) for value in values)}], 'Array(String)')"
