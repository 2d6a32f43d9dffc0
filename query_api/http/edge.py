"""What every route shares: the caller, the body, the headers of answers, and errors as the Error body."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ingest.contract.control import ControlFollower
from ingest.contract.errors import QueryError, TransportError
from ingest.contract.http_errors import REQUEST_ID_HEADER, error_body, request_id, slug_of
from ingest.contract.logs import logger
from ingest.contract.metrics import HTTP_SECONDS
from ingest.contract.replayer import Replayer
from query_api.export.places import Exports
from query_api.http.caller import Caller, org_caller, project_caller
from query_api.http.presence import Presence
from query_api.http.streaming import Content, Streamed
from query_api.live.hub import Tails
from query_api.live.proved import Proved
from query_api.log_items import iso
from query_api.past import Past
from query_api.progress import Freshness
from query_api.rate_limit import WINDOW_S, RateLimit, Standing
from query_api.settings import QuerySettings
from query_api.store import Reader

log = logger(__name__)

SERVICE: Final = "query"
COMPLETE_UNTIL_HEADER: Final = "x-complete-until"
SHOULD_RETRY_HEADER: Final = "x-should-retry"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What routes work with; made once in `query_api.run`."""

    settings: QuerySettings
    control: ControlFollower
    reader: Reader
    freshness: Freshness
    past: Past
    replayer: Replayer
    rate_limit: RateLimit
    proved: Proved
    tails: Tails
    exports: Exports


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a handler returns.

    Args:
        body: JSON; unused with `error`.
        error: a refusal that was found in the data, and so vouches for its freshness too.
        complete_until_ms: of an answer built from ClickHouse, read before the data.
        status: of an answer that is no error.
        content: in place of the body, one that is sent in parts.
    """

    body: bytes = b""
    content: Content | None = None
    error: QueryError | None = None
    complete_until_ms: int | None = None
    status: int = 200


Handler = Callable[[Request, Caller, Services], Awaitable[Answer]]


def endpoint(
    handler: Handler, services: Services, *, route: str, key: Literal["project", "org"]
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler: find the caller first, turn every error into the Error body, measure.

    Args:
        route: the path as a metric label.
        key: whose key the route takes.
    """
    identify = project_caller if key == "project" else org_caller

    async def answer(request: Request) -> Response:
        began = time.perf_counter()
        identity = request_id(request.headers.get(REQUEST_ID_HEADER))
        headers = _headers(identity, services.rate_limit.untouched())
        response: Response
        try:
            control = services.control
            caller = identify(request.scope["headers"], control.access, caught_up=control.caught_up.is_set())
            # Before the body is read or anything is asked: what is refused costs next to nothing.
            standing = services.rate_limit.take(caller.key_hash, now_s=time.monotonic())
            headers |= _rate_limit_headers(standing)
            if standing.retry_after_s:
                raise _rate_limited(standing)
            presence = Presence(request)
            async with presence.needed():
                result = await handler(Request(request.scope, presence.receive), caller, services)
            if result.complete_until_ms is not None:
                headers[COMPLETE_UNTIL_HEADER] = iso(result.complete_until_ms)
            if result.error is not None:
                raise result.error
            if result.content is not None:
                response = Streamed(result.content, headers)
            else:
                response = Response(result.body, result.status, media_type=_JSON, headers=headers)
        except ClientDisconnect:
            # Nobody is left to answer; the status is only for the metric.
            response = Response(status_code=499)
        except Exception as error:
            response = _refusal(error, identity, headers, services.settings, route)
        HTTP_SECONDS.labels(SERVICE, route, str(response.status_code)).observe(time.perf_counter() - began)
        return response

    return answer


def refusal(request: Request, status: int, message: str) -> Response:
    """Return the Error body for a request that no route takes."""
    identity = request_id(request.headers.get(REQUEST_ID_HEADER))
    log.info("request_refused", route="", request_id=identity, status=status, slug=slug_of(status))
    body = error_body(status=status, message=message, request_id=identity)
    return Response(body, status, media_type=_JSON, headers={REQUEST_ID_HEADER: identity})


async def read_body(request: Request, *, bytes_max: int) -> bytes:
    """Return the body.

    Raises:
        QueryError: 413 with the limit; 415 for a packed one: questions are small.
    """
    encoding = request.headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise QueryError(415, slug_of(415), f"The content-encoding {encoding[:50]!r} is not taken here: send the body as it is")
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise QueryError(413, slug_of(413), f"The body is larger than the {bytes_max} bytes that are taken")
        parts.append(part)
    return b"".join(parts)


def _headers(identity: str, standing: Standing) -> dict[str, str]:
    # Answers hold one project's data and change by the second.
    return {REQUEST_ID_HEADER: identity, "cache-control": "no-store", **_rate_limit_headers(standing)}


def _rate_limit_headers(standing: Standing) -> dict[str, str]:
    return {
        "X-RateLimit": str(standing.limit),
        "X-RateLimit-Remaining": str(standing.remaining),
        "X-RateLimit-Window-Size": f"{WINDOW_S}s",
    }


def _rate_limited(standing: Standing) -> QueryError:
    # The incumbent's own words, which clients' users know how to search for (CONTRACT 6).
    return QueryError(
        429,
        slug_of(429),
        f"Rate limit exceeded. Limit: {standing.limit} requests per 1 minutes",
        suggested_fix="Send it again after the seconds in Retry-After.",
        retry_after_s=standing.retry_after_s,
    )


def _refusal(error: Exception, identity: str, headers: dict[str, str], settings: QuerySettings, route: str) -> Response:
    """Return the Error body of an error; one that is nobody's but ours is logged with its trace and told without it."""
    if isinstance(error, TransportError):
        headers["Retry-After"] = str(settings.query_retry_after_s)
        known = QueryError(503, slug_of(503), str(error))
    elif isinstance(error, QueryError):
        known = error
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # Too slow, or never to be answered: official clients ask twice more after any 5xx, unless they are told not to.
            headers[SHOULD_RETRY_HEADER] = "false"
    else:
        log.error("request_failed", route=route, request_id=identity, exc_info=error)
        known = QueryError(500, slug_of(500), "The service made a mistake; its log says which, under this request id")
    log.info("request_refused", route=route, request_id=identity, status=known.status, slug=known.slug)
    body = error_body(
        status=known.status,
        message=known.message,
        request_id=identity,
        slug=known.slug,
        suggested_fix=known.suggested_fix,
        errors=known.errors,
    )
    return Response(body, known.status, media_type=_JSON, headers=headers)
