"""Routes of usage as the incumbent has them: CONTRACT sections 4 and 5, and the spelling of the observability document."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import Request

from ingest.contract.errors import QueryError
from query_api.http import members
from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services, read_body
from query_api.http.members import Faults
from query_api.store import TOO_LARGE, Row
from query_api.tenant import Tenant
from query_api.usage import sql
from query_api.usage.answer import Answer as UsageAnswer
from query_api.usage.answer import answer
from query_api.usage.grains import DAY_MS
from query_api.usage.question import RANGE_DAYS_MAX, Metric, Order, Question

ENTITY_TYPES: Final = ("tool_calls", "sessions")
UNIT: Final = "count"
LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
DEFAULT_RANGE_DAYS: Final = 30
# As many as an answer of groups may name, so that what was answered can be asked about.
FILTER_VALUES_MAX: Final = LIMIT_MAX

_METRIC: Final[dict[str, Metric]] = {"tool_calls": "calls", "sessions": "sessions"}
GROUPS_OF: Final = {
    "tool_calls": ("tool_slug", "toolkit_slug", "connected_account_id", "user_id", "session_id"),
    "sessions": ("user_id",),
}
# The observability document breaks calls down by entity: each is a grouping of tool calls.
ENTITY_GROUPS: Final = {"tool": "tool_slug", "toolkit": "toolkit_slug", "user": "user_id", "session": "session_id"}
ORDERS: Final = ("key", "total_quantity", "event_count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What summary and breakdown have in common."""

    from_ms: int
    to_ms: int
    filters: dict[str, tuple[str, ...]]
    projects: tuple[str, ...]


def summary(*, org: bool) -> Callable[[Request, Caller, Services], Awaitable[Answer]]:
    """Return the handler of `/usage/summary`."""

    async def handler(request: Request, caller: Caller, services: Services) -> Answer:
        faults = Faults("payload")
        body = members.json_object(await read_body(request, bytes_max=services.settings.query_body_bytes_max), faults)
        asked = _asked(body, faults, org=org)
        entities = members.texts(body.get("entity_types"), "entity_types", faults, most=FILTER_VALUES_MAX) or ENTITY_TYPES
        for entity in entities:
            if entity not in ENTITY_TYPES:
                faults.add("entity_types", f"must be of {', '.join(ENTITY_TYPES)}")
                break
        faults.check()
        question = Question(
            from_ms=asked.from_ms,
            to_ms=asked.to_ms,
            metrics=frozenset(_METRIC[entity] for entity in entities),
            order=Order(by="key", descending=False),
            limit=1,
            filters=asked.filters,
        )
        found, complete_until_ms = await ask(question, caller.tenant(asked.projects), services)
        quantities = {entity: _quantity(found.totals[_METRIC[entity]]) | {"unit": UNIT} for entity in entities}
        return _answer({"entities": quantities, "instant_charge": "0"}, complete_until_ms)

    return handler


def breakdown(*, org: bool) -> Callable[[Request, Caller, Services], Awaitable[Answer]]:
    """Return the handler of `/usage/{entity_type}`."""

    async def handler(request: Request, caller: Caller, services: Services) -> Answer:
        faults = Faults("payload")
        body = members.json_object(await read_body(request, bytes_max=services.settings.query_body_bytes_max), faults)
        asked = _asked(body, faults, org=org)
        entity = request.path_params["entity_type"]
        metric, group = _grouping(entity, body.get("group_by"), faults, org=org)
        by = members.one_of(body.get("order_by"), "order_by", faults, ORDERS, default="total_quantity")
        direction = members.one_of(body.get("order_direction"), "order_direction", faults, ("asc", "desc"), default="desc")
        limit = members.whole(body.get("limit"), "limit", faults, low=1, high=LIMIT_MAX, default=LIMIT_DEFAULT)
        faults.check()
        question = Question(
            from_ms=asked.from_ms,
            to_ms=asked.to_ms,
            metrics=frozenset((metric,)),
            order=Order(by="key" if by == "key" else metric_order(metric), descending=direction == "desc"),
            limit=limit,
            group_by=(group,),
            filters=asked.filters,
        )
        found, complete_until_ms = await ask(question, caller.tenant(asked.projects), services)
        groups = [{"key": one.key[0]} | _quantity(one.metrics[metric]) for one in found.groups]
        totals = {"entity_type": entity, "unit": UNIT} | _quantity(found.totals[metric])
        return _answer(totals | {"groups": groups}, complete_until_ms)

    return handler


