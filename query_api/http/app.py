"""All routes of the query service in one table."""

from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from query_api.http import corrections, letters, logs, usage, v1
from query_api.http.edge import Services, endpoint, refusal
from query_api.http.health import Health

LOGS: Final = "/api/v3.1/logs/tool_execution"
PROJECT_USAGE: Final = "/api/v3.1/project/usage"
ORG_USAGE: Final = "/api/v3.1/org/usage"


def application(services: Services) -> Starlette:
    """Return the ASGI application; it neither starts nor stops the services it is given."""
    routes: list[tuple[str, str, Any, Any]] = [
        ("POST", LOGS, logs.search, "project"),
        # An id may hold a slash, which clients send as %2F.
        ("GET", LOGS + "/{id:path}", logs.detail, "project"),
        ("POST", PROJECT_USAGE + "/summary", usage.summary(org=False), "project"),
        ("POST", PROJECT_USAGE + "/{entity_type}", usage.breakdown(org=False), "project"),
        ("POST", ORG_USAGE + "/summary", usage.summary(org=True), "org"),
        ("POST", ORG_USAGE + "/{entity_type}", usage.breakdown(org=True), "org"),
        ("GET", "/v1/usage", v1.usage, "project"),
        ("GET", "/v1/usage/corrections", corrections.corrections, "project"),
        ("GET", "/v1/freshness", v1.freshness, "project"),
        ("GET", "/v1/dead-letters", letters.page, "project"),
        ("GET", "/v1/dead-letters/{id}", letters.detail, "project"),
        ("POST", "/v1/dead-letters/{id}/replay", letters.send_back, "project"),
    ]
    health = Health(services)
    table = [
        Route(path, endpoint(handler, services, route=path.replace(":path", ""), key=key), methods=[method])
        for method, path, handler, key in routes
    ]
    table += [
        Route("/healthz", health.healthz),
        Route("/readyz", health.readyz),
        Route("/metrics", health.metrics),
    ]
    return Starlette(routes=table, exception_handlers={HTTPException: _unrouted})


async def _unrouted(request: Request, error: Exception) -> Response:
    """Answer what no route takes: 404, or 405 with the methods that are."""
    assert isinstance(error, HTTPException)
    message = (
        f"No such route: {request.method} {request.url.path}"
        if error.status_code == 404
        else f"{request.method} is not taken here"
    )
    response = refusal(request, error.status_code, message)
    response.headers.update(error.headers or {})
    return response
