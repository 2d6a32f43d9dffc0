"""Read an export page by page: bounded in rows, bytes and time, whatever is asked for and however many logs there are.

A page that is too large is asked for again with fewer rows; one that takes too long, because few logs fit, for a shorter time.
Between two pages nothing is held in ClickHouse, so a reader may take its time.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from ingest.contract.errors import QueryError, StoreUnavailable
from ingest.contract.logs import logger
from query_api.export.sql import Export, bounds_statement, page_statement
from query_api.paging import Place
from query_api.store import PAGE_BYTES_MAX, TOO_LARGE, Reader, Row
from query_api.tenant import Tenant

log = logger(__name__)

_ROWS_FIRST: Final = 1_000
_ROWS_MAX: Final = 4_000
# ClickHouse may be started again under an export that takes minutes.
_TRIES: Final = 8
_PAUSE_S: Final = 0.5
_PAUSE_S_MAX: Final = 8.0


async def bounds(reader: Reader, tenant: Tenant, export: Export) -> tuple[int, int] | None:
    """Return the range of times that hold logs, `[from, to)` in epoch ms; None where there are none."""
    first_ms, last_ms = (await reader.rows(bounds_statement(tenant, export)))[0]
    # Of no row both are the smallest time there is.
    return (first_ms, last_ms + 1) if last_ms > 0 else None


async def pages(reader: Reader, tenant: Tenant, export: Export, within: tuple[int, int] | None) -> AsyncGenerator[list[Row]]:
    """Give all logs, newest first.

    Args:
        within: as of `bounds`.

    Raises:
        StoreUnavailable: ClickHouse stayed away.
        QueryError: as `Reader.rows`, where not even one row or one millisecond can be had.
    """
    if within is None:
        return
    first_ms, high_ms = within
    low_ms, after = first_ms, None
    limit, most, failures = _ROWS_FIRST, _ROWS_MAX, 0
    while True:
        statement = page_statement(tenant, export, from_ms=low_ms, to_ms=high_ms, after=after, limit=limit)
        try:
            rows = await reader.rows(statement, bytes_max=PAGE_BYTES_MAX)
        except (QueryError, StoreUnavailable) as error:
            upper_ms = high_ms if after is None else after.timestamp_ms + 1
            if isinstance(error, StoreUnavailable) or error.status == 429:
                failures += 1
                if failures == _TRIES:
                    raise
                log.info("export_waits", project=tenant.projects[0], error=str(error))
                await asyncio.sleep(min(_PAUSE_S_MAX, _PAUSE_S * 2**failures))
            elif error.slug == TOO_LARGE and limit > 1:
                limit = most = max(1, limit // 2)
            elif error.status == 504 and upper_ms - low_ms > 1:
                low_ms = upper_ms - (upper_ms - low_ms) // 2
            else:
                raise
            continue
        failures = 0
        if rows:
            yield rows
        if len(rows) == limit:
            after = Place(timestamp_ms=rows[-1][1], id=rows[-1][0])
        elif low_ms <= first_ms:
            return
        else:
            # The next part of the range, twice as long: it was short because it had to be.
            high_ms, low_ms, after = low_ms, max(first_ms, low_ms - 2 * (high_ms - low_ms)), None
        limit, most = min(2 * limit, most), min(_ROWS_MAX, most + most // 8 + 1)
