"""`ledger.logs`: what happened, as the Logs API tells it."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypedDict

import msgspec

from ingest.client.reading import Answered, Reader

_PATH: Final = "/api/v3.1/logs/tool_execution"

Operator = Literal["==", "!=", "contains", "not_contains"]


class Filter(TypedDict):
    """One condition; all of a search must hold."""

    field: str
    operator: Operator
    value: str


class Log(Answered, kw_only=True):
    """One call, as a search lists it. `timestamp` is ISO 8601; `metadata` holds tool, toolkit, user, session and your own."""

    id: str
    timestamp: str
    status: Literal["success", "failed"]
    type: str = "tool.execution"
    level: str = "info"
    message: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    metrics: dict[str, Any] = msgspec.field(default_factory=dict)
    parent: dict[str, Any] | None = None


class LogDetail(Log, kw_only=True):
    """One call in full; `data` holds `request` and `response`, `timings` start and end in epoch milliseconds."""

    data: dict[str, Any] = msgspec.field(default_factory=dict)
    timings: dict[str, Any] | None = None
    context: dict[str, Any] = msgspec.field(default_factory=dict)
    source: dict[str, Any] = msgspec.field(default_factory=dict)


class LogPage(Answered, kw_only=True):
    """Some logs, newest first; iterating goes through them. `next_cursor` None: there are no more."""

    logs: list[Log]
    next_cursor: str | None = None

    def __iter__(self) -> Iterator[Log]:
        return iter(self.logs)

    def __len__(self) -> int:
        return len(self.logs)


class Logs:
    """Searches logs; each question waits for its answer.

    Raises, all of them:
        ConfigurationError: no key is known.
        RequestFailed: the service refused the question, and says why.
        ServiceUnavailable: it could not be reached.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def search(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        filters: Sequence[Filter | Mapping[str, str]] = (),
        time_range: Mapping[str, int] | None = None,
        **equal: str,
    ) -> LogPage:
        """Return logs, newest first.

        Args:
            limit: at most so many, 1 to 100; 20 by default.
            cursor: `next_cursor` of the page before, with the same other arguments.
            filters: `{"field": "message", "operator": "contains", "value": "timeout"}`.
            time_range: `{"from": ..., "to": ...}` in epoch milliseconds, `to` excluded.
            equal: fields that have exactly this value: `status="failed"`, `user_id="user_123"`.
        """
        same = [{"field": name, "operator": "==", "value": value} for name, value in equal.items()]
        body = {"limit": limit, "cursor": cursor, "filters": [*filters, *same], "time_range": time_range}
        return self._reader.post(_PATH, body, LogPage)

    def all(self, **search: Any) -> Iterator[Log]:
        """Go through all logs of a search, page by page; takes what `search` takes."""
        search.setdefault("limit", 100)
        while True:
            page = self.search(**search)
            yield from page.logs
            if page.next_cursor is None:
                return
            search["cursor"] = page.next_cursor

    def get(self, log_id: str) -> LogDetail:
        """Return one log in full.

        Raises:
            LogNotFound: there is none of this id, or not yet: a call is searchable within about a second.
            ValueError: the id is empty.
        """
        if not log_id:
            raise ValueError("the id of a log is not empty")
        return self._reader.get(f"{_PATH}/", log_id, LogDetail)


class AsyncLogs:
    """As `Logs`, awaited; the questions wait in a thread, not in the loop."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs

    async def search(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        filters: Sequence[Filter | Mapping[str, str]] = (),
        time_range: Mapping[str, int] | None = None,
        **equal: str,
    ) -> LogPage:
        """Return logs, newest first. As `Logs.search`."""
        return await asyncio.to_thread(
            self._logs.search, limit=limit, cursor=cursor, filters=filters, time_range=time_range, **equal
        )

    async def all(self, **search: Any) -> AsyncIterator[Log]:
        """Go through all logs of a search. As `Logs.all`."""
        search.setdefault("limit", 100)
        while True:
            page = await self.search(**search)
            for log in page.logs:
                yield log
            if page.next_cursor is None:
                return
            search["cursor"] = page.next_cursor

    async def get(self, log_id: str) -> LogDetail:
        """Return one log in full. As `Logs.get`."""
        return await asyncio.to_thread(self._logs.get, log_id)