def metric_order(metric: Metric) -> Any:
    """Return what orders by a count."""
    return "calls" if metric == "calls" else "sessions"


async def ask(question: Question, tenant: Tenant | None, services: Services) -> tuple[UsageAnswer, int]:
    """Return a question's answer, and until when it is complete: read first, so that the data is at least as fresh."""
    progress = await services.freshness.get()
    rows = [] if tenant is None else await _rows(question, tenant, services)
    return answer(question, rows), progress.complete_until_ms


async def _rows(question: Question, tenant: Tenant, services: Services) -> list[Row]:
    may_spare = sql.can_spare(question)
    if not (may_spare and (await services.past.of(tenant)).outweigh(question.from_ms, question.to_ms)):
        try:
            return await services.reader.rows(sql.statement(tenant, question))
        except QueryError as error:
            # Sessions from before the range may fill the memory however short it is: asking for a shorter one would not help.
            if error.slug != TOO_LARGE or not may_spare:
                raise
    return await services.reader.rows(sql.statement(tenant, question, sparing=True))


def checked_range(from_ms: int | None, to_ms: int | None, faults: Faults, *, now_ms: int) -> tuple[int, int]:
    """Return the range asked for; by default the 30 days before `to`, which by default is now."""
    to_ms = now_ms if to_ms is None else to_ms
    from_ms = max(0, to_ms - DEFAULT_RANGE_DAYS * DAY_MS) if from_ms is None else from_ms
    if from_ms > to_ms:
        faults.add("from", f"{from_ms} must not be later than `to`, {to_ms}")
    elif to_ms - from_ms > RANGE_DAYS_MAX * DAY_MS:
        faults.add("from", f"the range is longer than {RANGE_DAYS_MAX} days: ask for a shorter one")
    return from_ms, to_ms


def _asked(body: dict[str, Any], faults: Faults, *, org: bool) -> Asked:
    # Flat members as the contract has them; `time_range` as the observability document writes it. Flat ones win.
    nested = members.objects(body.get("time_range"), "time_range", faults)
    bounds: dict[str, int | None] = {}
    for name in ("from", "to"):
        flat = members.instant(body.get(name), name, faults)
        within = members.instant(nested.get(name), f"time_range.{name}", faults)
        bounds[name] = within if flat is None else flat
    from_ms, to_ms = checked_range(bounds["from"], bounds["to"], faults, now_ms=time.time_ns() // 1_000_000)
    given = members.objects(body.get("filters"), "filters", faults)
    filters = {}
    for name in ("user_id", "session_id"):
        values = members.texts(given.get(name), f"filters.{name}", faults, most=FILTER_VALUES_MAX)
        if values:
            filters[name] = values
    # Project routes take the member and ignore it: the key has decided already.
    projects = members.texts(given.get("project_id"), "filters.project_id", faults, most=FILTER_VALUES_MAX) if org else ()
    return Asked(from_ms=from_ms, to_ms=to_ms, filters=filters, projects=projects)


def _grouping(entity: str, group_by: Any, faults: Faults, *, org: bool) -> tuple[Metric, str]:
    """Return what is counted and by what it is grouped."""
    metered = "tool_calls" if entity in ENTITY_GROUPS else entity
    if metered not in GROUPS_OF:
        known = ", ".join((*ENTITY_TYPES, *ENTITY_GROUPS))
        faults.add("entity_type", f"must be one of {known}")
        return "calls", "tool_slug"
    if entity in ENTITY_GROUPS:
        allowed: tuple[str, ...] = (ENTITY_GROUPS[entity],)
    else:
        allowed = (*GROUPS_OF[metered], "project_id") if org else GROUPS_OF[metered]
    return _METRIC[metered], members.one_of(group_by, "group_by", faults, allowed, default=allowed[0])


def _quantity(count: int) -> dict[str, Any]:
    return {"total_quantity": str(count), "event_count": count}


def _answer(body: dict[str, Any], complete_until_ms: int) -> Answer:
    return Answer(body=orjson.dumps(body), complete_until_ms=complete_until_ms)
