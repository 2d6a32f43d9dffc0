"""Routes of logs: CONTRACT sections 2 and 3."""

import time
from dataclasses import replace
from typing import Any, Final, cast

import orjson
from starlette.requests import Request

from ingest.contract.errors import QueryError
from ingest.contract.http_errors import slug_of
from query_api import log_items
from query_api.filters import FIELDS, FILTERS_MAX, OPERATORS, Field, Filter, Operator, refusal
from query_api.http import members
from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services, read_body
from query_api.http.members import Faults
from query_api.logs import Search, detail_statement, newest_stretch, search_statement
from query_api.paging import Cursors
from query_api.store import Row
from query_api.tenant import Tenant

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100


async def search(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer one page of logs, newest first."""
    faults = Faults("payload")
    body = members.json_object(await read_body(request, bytes_max=services.settings.query_body_bytes_max), faults)
    tenant = caller.tenant()
    assert tenant is not None
    question, cursors = _search(body, tenant, services.settings.cursor_secret.get_secret_value(), faults)
    # Before the data: what was complete by then is in the answer.
    progress = await services.freshness.get()
    limit, rows = await _rows(tenant, question, services)
    page = rows[:limit]
    following = cursors.write(log_items.place_of(page[-1])) if len(rows) > limit else None
    answer = {"logs": [log_items.item(log_items.values_of(row)) for row in page], "next_cursor": following}
    return Answer(body=orjson.dumps(answer), complete_until_ms=progress.complete_until_ms)


async def detail(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer one log in full; another project's is as unknown as one that never was."""
    tenant = caller.tenant()
    assert tenant is not None
    progress = await services.freshness.get()
    rows = await services.reader.rows(detail_statement(tenant, request.path_params["id"]))
    if not rows:
        error = QueryError(404, slug_of(404), "Log not found")
        return Answer(error=error, complete_until_ms=progress.complete_until_ms)
    found = log_items.detail(log_items.values_of(rows[0]))
    return Answer(body=orjson.dumps(found), complete_until_ms=progress.complete_until_ms)


async def _rows(tenant: Tenant, question: Search, services: Services) -> tuple[int, list[Row]]:
    """Return how many rows are a page, and its rows: out of the newest ones if these fill it, else out of all."""

    async def ask(search: Search) -> tuple[int, list[Row]]:
        return await services.reader.page(lambda limit: search_statement(tenant, replace(search, limit=limit)), search.limit)

    newest = newest_stretch(question, now_ms=time.time_ns() // 1_000_000)
    if newest is not None:
        limit, rows = await ask(newest)
        if len(rows) > limit:
            return limit, rows
    return await ask(question)


def _search(body: dict[str, Any], tenant: Tenant, secret: str, faults: Faults) -> tuple[Search, Cursors]:
    limit = members.whole(body.get("limit"), "limit", faults, low=1, high=LIMIT_MAX, default=LIMIT_DEFAULT)
    filters = _filters(body.get("filters"), faults)
    from_ms, to_ms = _range(body.get("time_range"), faults)
    faults.check()
    cursors = Cursors(secret=secret, tenant=tenant, filters=filters, from_ms=from_ms, to_ms=to_ms)
    cursor = body.get("cursor")
    after = None
    if cursor is not None and cursor != "":
        after = cursors.read(cursor) if isinstance(cursor, str) else None
        if after is None:
            faults.add(
                "cursor",
                "not a cursor of this question: pass next_cursor as it came, with the same key, filters and time_range",
            )
    faults.check()
    return Search(limit=limit, filters=filters, after=after, from_ms=from_ms, to_ms=to_ms), cursors


def _filters(value: Any, faults: Faults) -> tuple[Filter, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        faults.add("filters", f"must be an array, not {members.kind(value)}")
        return ()
    if len(value) > FILTERS_MAX:
        faults.add("filters", f"holds {len(value)} filters; at most {FILTERS_MAX} are taken")
        return ()
    found = []
    for index, given in enumerate(value):
        path = f"filters.{index}"
        if not isinstance(given, dict):
            faults.add(path, f"must be an object, not {members.kind(given)}")
            continue
        field, operator, text = members.members(given, "field", "operator", "value")
        if not isinstance(field, str) or field not in FIELDS:
            faults.add(f"{path}.field", f"must be one of {', '.join(FIELDS)}")
        elif not isinstance(operator, str) or operator not in OPERATORS:
            faults.add(f"{path}.operator", f"must be one of {', '.join(OPERATORS)}")
        elif not isinstance(text, str):
            faults.add(f"{path}.value", f"must be a string, not {members.kind(text)}")
        elif (reason := refusal(field, text)) is not None:
            faults.add(f"{path}.value", reason)
        else:
            found.append(Filter(field=cast(Field, field), operator=cast(Operator, operator), value=text))
    return tuple(found)


def _range(value: Any, faults: Faults) -> tuple[int | None, int | None]:
    if value is None:
        return None, None
    given = members.objects(value, "time_range", faults)
    from_ms = members.instant(given.get("from"), "time_range.from", faults)
    to_ms = members.instant(given.get("to"), "time_range.to", faults)
    if isinstance(value, dict):
        for name in ("from", "to"):
            if given.get(name) is None:
                faults.add(f"time_range.{name}", "is required: epoch milliseconds")
    if from_ms is not None and to_ms is not None and from_ms > to_ms:
        faults.add("time_range", "from must not be later than to")
    return from_ms, to_ms
