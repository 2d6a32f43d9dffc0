"""Route of the live tail: Server-Sent Events, each log once, also over broken connections."""

from typing import Final

from starlette.requests import Request

from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services
from query_api.http.members import Parameters
from query_api.http.selections import REPEATED, selection_of
from query_api.http.streaming import Content
from query_api.live import position
from query_api.paging import Seal

LIMIT_MAX: Final = 1_000_000
LAST_EVENT_ID: Final = "last-event-id"
# Proxies that buffer would hold events back until they have many.
_HEADERS: Final = {"x-accel-buffering": "no"}


async def stream(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer logs as they become visible, without an end."""
    tenant = caller.tenant()
    assert tenant is not None
    asked = Parameters(request.query_params.multi_items(), known=("from", "limit"), repeated=REPEATED)
    selection = selection_of(asked)
    from_ms = asked.instant("from")
    limit = asked.whole("limit", low=1, high=LIMIT_MAX, default=0)
    secret = services.settings.cursor_secret.get_secret_value()
    seal = Seal(secret=secret, tenant=tenant, question=["stream.1", *selection.told()])
    after = None
    if given := request.headers.get(LAST_EVENT_ID):
        place = seal.read(given)
        if place is None:
            asked.faults.add(
                "Last-Event-ID", "not an id of this stream: send the last one as it came, with the same key and filters"
            )
        else:
            after = position.decode(place)
    asked.faults.check()
    progress = await services.freshness.get()
    tail = await services.tails.open(tenant, selection, seal.writer(), after=after, from_ms=from_ms, limit=limit)
    content = Content(
        media_type="text/event-stream; charset=utf-8",
        headers=_HEADERS,
        parts=tail.frames(),
        close=lambda: services.tails.close(tail),
    )
    return Answer(content=content, complete_until_ms=progress.complete_until_ms)
