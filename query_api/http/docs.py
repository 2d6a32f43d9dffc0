"""Routes of the API page and of the document behind it: made once, the same for everybody, without a key."""

import re
from functools import lru_cache
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ingest.contract.http_errors import REQUEST_ID_HEADER, request_id
from query_api.openapi.document import ADDRESS, api

# What may stand in the address of a page: a name or an IP, and a port.
_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:\d{1,5})?")
_HEADERS: Final = {
    "cache-control": "max-age=60",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


async def document(request: Request) -> Response:
    """Answer the API as OpenAPI."""
    return Response(_json(), media_type="application/json", headers=_headers(request))


async def page(request: Request) -> Response:
    """Answer the API page; its command lines name the address it was asked at."""
    from query_api.openapi.page import POLICY  # noqa: PLC0415 - the renderer is loaded with the first page

    host = request.headers.get("host", "")
    address = f"{request.url.scheme}://{host}" if _HOST.fullmatch(host) else ADDRESS
    headers = _headers(request) | {"content-security-policy": POLICY, "x-frame-options": "DENY"}
    return Response(_html().replace(ADDRESS, address), media_type="text/html", headers=headers)


def _headers(request: Request) -> dict[str, str]:
    return _HEADERS | {REQUEST_ID_HEADER: request_id(request.headers.get(REQUEST_ID_HEADER))}


@lru_cache(maxsize=1)
def _json() -> bytes:
    return orjson.dumps(api())


@lru_cache(maxsize=1)
def _html() -> str:
    from query_api.openapi.page import page as render  # noqa: PLC0415 - as above

    return render(api())
