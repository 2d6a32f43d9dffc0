"""ClickHouse as the ledger's store. Every failure of a call is StoreUnavailable: the caller tries again with the same token.

An answer counts only if it is ClickHouse's own: a proxy that says 200 to everything must not make an insert believed that
never happened, or ids unknown that are known.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Final, TypeVar

import polars as pl
from aiohttp import ClientError
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.summary import QuerySummary

from ingest.contract import tables
from ingest.contract.errors import StoreUnavailable
from ingest.contract.store import async_client
from processors import known_ids
from processors.batch import Batch, Candidates, Prepared
from processors.blocks import columns_of, dead_letter_block, execution_block, usage_block
from processors.dedupe import SeenFilter
from processors.heartbeat import Said
from processors.known_ids import Loader
from processors.opening import Proof
from processors.usage import NEEDED, NEEDED_TYPES

T = TypeVar("T")

_OFFSET_MAX: Final = 2**63 - 1
_RECEIPTS_OF_PARTITION: Final = (
    "kind = {kind:String} AND project_id = '' AND incarnation = {incarnation:String} AND kafka_partition = {partition:UInt32}"
)

# A block is never parted by the server: as many rows as a batch may hold, with room, and no parallel parsing.
_INSERT: Final = {
    "async_insert": 0,
    "max_insert_block_size": 100_000_000,
    "min_insert_block_size_rows": 0,
    "min_insert_block_size_bytes": 0,
    "input_format_parallel_parsing": 0,
    # Questions go first; of a core they want whole, this still gets a quarter. Nothing happens without CAP_SYS_NICE.
    "os_threads_nice_value_query": 5,
}
# Batches that tell whoever takes a partition over how much of it turned into dead letters; minutes of them.
_RECALLED: Final = 1_000
_QUERY_BYTES_MAX: Final = 16 * 1024 * 1024

_FAILURES: Final = (ClickHouseError, ClientError, OSError)
# What the client's decoder makes of bytes that are not what ClickHouse sends.
_UNREADABLE: Final = (ArithmeticError, LookupError, ValueError, struct.error)
# Loading ids may take many times as long as an insert; it is not endless either.
_LOAD_PATIENCE: Final = 20
# Whoever asks whether the worker is ready does not wait as long as an insert may.
_PING_S: Final = 3.0

_PROGRESS: Final = {
    "incarnation": "LowCardinality(String)",
    "kafka_partition": "UInt32",
    "partitions": "UInt32",
    "next_offset": "UInt64",
    "end_offset": "UInt64",
    "complete_until": "DateTime64(3, 'UTC')",
    "known_ids": "UInt64",
    "known_since": "DateTime64(3, 'UTC')",
    "worker": "String",
    "reported_at": "DateTime64(3, 'UTC')",
}


class ClickHouseStore:
    """The tables the worker writes.

    Args:
        url: as in the settings.
        timeout_ms: how long a call may take.
        now_ms: the clock, epoch ms.
        horizon_ms: how far back ids are loaded.
    """

    def __init__(self, url: str, *, timeout_ms: int, now_ms: Callable[[], int], horizon_ms: int) -> None:
        self._url = url
        self._timeout_ms = timeout_ms
        self._loader = Loader(self._rows, self._load, now_ms=now_ms, horizon_ms=horizon_ms)
        self._client: AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def ping(self) -> None:
        """Raise StoreUnavailable unless ClickHouse answers and has the tables."""
        query = f"SELECT 1 FROM {tables.USAGE_WINDOWS} LIMIT 1"
        await self._call(lambda client: _query(query, None, {}, client), timeout_s=min(_PING_S, self._timeout_ms / 1000))

    async def proof(self, incarnation: str, partition: int, *, began: int | None) -> Proof | None:
        named = {"kind": tables.KIND_RECEIPT, "incarnation": incarnation, "partition": partition}
        first, next_offset, newest_record_ms, count = (
            await self._rows(
                "SELECT min(first_offset), max(next_offset), max(newest_record_ms), count()"
                f" FROM {tables.USAGE_WINDOWS} WHERE {_RECEIPTS_OF_PARTITION}",
                named,
            )
        )[0]
        if not count:
            return None
        holes = [
            (first_offset, end_offset)
            for first_offset, end_offset in await self._rows(
                "SELECT reached, first_offset FROM (SELECT first_offset, max(next_offset) OVER (ORDER BY first_offset"
                " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached"
                f" FROM {tables.USAGE_WINDOWS} WHERE {_RECEIPTS_OF_PARTITION})"
                " WHERE first_offset > reached AND first_offset > {began:UInt64} ORDER BY 1",
                {**named, "began": first},
            )
        ]
        if began is None:
            began = first
        elif began < first:
            holes.insert(0, (began, first))
        return Proof(
            began=began,
            next_offset=next_offset,
            newest_record_ms=newest_record_ms,
            holes=tuple(holes),
            agrees=not holes or await self._agrees(),
        )

    async def _agrees(self) -> bool:
        """Tell whether the sums hold as many calls as all receipts together accepted; asked at once, so batches count whole.

        What retention took, or is about to, is counted by its note and not by what is left of it.
        """
        purges = await self._rows(
            f"SELECT project_id, toUnixTimestamp(max(until)), max(calls) FROM {tables.PURGES}"
            f" WHERE kind = '{tables.PURGE_TOTALS}' GROUP BY project_id"
        )
        since, purged = {project: until_s for project, until_s, _ in purges}, sum(calls for _, _, calls in purges)
        kept = f" AND toUnixTimestamp(window_start) >= {tables.PURGED_BEFORE}" if since else ""
        rows = await self._rows(
            f"SELECT sumIf(calls, kind = '{tables.KIND_TOOL_MINUTE}'{kept}) + {purged:d}"
            f" = sumIf(accepted, kind = '{tables.KIND_RECEIPT}')"
            f" FROM {tables.USAGE_WINDOWS} WHERE kind IN ('{tables.KIND_TOOL_MINUTE}', '{tables.KIND_RECEIPT}')",
            {"purged": list(since), "since": list(since.values())} if since else None,
        )
        return bool(rows[0][0])

    async def proved(self, incarnation: str) -> dict[int, int]:
        rows = await self._rows(
            f"SELECT kafka_partition, max(next_offset) FROM {tables.USAGE_WINDOWS}"
            " WHERE kind = {kind:String} AND project_id = '' AND incarnation = {incarnation:String} GROUP BY kafka_partition",
            {"kind": tables.KIND_RECEIPT, "incarnation": incarnation},
        )
        return {partition: next_offset for partition, next_offset in rows}

    async def newest_below(self, incarnation: str, partition: int, offset: int) -> int:
        rows = await self._rows(
            f"SELECT max(newest_record_ms) FROM {tables.USAGE_WINDOWS} WHERE {_RECEIPTS_OF_PARTITION}"
            " AND first_offset < {offset:UInt64}",
            {"kind": tables.KIND_RECEIPT, "incarnation": incarnation, "partition": partition, "offset": offset},
        )
        return int(rows[0][0])

    async def receipted(self, batch: Batch) -> bool:
        rows = await self._rows(
            f"SELECT count() FROM {tables.USAGE_WINDOWS} WHERE {_RECEIPTS_OF_PARTITION} AND batch_month = {{month:UInt32}}"
            " AND first_offset = {first:UInt64} AND next_offset = {next:UInt64}",
            {**_range(batch), "kind": tables.KIND_RECEIPT},
        )
        return bool(rows[0][0])

    async def recent_letters(self, incarnation: str, partition: int) -> Sequence[tuple[int, int, int]]:
        rows = await self._rows(
            "SELECT max(newest_record_ms), sum(events), sum(dead_letters)"
            f" FROM {tables.USAGE_WINDOWS} WHERE kind = {{kind:String}} AND project_id = ''"
            " AND incarnation = {incarnation:String} AND kafka_partition = {partition:UInt32}"
            f" GROUP BY first_offset ORDER BY first_offset DESC LIMIT {_RECALLED}",
            {"kind": tables.KIND_RECEIPT, "incarnation": incarnation, "partition": partition},
        )
        return [(int(newest), int(events), int(dead)) for newest, events, dead in reversed(rows)]

    async def known(self, candidates: Candidates) -> dict[int, int]:
        return await known_ids.known(candidates, self._rows)

    async def landed(self, batch: Batch) -> pl.DataFrame:
        rows = await self._rows(
            f"SELECT {', '.join('toUnixTimestamp64Milli(timestamp)' if name == 'timestamp' else name for name in NEEDED)}"
            f" FROM {tables.TOOL_EXECUTIONS} WHERE batch_month = {{month:UInt32}} AND incarnation = {{incarnation:String}}"
            " AND kafka_partition = {partition:UInt32} AND first_offset = {first:UInt64} AND kafka_offset < {next:UInt64}",
            _range(batch),
        )
        frame = pl.DataFrame(rows, schema=NEEDED_TYPES, orient="row")
        return frame.with_columns(pl.col("timestamp").cast(pl.Datetime("ms", "UTC")))

    async def landed_dead_letters(self, batch: Batch) -> dict[str, int]:
        rows = await self._rows(
            f"SELECT project_id, count() FROM {tables.DEAD_LETTERS} WHERE batch_month = {{month:UInt32}}"
            " AND incarnation = {incarnation:String} AND kafka_partition = {partition:UInt32}"
            " AND first_offset = {first:UInt64} AND kafka_offset < {next:UInt64} GROUP BY project_id",
            _range(batch),
        )
        return {project: count for project, count in rows}

    async def write_dead_letters(self, prepared: Prepared) -> None:
        await self._insert(tables.DEAD_LETTERS, dead_letter_block(prepared), prepared.batch)

    async def write_executions(self, prepared: Prepared) -> None:
        await self._insert(tables.TOOL_EXECUTIONS, execution_block(prepared), prepared.batch)

    async def write_usage(self, prepared: Prepared) -> None:
        await self._insert(tables.USAGE_WINDOWS, usage_block(prepared), prepared.batch)

    async def remove(
        self, incarnation: str, partition: int, from_offset: int, to_offset: int | None, *, before_rewind: int
    ) -> int:
        where = (
            " WHERE incarnation = {incarnation:String} AND kafka_partition = {partition:UInt32}"
            " AND kafka_offset >= {from_offset:UInt64} AND kafka_offset < {to_offset:UInt64} AND rewind < {rewind:UInt64}"
        )
        named = {
            "rewind": before_rewind,
            "incarnation": incarnation,
            "partition": partition,
            "from_offset": from_offset,
            "to_offset": _OFFSET_MAX if to_offset is None else to_offset,
        }
        removed = 0
        for table in (tables.TOOL_EXECUTIONS, tables.DEAD_LETTERS):
            # It looks into every part, so it is asked first whether there is anything to take away. Rows are masked, and go
            # with the next merge: to rewrite a part is to make its inverted indexes anew in memory, gigabytes of them.
            count = int((await self._rows(f"SELECT count() FROM {table}{where}", named))[0][0])
            if count:
                await self._call(partial(_mutate, f"DELETE FROM {table}{where}", named))
            removed += count
        return removed

    async def load_ids(self, seen: SeenFilter, *, partition: int, partitions: int) -> None:
        await self._loader.load(seen, partition=partition, partitions=partitions)

    async def said(self, incarnation: str) -> dict[int, Said]:
        rows = await self._rows(
            "SELECT kafka_partition, next_offset, toUnixTimestamp64Milli(complete_until), toUnixTimestamp64Milli(reported_at)"
            f" FROM {tables.PROGRESS} WHERE incarnation = {{incarnation:String}}"
            " ORDER BY reported_at DESC LIMIT 1 BY kafka_partition",
            {"incarnation": incarnation},
        )
        return {
            partition: Said(next_offset=next_offset, complete_until_ms=complete_until_ms, reported_ms=reported_ms)
            for partition, next_offset, complete_until_ms, reported_ms in rows
        }

    async def report(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write the heartbeat of partitions: rows in the order of `_PROGRESS`."""
        names, kinds = list(_PROGRESS), list(_PROGRESS.values())
        settings = {"async_insert": 0}

        async def insert(client: AsyncClient) -> None:
            _own(await client.insert(tables.PROGRESS, rows, names, column_type_names=kinds, settings=settings))

        await self._call(insert)

    async def _rows(
        self, query: str, parameters: dict[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> Sequence[Sequence[Any]]:
        return await self._call(partial(_query, query, parameters, settings or {}))

    async def _load(self, query: str, parameters: dict[str, Any]) -> bytes:
        return await self._call(partial(_raw, query, parameters), timeout_s=_LOAD_PATIENCE * self._timeout_ms / 1000)

    async def _insert(self, table: str, block: bytes, batch: Batch) -> None:
        settings = {**_INSERT, "insert_deduplication_token": batch.token}

        async def insert(client: AsyncClient) -> None:
            # As a stream, which the client cannot send again by itself when the connection breaks: an engine that was killed
            # may remember the token of a block it has not, and the answer to a second try must be known for one.
            body = BytesIO(block)
            _own(await client.raw_insert(table, list(columns_of(block)), body, settings, fmt="ArrowStream"))

        await self._call(insert)

    async def _open(self) -> AsyncClient:
        async with self._opening:
            if self._client is None:
                self._client = await async_client(self._url, read_timeout_s=self._timeout_ms / 1000, compress=False)
            return self._client

    async def _call(self, call: Callable[[AsyncClient], Awaitable[T]], *, timeout_s: float | None = None) -> T:
        """Call within a time: the client's own limit is one of silence, which an answer that comes in drops escapes."""
        limit_s = self._timeout_ms / 1000 if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await call(await self._open())
        except TimeoutError as error:
            raise StoreUnavailable(f"ClickHouse: no answer within {limit_s:g} s") from error
        except _FAILURES as error:
            raise StoreUnavailable(
                f"ClickHouse: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}"
            ) from error
        except _UNREADABLE as error:
            raise StoreUnavailable(f"ClickHouse: its answer cannot be read ({error!r})") from error


def _own(summary: QuerySummary) -> None:
    """Believe an answer only if ClickHouse gave it: each of its answers names the query.

    Raises:
        StoreUnavailable: something else answered.
    """
    if not summary.query_id():
        raise StoreUnavailable("ClickHouse: something else answered in its place (no X-ClickHouse-Query-Id)")


async def _query(
    query: str, parameters: dict[str, Any] | None, settings: Mapping[str, Any], client: AsyncClient
) -> Sequence[Sequence[Any]]:
    result = await client.query(query, parameters, settings={"max_query_size": _QUERY_BYTES_MAX, **settings})
    _own(QuerySummary(result.summary))
    rows: Sequence[Sequence[Any]] = result.result_rows
    return rows


async def _mutate(query: str, parameters: dict[str, Any], client: AsyncClient) -> None:
    summary = await client.command(query, parameters, settings={"lightweight_deletes_sync": 2})
    _own(summary if isinstance(summary, QuerySummary) else QuerySummary({}))


async def _raw(query: str, parameters: dict[str, Any], client: AsyncClient) -> bytes:
    raw: bytes = await client.raw_query(query, parameters, fmt="RowBinary")
    return raw


def _range(batch: Batch) -> dict[str, Any]:
    return {
        "month": batch.month,
        "incarnation": batch.incarnation,
        "partition": batch.partition,
        "first": batch.first_offset,
        "next": batch.next_offset,
    }
