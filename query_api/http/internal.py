"""Routes of older clients and of the vendor's command line: CONTRACT section 8."""

import math
from dataclasses import replace
from typing import Any, Final

import orjson
from starlette.requests import Request

from ingest.contract.errors import QueryError
from ingest.contract.http_errors import slug_of
from query_api import internal_items, internal_logs, log_items
from query_api.filters import FILTERS_MAX
from query_api.http import members
from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services, read_body
from query_api.http.members import Faults
from query_api.internal_items import FIELDS, OPERATIONS
from query_api.internal_logs import Behind, Cursor, Listing
from query_api.logs import ITEM_COLUMNS, detail_statement
from query_api.store import TOO_LARGE, Row
from query_api.tenant import Tenant

# What the command line asks for unless told.
LIMIT_DEFAULT: Final = 30
LIMIT_MAX: Final = 1000
# A list of values comes as one condition a value.
CONDITIONS_MAX: Final = 20 * FILTERS_MAX

TRIGGER_TIMES: Final = ("5m", "30m", "6h", "1d", "1w", "1month", "1y")
TRIGGER_STATUS: Final = ("all", "success", "error")


async def listing(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer one page of logs, newest first."""
    faults = Faults("payload")
    body = members.json_object(await read_body(request, bytes_max=services.settings.query_body_bytes_max), faults)
    asked = _listing(body, faults)
    cursor = _cursor(body.get("cursor"), faults)
    faults.check()
    tenant = _tenant(caller)
    # Before the data: what was complete by then is in the answer.
    progress = await services.freshness.get()
    behind = None if cursor is None else await _behind(tenant, asked, cursor, services)
    rows, following = await _page(tenant, asked, behind, services)
    logs = [log_items.values_of(row[: len(ITEM_COLUMNS)]) for row in rows]
    answer = {"data": [internal_items.item(one) for one in logs], "nextCursor": following and following.number()}
    return Answer(body=orjson.dumps(answer), complete_until_ms=progress.complete_until_ms)


async def detail(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer one log in full; another project's is as unknown as one that never was."""
    progress = await services.freshness.get()
    rows = await services.reader.rows(detail_statement(_tenant(caller), request.path_params["id"]))
    if not rows:
        error = QueryError(404, slug_of(404), "Log not found")
        return Answer(error=error, complete_until_ms=progress.complete_until_ms)
    found = internal_items.detail(log_items.values_of(rows[0]))
    return Answer(body=orjson.dumps(found), complete_until_ms=progress.complete_until_ms)


async def fields(_request: Request, _caller: Caller, _services: Services) -> Answer:
    """Answer what a listing can be searched by."""
    return Answer(body=orjson.dumps(internal_items.fields()))


async def triggers(request: Request, _caller: Caller, services: Services) -> Answer:
    """Answer that there are no trigger logs: only tool executions are recorded here. A wrong question is still refused."""
    faults = Faults("payload")
    body = members.json_object(await read_body(request, bytes_max=services.settings.query_body_bytes_max), faults)
    members.one_of(body.get("time"), "time", faults, TRIGGER_TIMES, default="1d")
    members.one_of(body.get("status"), "status", faults, TRIGGER_STATUS, default="all")
    members.whole(body.get("limit"), "limit", faults, low=1, high=LIMIT_MAX, default=LIMIT_DEFAULT)
    _range(body, faults)
    faults.check()
    return Answer(body=orjson.dumps({"data": []}))


async def trigger(_request: Request, _caller: Caller, _services: Services) -> Answer:
    """Answer that there is no such trigger log."""
    raise QueryError(404, slug_of(404), "Trigger log not found: only tool executions are recorded here")


async def _behind(tenant: Tenant, asked: Listing, cursor: Cursor, services: Services) -> Behind:
    if not cursor.landmark:
        return Behind(at_ms=cursor.at_ms)
    ((log_id, count),) = await services.reader.rows(internal_logs.named_statement(tenant, asked, cursor))
    # A row that is gone (its retention ended, or another question was asked) names no place: that millisecond is given again.
    return Behind(at_ms=cursor.at_ms, id=log_id) if count else Behind(at_ms=cursor.at_ms + 1)


async def _page(tenant: Tenant, asked: Listing, behind: Behind | None, services: Services) -> tuple[list[Row], Cursor | None]:
    ask = services.reader.rows
    limit, rows = await services.reader.page(
        lambda limit: internal_logs.page_statement(tenant, replace(asked, limit=limit), behind), asked.limit
    )
    last = internal_logs.last(rows, limit)
    page = rows[:limit]
    if last is None:
        return page, internal_logs.following(rows, limit)
    unique = frozenset(landmark for (landmark,) in await ask(internal_logs.landmarks_statement(tenant, asked, last.at_ms)))
    rest = [] if page[-1][-1] in unique else await ask(internal_logs.rest_statement(tenant, asked, last))
    cut = internal_logs.cut([page[-1], *rest], unique)
    if cut is None:
        narrow = "Ask for fewer with search_params, or page with POST /api/v3.1/logs/tool_execution, which has no such bound."
        message = f"More logs share one millisecond than a cursor that is a number can tell apart. {narrow}"
        raise QueryError(400, TOO_LARGE, message, suggested_fix=narrow)
    size, cursor = cut
    return page + rest[: size - 1], cursor


def _listing(body: dict[str, Any], faults: Faults) -> Listing:
    limit = members.whole(body.get("limit"), "limit", faults, low=1, high=LIMIT_MAX, default=LIMIT_DEFAULT)
    case_sensitive = body.get("case_sensitive")
    if case_sensitive is not None and not isinstance(case_sensitive, bool):
        faults.add("case_sensitive", f"must be a boolean, not {members.kind(case_sensitive)}")
    equal: dict[str, list[str]] = {}
    others: list[tuple[str, str, str]] = []
    for column, operator, value in _conditions(body.get("search_params"), faults):
        if operator == "==":
            equal.setdefault(column, []).append(value)
        else:
            others.append((column, operator, value))
    from_ms, to_ms = _range(body, faults)
    return Listing(limit=limit, equal=equal, others=others, case_sensitive=case_sensitive, from_ms=from_ms, to_ms=to_ms)


def _conditions(value: Any, faults: Faults) -> list[tuple[str, str, str]]:
    if value is None:
        return []
    if not isinstance(value, list):
        faults.add("search_params", f"must be an array, not {members.kind(value)}")
        return []
    if len(value) > CONDITIONS_MAX:
        faults.add("search_params", f"holds {len(value)} conditions; at most {CONDITIONS_MAX} are taken")
        return []
    found = []
    for index, given in enumerate(value):
        path = f"search_params.{index}"
        if not isinstance(given, dict):
            faults.add(path, f"must be an object, not {members.kind(given)}")
            continue
        name, operation, text = members.members(given, "field", "operation", "value")
        operation, text = "==" if operation is None else operation, "" if text is None else text
        if not isinstance(name, str) or name not in FIELDS:
            faults.add(f"{path}.field", f"must be one of {', '.join(FIELDS)}")
        elif not isinstance(operation, str) or operation not in OPERATIONS:
            faults.add(f"{path}.operation", f"must be one of {', '.join(OPERATIONS)}")
        elif not isinstance(text, str):
            faults.add(f"{path}.value", f"must be a string, not {members.kind(text)}")
        else:
            found.append((FIELDS[name], OPERATIONS[operation], text))
    return found


def _cursor(value: Any, faults: Faults) -> Cursor | None:
    """Return the cursor; 0, null and absent are the newest."""
    if value is None or (value == 0 and not isinstance(value, bool)):
        return None
    wrong = "not a cursor of this listing: pass nextCursor as it came, or 0 for the newest"
    if isinstance(value, bool) or not isinstance(value, int | float):
        faults.add("cursor", f"must be a number, not {members.kind(value)}")
        return None
    cursor = internal_logs.parse(value) if math.isfinite(value) else None
    if cursor is None:
        faults.add("cursor", wrong)
    return cursor


def _range(body: dict[str, Any], faults: Faults) -> tuple[int | None, int | None]:
    from_ms = members.instant(body.get("from"), "from", faults)
    to_ms = members.instant(body.get("to"), "to", faults)
    if from_ms is not None and to_ms is not None and from_ms > to_ms:
        faults.add("from", f"{from_ms} must not be later than `to`, {to_ms}")
    return from_ms, to_ms


def _tenant(caller: Caller) -> Tenant:
    tenant = caller.tenant()
    assert tenant is not None
    return tenant
