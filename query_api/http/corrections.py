"""Route of corrections: what closed windows gained from late events."""

from typing import Final

import msgspec
import orjson
from starlette.requests import Request

from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services
from query_api.http.members import AT_MS_MAX, Parameters
from query_api.http.v1 import FILTERS, LIMIT_DEFAULT, LIMIT_MAX, filters_of, group_by_of
from query_api.log_items import iso
from query_api.paging import Seal
from query_api.tenant import Tenant
from query_api.usage.corrections import Place, Question, page, statement

_SINGLE: Final = ("from", "to", "window_from", "window_to", "order_direction", "limit", "cursor")


class _Cursor(msgspec.Struct, array_like=True, frozen=True):
    """What a cursor holds: until when the first page was complete, and the last row of this one."""

    complete_until_ms: int
    window_start_ms: int
    key: tuple[str, ...]


_decode_cursor = msgspec.msgpack.Decoder(_Cursor).decode


async def corrections(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer corrections by window and group, for moments that are complete."""
    tenant = caller.tenant()
    assert tenant is not None
    asked = Parameters(request.query_params.multi_items(), known=_SINGLE, repeated=("group_by", *FILTERS))
    question = _question(asked)
    seal = _seal(tenant, services.settings.cursor_secret.get_secret_value(), question)
    cursor = _cursor(asked, seal)
    asked.faults.check()
    if cursor is None:
        # Before the data: what was complete by then is in the answer.
        until_ms, after = (await services.freshness.get()).complete_until_ms, None
    else:
        # All pages hold to what the first one saw, or a page would begin in another answer.
        until_ms, after = cursor.complete_until_ms, Place(window_start_ms=cursor.window_start_ms, key=cursor.key)
    question = question.until(until_ms, after=after)
    found = page(question, await services.reader.rows(statement(tenant, question)))
    last = found.following
    following = None if last is None else seal.write(msgspec.msgpack.encode(_Cursor(until_ms, last.window_start_ms, last.key)))
    body = {
        "from": question.from_ms,
        "to": question.to_ms,
        "group_by": question.group_by,
        "rows": found.rows,
        "totals": found.totals,
        "next_cursor": following,
        "complete_until": iso(until_ms),
    }
    return Answer(body=orjson.dumps(body), complete_until_ms=until_ms)


def _question(asked: Parameters) -> Question:
    """Read a question; what is wrong is in `asked.faults`, and the question then only fills the place."""
    from_ms, to_ms = asked.instant("from") or 0, asked.instant("to")
    window_from_ms, window_to_ms = asked.instant("window_from"), asked.instant("window_to")
    to_ms = AT_MS_MAX if to_ms is None else to_ms
    if from_ms > to_ms:
        asked.faults.add("from", f"{from_ms} must not be later than `to`, {to_ms}")
    if window_from_ms is not None and window_to_ms is not None and window_from_ms > window_to_ms:
        asked.faults.add("window_from", f"{window_from_ms} must not be later than `window_to`, {window_to_ms}")
    return Question(
        from_ms=from_ms,
        to_ms=to_ms,
        window_from_ms=window_from_ms,
        window_to_ms=window_to_ms,
        group_by=group_by_of(asked),
        filters=filters_of(asked),
        limit=asked.whole("limit", low=1, high=LIMIT_MAX, default=LIMIT_DEFAULT),
        descending=asked.one_of("order_direction", ("asc", "desc"), default="asc") == "desc",
    )


def _seal(tenant: Tenant, secret: str, asked: Question) -> Seal:
    """Bind cursors to all that decides which rows there are and how they are ordered, the limit apart."""
    bound = [asked.from_ms, asked.to_ms, asked.window_from_ms, asked.window_to_ms, asked.group_by, asked.descending]
    filters = [[name, sorted(values)] for name, values in sorted(asked.filters.items())]
    return Seal(secret=secret, tenant=tenant, question=["corrections.1", *bound, filters])


def _cursor(asked: Parameters, seal: Seal) -> _Cursor | None:
    given = asked.text("cursor")
    if given is None:
        return None
    place = seal.read(given)
    if place is None:
        text = "not a cursor of this question: pass next_cursor as it came, with the same key and parameters"
        asked.faults.add("cursor", text)
        return None
    return _decode_cursor(place)
