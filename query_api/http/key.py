"""The route by which a holder of a key finds out what it is good for."""

import orjson
from starlette.requests import Request

from query_api.http.caller import Caller
from query_api.http.edge import Answer, Services
from query_api.http.members import Parameters


async def key(request: Request, caller: Caller, _: Services) -> Answer:
    """Answer the key's project, and whether it may send as well as read."""
    asked = Parameters(request.query_params.multi_items(), known=(), repeated=())
    asked.faults.check()
    (project,) = caller.projects
    return Answer(body=orjson.dumps({"project_id": project, "scope": "full" if caller.may_write else "read"}))
