"""Route of the export: all logs of a selection and a range as one file, sent while it is made."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, cast

from starlette.requests import Request

from ingest.contract.errors import QueryError
from query_api.export.formats import FORMATS, MEDIA_TYPES, Encoder, Format, Packed, coding, encoder
from query_api.export.pages import bounds, pages
from query_api.export.sql import Export, Moment, total_statement
from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services
from query_api.http.members import Parameters
from query_api.http.selections import REPEATED, selection_of
from query_api.http.streaming import Content
from query_api.tenant import Tenant

TOTAL_HEADER: Final = "x-total-count"
_ASKED: Final = ("format", "from", "to", "data")
# Counting is a help for progress; a selection that is slow to find is not worth waiting for twice.
_TOTAL_S_MAX: Final = 3


async def export(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer a file of logs, newest first, as of the moment of the request."""
    tenant = caller.tenant()
    assert tenant is not None
    asked = Parameters(request.query_params.multi_items(), known=_ASKED, repeated=REPEATED)
    kind = cast(Format, asked.one_of("format", FORMATS, default="ndjson"))
    data = asked.one_of("data", ("true", "false"), default="false") == "true"
    from_ms, to_ms = asked.instant("from"), asked.instant("to")
    if from_ms is not None and to_ms is not None and from_ms > to_ms:
        asked.faults.add("from", f"{from_ms} must not be later than `to`, {to_ms}")
    selection = selection_of(asked)
    progress = await services.freshness.get()
    position = await services.proved.advance()
    moment = Moment(position=position, former=services.proved.former())
    wanted = Export(moment=moment, selection=selection, from_ms=from_ms, to_ms=to_ms, data=data)
    within = await bounds(services.reader, tenant, wanted)
    total = await _total(tenant, wanted, services)
    packed = coding(request.headers.get("accept-encoding", ""), kind)
    headers = {
        "content-disposition": f'attachment; filename="logs-{tenant.projects[0]}.{kind}"',
        "vary": "accept-encoding",
        **({TOTAL_HEADER: str(total)} if total is not None else {}),
        **({"content-encoding": packed} if packed else {}),
    }
    made = encoder(kind, wanted)
    parts = _parts(Packed(made, packed) if packed else made, pages(services.reader, tenant, wanted, within))
    services.exports.enter()
    content = Content(media_type=MEDIA_TYPES[kind], headers=headers, parts=parts, close=services.exports.leave)
    return Answer(content=content, complete_until_ms=progress.complete_until_ms)


async def _total(tenant: Tenant, wanted: Export, services: Services) -> int | None:
    try:
        rows = await services.reader.rows(total_statement(tenant, wanted), time_s_max=_TOTAL_S_MAX)
    except QueryError as error:
        if error.status != 504:
            raise
        return None
    return int(rows[0][0])


async def _parts(made: Encoder, read: AsyncGenerator[list[list[object]]]) -> AsyncGenerator[bytes]:
    # Beside the loop: making a page takes long enough to be felt by those who ask small questions.
    async with aclosing(read):
        async for rows in read:
            if part := await asyncio.to_thread(made.rows, rows):
                yield part
    if last := await asyncio.to_thread(made.end):
        yield last
