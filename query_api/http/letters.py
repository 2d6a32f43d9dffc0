"""Routes of dead letters: what could not become an event, of the key's project, and its way back."""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from starlette.requests import Request

from ingest.contract.errors import InvalidEvent, QueryError
from ingest.contract.http_errors import slug_of
from ingest.contract.replay import parse_letter_id, replay
from query_api import letter_items
from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services, read_body
from query_api.http.members import Parameters
from query_api.letters import MESSAGE_CHARS, Letters, known_statement, letter_statement, page_statement, replayed_statement
from query_api.log_items import iso
from query_api.paging import Cursors
from query_api.store import Row
from query_api.tenant import Tenant

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100
_ASKED: Final = ("from", "to", "reason", "limit", "cursor")
_UNKNOWN: Final = "Dead letter not found"


async def page(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer one page of dead letters, newest first."""
    tenant = _tenant(caller)
    asked = Parameters(request.query_params.multi_items(), known=_ASKED, repeated=())
    question, cursors = _question(asked, tenant, services.settings.cursor_secret.get_secret_value())
    progress = await services.freshness.get()
    rows = await services.reader.rows(page_statement(tenant, question))
    here = rows[: question.limit]
    replayed = await _replayed(tenant, here, services)
    following = cursors.write(letter_items.place_of(here[-1])) if len(rows) > question.limit else None
    body = {
        "dead_letters": [letter_items.item(row, replayed=replayed) for row in here],
        "next_cursor": following,
        "complete_until": iso(progress.complete_until_ms),
    }
    return Answer(body=orjson.dumps(body), complete_until_ms=progress.complete_until_ms)


async def detail(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer one dead letter in full; another project's is as unknown as one that never was."""
    tenant = _tenant(caller)
    Parameters(request.query_params.multi_items(), known=(), repeated=()).faults.check()
    progress = await services.freshness.get()
    row = await _row(tenant, request.path_params["id"], services)
    if row is None:
        return Answer(error=QueryError(404, slug_of(404), _UNKNOWN), complete_until_ms=progress.complete_until_ms)
    body = letter_items.item(row, replayed=await _replayed(tenant, [row], services))
    body["complete_until"] = iso(progress.complete_until_ms)
    return Answer(body=orjson.dumps(body), complete_until_ms=progress.complete_until_ms)


async def send_back(request: Request, caller: Caller, services: Services) -> Answer:
    """Replay one dead letter, as it is or with the body in its place; answered once Kafka has it."""
    if not caller.may_write:
        raise QueryError(403, slug_of(403), "This API key may only read; a replay sends events")
    tenant = _tenant(caller)
    Parameters(request.query_params.multi_items(), known=(), repeated=()).faults.check()
    mended = await read_body(request, bytes_max=services.settings.query_body_bytes_max)
    row = await _row(tenant, request.path_params["id"], services)
    if row is None:
        raise QueryError(404, slug_of(404), _UNKNOWN)
    letter = letter_items.letter(row, project_id=tenant.projects[0])
    incarnation, partitions = await services.replayer.topic()
    try:
        records = replay(letter, incarnation=incarnation, partitions=partitions, mended=mended if mended.strip() else None)
    except InvalidEvent as error:
        # A message may quote a whole member.
        said = f"{error.reason}: {error.message[:MESSAGE_CHARS]}"
        raise QueryError(
            400,
            "DeadLetter_NoEvent",
            f"It still cannot become an event: {said}",
            suggested_fix="Send the mended event, or an array of events, as the body.",
            errors=(f"Error in payload: {said}",),
        ) from None
    await services.replayer.send(records)
    return Answer(body=orjson.dumps({"id": letter.id, "ids": [one.event_id for one in records]}), status=202)


def _question(asked: Parameters, tenant: Tenant, secret: str) -> tuple[Letters, Cursors]:
    faults = asked.faults
    limit = asked.whole("limit", low=1, high=LIMIT_MAX, default=LIMIT_DEFAULT)
    from_ms, to_ms = asked.instant("from"), asked.instant("to")
    if from_ms is not None and to_ms is not None and from_ms > to_ms:
        faults.add("from", "must not be later than to")
    reason = asked.text("reason")
    cursors = Cursors(
        secret=secret, tenant=tenant, filters=(), from_ms=from_ms, to_ms=to_ms, of="dead_letters.1", asked=(reason or "",)
    )
    after = None
    if (cursor := asked.text("cursor")) is not None:
        after = cursors.read(cursor)
        if after is None:
            faults.add("cursor", "not a cursor of this question: pass next_cursor as it came, with the same key and parameters")
    faults.check()
    return Letters(limit=limit, from_ms=from_ms, to_ms=to_ms, reason=reason, after=after), cursors


def _tenant(caller: Caller) -> Tenant:
    tenant = caller.tenant()
    assert tenant is not None
    return tenant


async def _row(tenant: Tenant, given: str, services: Services) -> Row | None:
    place = parse_letter_id(given)
    if place is None:
        return None
    rows = await services.reader.rows(letter_statement(tenant, place))
    return rows[0] if rows else None


async def _replayed(tenant: Tenant, rows: Sequence[Row], services: Services) -> set[Any]:
    """Return ids of logs, and of dead letters that became logs."""
    if not rows:
        return set()
    at_ms = [letter_items.place_of(row).timestamp_ms for row in rows]
    letters = [letter_items.id_of(row) for row in rows]
    ids = sorted({one for row in rows for one in letter_items.ids_of(row)})
    found = await services.reader.rows(known_statement(tenant, ids))
    found += await services.reader.rows(replayed_statement(tenant, letters, first_ms=min(at_ms), last_ms=max(at_ms)))
    return {one for (one,) in found}
