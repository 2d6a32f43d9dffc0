"""The route that tells what `toolledger verify` found the last time."""

from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request

from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services
from query_api.http.members import Parameters
from query_api.log_items import iso
from query_api.verification import COUNTS, LEDGER, project_statement


async def last(request: Request, caller: Caller, services: Services) -> Answer:
    """Answer when it last ran, whether everything was proved, and the part of the key's own project."""
    Parameters(request.query_params.multi_items(), known=(), repeated=()).faults.check()
    tenant = caller.tenant()
    assert tenant is not None
    progress = await services.freshness.get()
    ledger = await services.reader.system_rows(LEDGER, line=tenant.line)
    own = await services.reader.rows(project_statement(tenant)) if ledger else []
    body = {
        "verification": _outcome(ledger[0], own[0] if own else None) if ledger else None,
        "complete_until": iso(progress.complete_until_ms),
    }
    return Answer(body=orjson.dumps(body), complete_until_ms=progress.complete_until_ms)


def _outcome(ledger: Sequence[Any], own: Sequence[Any] | None) -> dict[str, Any]:
    at_ms, proved, of_no_project = ledger
    # A row of an earlier run says nothing about this one, in which the project had no events.
    counted = own if own is not None and own[0] == at_ms else None
    return {
        "verified_at": iso(at_ms),
        "verified_at_ms": at_ms,
        "proved": bool(proved),
        "totals": dict(zip(COUNTS, counted[1:-2], strict=True)) if counted else None,
        "findings": orjson.loads(counted[-2]) if counted else [],
        "findings_count": counted[-1] if counted else 0,
        "ledger_findings_count": of_no_project,
    }
