"""The ASGI application: finds the route, gives every request an id, answers every refusal with the Error body.

Bare ASGI, because at 100,000 events a second a framework's layers would cost as much as the work itself.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from ingest.contract.http_errors import request_id as make_request_id
from ingest.contract.logs import logger
from ingest.contract.metrics import HTTP_SECONDS
from ingest.contract.own_routes import is_own
from ingest.gateway.gateway import Gateway
from ingest.http.answers import Answer, ClientGone, Receive, Refused, Scope, Send, respond
from ingest.http.events import EventsRoute
from ingest.http.forward import Forwarder
from ingest.http.health import HealthRoutes
from ingest.http.traces import TracesRoute

log = logger(__name__)

# What proxies write into their logs for a client that did not wait.
_CLIENT_GONE: Final = 499
_READ: Final = ("GET", "HEAD")

Handler = Callable[[Scope, Mapping[bytes, bytes], Receive], Awaitable[Answer]]


class IngestApp:
    """Routes of our own by exact path; everything else goes to the gateway or the forwarder, where there is one."""

    def __init__(
        self,
        *,
        events: EventsRoute,
        traces: TracesRoute,
        health: HealthRoutes,
        forwarder: Forwarder | None,
        gateway: Gateway | None = None,
    ) -> None:
        self._routes: dict[str, tuple[tuple[str, ...], Handler]] = {
            "/v1/events": (("POST",), events),
            "/v1/traces": (("POST",), traces),
            "/healthz": (_READ, _plain(health.alive)),
            "/readyz": (_READ, _plain(health.ready)),
            "/metrics": (_READ, _plain(health.metrics)),
        }
        self._forwarder = forwarder
        self._gateway = gateway
        self._seconds: dict[tuple[str, int], Callable[[float], None]] = {}
        self._access_log = logging.getLogger(__name__).isEnabledFor(logging.DEBUG)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; ASGI."""
        assert scope["type"] == "http", "the server is set up for HTTP alone"
        began = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        request_id = make_request_id(None if given is None else given.decode("latin-1"))
        route: str = scope["path"]
        refused: Refused | None = None
        try:
            found = self._routes.get(route)
            if found is None and self._gateway is not None and not is_own(route):
                route = "gateway"
                status = await self._gateway(scope, receive, send, request_id)
            elif found is None:
                route = "forward"
                if self._forwarder is None:
                    raise Refused(404, f"there is nothing at {scope['path'][:200]}")
                status = await self._forwarder(scope, receive, send, request_id)
            else:
                methods, handler = found
                if scope["method"] not in methods:
                    raise Refused(
                        405,
                        f"{route} takes {' and '.join(methods)}, not {scope['method']}",
                        headers=((b"allow", ", ".join(methods).encode()),),
                    )
                answer = await handler(scope, headers, receive)
                status = answer.status
                await respond(send, answer, request_id, head=scope["method"] == "HEAD")
        except Refused as refusal:
            # Its traceback leads to this frame and to the body; kept in a variable here, both would wait for a collection.
            refused = refusal.with_traceback(None)
            refused.__context__ = None
            status = refusal.status
            await respond(send, refusal.answer(request_id), request_id, head=scope["method"] == "HEAD")
        except ClientGone:
            status = _CLIENT_GONE
        except Exception:
            status = 500
            refused = Refused(500, "something went wrong here; the log has it under this request id")
            log.exception("request_failed", request_id=request_id, method=scope["method"], path=scope["path"])
            await respond(send, refused.answer(request_id), request_id)
        seconds = time.perf_counter() - began
        self._observe(route, status, seconds)
        if refused is not None:
            log.warning(
                "request_refused",
                status=status,
                method=scope["method"],
                path=scope["path"],
                request_id=request_id,
                reason=refused.message,
            )
        elif self._access_log:
            log.debug(
                "request_answered",
                status=status,
                method=scope["method"],
                path=scope["path"],
                request_id=request_id,
                ms=round(seconds * 1000, 3),
            )

    def _observe(self, route: str, status: int, seconds: float) -> None:
        observe = self._seconds.get((route, status))
        if observe is None:
            observe = HTTP_SECONDS.labels("ingest", route, str(status)).observe
            self._seconds[route, status] = observe
        observe(seconds)


def _plain(answer: Callable[[], Answer]) -> Handler:
    async def handle(_scope: Scope, _headers: Mapping[bytes, bytes], _receive: Receive) -> Answer:
        return answer()

    return handle
