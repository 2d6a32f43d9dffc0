"""What every HTTP answer of every service shares: the Error body, request ids, and which header carries the key. Pure."""

import itertools
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

REQUEST_ID_HEADER: Final = "x-request-id"
PROJECT_KEY_HEADER: Final = "x-api-key"
ORG_KEY_HEADER: Final = "x-org-api-key"
# Any two of these on one request are refused: which one was meant cannot be known.
_CREDENTIAL_HEADERS: Final = frozenset((b"x-api-key", b"x-org-api-key", b"x-user-api-key", b"authorization"))

# 10400 for 400, 10401 for 401: how the incumbent numbers errors that have no number of their own.
_CODE_BASE: Final = 10_000
# Ids of callers are echoed into headers and log lines, so nothing that could break out of either is taken.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:/+=@-]{1,128}")
# An id tells requests apart and is no secret: random for each process, counted within it, which costs a tenth of randomness.
_PROCESS: Final = secrets.token_hex(5)
_numbers: Final = itertools.count(1)
_MASK: Final = "*****"
_MASKED_HEAD_CHARS: Final = 8

_encode = msgspec.json.Encoder().encode


def error_body(
    *,
    status: int,
    message: str,
    request_id: str,
    slug: str | None = None,
    code: int | None = None,
    suggested_fix: str | None = None,
    errors: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the JSON of the Error body (CONTRACT section 6).

    Args:
        status: HTTP status, 400 to 599.
        message: what was wrong and what to do, one or two sentences.
        request_id: the same that the header `x-request-id` carries.
        slug: stable machine-readable name; `slug_of(status)` unless given.
        code: number of the error; 10,000 + status unless given.
        suggested_fix: optional, one sentence.
        errors: one line a fault; left out when empty.
        extra: members beside `error`, as `rejected` of the ingest route.

    Returns:
        One object; a 429 also carries the flat `message` that older clients read.
    """
    error: dict[str, Any] = {
        "message": message,
        "code": _CODE_BASE + status if code is None else code,
        "slug": slug_of(status) if slug is None else slug,
        "status": status,
        "request_id": request_id,
    }
    if suggested_fix is not None:
        error["suggested_fix"] = suggested_fix
    if errors:
        error["errors"] = list(errors)
    body: dict[str, Any] = {"error": error}
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        body["message"] = message
    if extra:
        body.update(extra)
    return _encode(body)


def slug_of(status: int) -> str:
    """Return the slug of a status without a name of its own, as in `HTTP_Unauthorized`, `HTTP_NotFound`."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = str(status)
    return "HTTP_" + "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", phrase) if word)


def request_id(given: str | None = None) -> str:
    """Return the caller's request id if it is sane (1 to 128 characters of A-Za-z0-9_.:/+=@-), else a fresh one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return f"req_{_PROCESS}{next(_numbers):06x}"


def mask_key(key: str) -> str:
    """Return what may be shown of a key: its head, never more than a third of it, then stars."""
    return key[: min(_MASKED_HEAD_CHARS, len(key) // 3)] + _MASK


def credentials(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """List the credentials of a request as (header, key); two or more, also of one header, are a 401.

    Args:
        headers: as ASGI hands them over, lower-case names.

    Returns:
        In the order sent. `authorization` counts only as a bearer token: Basic belongs to proxies on the way.
    """
    found = []
    for name, value in headers:
        if name in _CREDENTIAL_HEADERS and value:
            text = value.decode("latin-1").strip()
            if name != b"authorization":
                found.append((name.decode(), text))
            elif text[:7].lower() == "bearer ":
                found.append((name.decode(), text[7:].strip()))
    return found
