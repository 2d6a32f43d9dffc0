"""Route of failures: what failed, how often, whom it hit, why, and what to do."""

import time
from typing import Any, Final

import orjson
from starlette.requests import Request

from query_api.failures.causes import cause_of
from query_api.failures.groups import Group, Question, groups, statement
from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services
from query_api.http.members import Parameters
from query_api.http.usage import checked_range
from query_api.http.v1 import FILTERS, filters_of
from query_api.log_items import iso

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
_SINGLE: Final = ("from", "to", "limit")


async def failures(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer groups of failures, most calls first; without a range those of the 30 days before now, as usage."""
    tenant = caller.tenant()
    assert tenant is not None
    asked = Parameters(request.query_params.multi_items(), known=_SINGLE, repeated=FILTERS)
    question = _question(asked, now_ms=time.time_ns() // 1_000_000)
    asked.faults.check()
    # Before the data: what was complete by then is in the answer.
    progress = await services.freshness.get()
    found = groups(await services.reader.rows(statement(tenant, question)))
    body = {"groups": [_item(group) for group in found], "complete_until": iso(progress.complete_until_ms)}
    return Answer(body=orjson.dumps(body), complete_until_ms=progress.complete_until_ms)


def _question(asked: Parameters, *, now_ms: int) -> Question:
    """Read a question; what is wrong is in `asked.faults`, and the question then only fills the place."""
    from_ms, to_ms = checked_range(asked.instant("from"), asked.instant("to"), asked.faults, now_ms=now_ms)
    limit = asked.whole("limit", low=1, high=LIMIT_MAX, default=LIMIT_DEFAULT)
    return Question(from_ms=from_ms, to_ms=to_ms, limit=limit, filters=filters_of(asked))


def _item(group: Group) -> dict[str, Any]:
    cause = cause_of(group.failure_class, group.message)
    return {
        "failure_class": group.failure_class,
        "tool_slug": group.tool_slug,
        "message": group.message,
        "likely_cause": cause.likely_cause,
        "action": cause.action,
        "calls": group.calls,
        "share": group.share,
        "users": group.users,
        "first_seen": iso(group.first_seen_ms),
        "last_seen": iso(group.last_seen_ms),
        "example_log_id": group.example_log_id,
    }
