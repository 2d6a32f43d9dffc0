"""All routes of the query service in one table."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from query_api.http import (
    corrections,
    dashboard,
    docs,
    export,
    failures,
    internal,
    key,
    letters,
    logs,
    stream,
    usage,
    v1,
    verification,
)
from query_api.http.edge import Handler, Services, endpoint, refusal
from query_api.http.health import Health
from query_api.openapi import page_routes

LOGS: Final = "/api/v3.1/logs/tool_execution"
PROJECT_USAGE: Final = "/api/v3.1/project/usage"
ORG_USAGE: Final = "/api/v3.1/org/usage"
INTERNAL: Final = "/api/v3.1/internal"
_PATH_CHARS_SHOWN: Final = 200


class Operation(NamedTuple):
    """One route that takes a key.

    Args:
        path: as Starlette writes it.
        key: whose key it takes.
    """

    method: str
    path: str
    handler: Handler
    key: Literal["project", "org"]


OPERATIONS: Final = (
    Operation("POST", LOGS, logs.search, "project"),
    # An id may hold a slash, which clients send as %2F.
    Operation("GET", LOGS + "/{id:path}", logs.detail, "project"),
    Operation("POST", PROJECT_USAGE + "/summary", usage.summary(org=False), "project"),
    Operation("POST", PROJECT_USAGE + "/{entity_type}", usage.breakdown(org=False), "project"),
    Operation("POST", ORG_USAGE + "/summary", usage.summary(org=True), "org"),
    Operation("POST", ORG_USAGE + "/{entity_type}", usage.breakdown(org=True), "org"),
    Operation("POST", INTERNAL + "/action_execution/logs", internal.listing, "project"),
    Operation("GET", INTERNAL + "/action_execution/fields", internal.fields, "project"),
    Operation("GET", INTERNAL + "/action_execution/log/{id:path}", internal.detail, "project"),
    Operation("POST", INTERNAL + "/trigger/logs", internal.triggers, "project"),
    Operation("GET", INTERNAL + "/trigger/log/{id:path}", internal.trigger, "project"),
    Operation("GET", "/v1/usage", v1.usage, "project"),
    Operation("GET", "/v1/usage/corrections", corrections.corrections, "project"),
    Operation("GET", "/v1/failures", failures.failures, "project"),
    Operation("GET", "/v1/logs/export", export.export, "project"),
    Operation("GET", "/v1/logs/stream", stream.stream, "project"),
    Operation("GET", "/v1/freshness", v1.freshness, "project"),
    Operation("GET", "/v1/verification", verification.last, "project"),
    Operation("GET", "/v1/key", key.key, "project"),
    Operation("GET", "/v1/dead-letters", letters.page, "project"),
    Operation("GET", "/v1/dead-letters/{id}", letters.detail, "project"),
    Operation("POST", "/v1/dead-letters/{id}/replay", letters.send_back, "project"),
)


def application(services: Services) -> Starlette:
    """Return the ASGI application; it neither starts nor stops the services it is given."""
    table = [
        _route(path, endpoint(handler, services, route=path.replace(":path", ""), key=key), methods=[method])
        for method, path, handler, key in OPERATIONS
    ]
    health = Health(services)
    table += [
        _route(page_routes.DOCUMENT, docs.document),
        _route(page_routes.PAGE, docs.page),
        _route(dashboard.PAGE, dashboard.page),
        _route(dashboard.FILES, dashboard.file),
        _route("/healthz", health.healthz),
        _route("/readyz", health.readyz),
        _route("/metrics", health.metrics),
    ]
    made = Starlette(routes=table, exception_handlers={HTTPException: _unrouted})
    # A slash too many is another path. A redirect would name the address the client gave, and is no Error body.
    made.router.redirect_slashes = False
    return made


def _route(path: str, handler: Callable[[Request], Awaitable[Response]], *, methods: Sequence[str] = ("GET",)) -> Route:
    """Return a route whose path is matched to its very end, line feeds in an id included, and one behind the path not."""
    made = Route(path, handler, methods=methods)
    made.path_regex = re.compile(made.path_regex.pattern.removesuffix("$") + r"\Z", re.DOTALL)
    return made


async def _unrouted(request: Request, error: Exception) -> Response:
    """Answer what no route takes: 404, or 405 with the methods that are."""
    assert isinstance(error, HTTPException)
    message = (
        f"No such route: {request.method} {request.url.path[:_PATH_CHARS_SHOWN]}"
        if error.status_code == 404
        else f"{request.method} is not taken here"
    )
    response = refusal(request, error.status_code, message)
    response.headers.update(error.headers or {})
    return response
