"""Routes of the page for operators: files, the same for everybody, without a key; what is in them asks the API with one."""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from ingest.contract.http_errors import REQUEST_ID_HEADER, request_id
from query_api.dashboard import charts
from query_api.dashboard.assets import INDEX, Asset, assets
from query_api.http.edge import refusal

PAGE: Final = "/"
FILES: Final = "/dashboard/{path:path}"
# Scripts, styles and answers of this server alone; nothing inline, nothing framed, nothing sent by a form.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    # Kept, but asked for again each time: a page must never be of another release than its scripts.
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "vary": "accept-encoding",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


async def page(request: Request) -> Response:
    """Answer the page."""
    return _answer(request, assets()[INDEX])


async def file(request: Request) -> Response:
    """Answer one of its files."""
    path = request.path_params["path"]
    if path == charts.LIBRARY:
        try:
            # Packed on a thread: other questions go on meanwhile.
            return _answer(request, await asyncio.to_thread(charts.library))
        except FileNotFoundError as error:
            return refusal(request, 404, f"The library of charts is missing: {error}")
    found = assets().get(path)
    if found is None:
        return refusal(request, 404, "The page has no such file")
    return _answer(request, found)


def _answer(request: Request, asset: Asset) -> Response:
    headers = _HEADERS | {"etag": asset.etag, REQUEST_ID_HEADER: request_id(request.headers.get(REQUEST_ID_HEADER))}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    body = asset.body
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["content-encoding"] = asset.packed, "gzip"
    return Response(body, media_type=asset.media, headers=headers)
