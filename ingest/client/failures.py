"""What an exception says of a failed call: the `error` member of an event. Pure but for asking the exception."""

from typing import Any, Final

import msgspec

from ingest.client.snapshots import text
from ingest.contract.event import IDENTIFIER_CHARS_MAX, MESSAGE_CHARS_MAX

# Where libraries keep the status or code of what went wrong: httpx and requests at the response; openai, anthropic, starlette
# and aiohttp at the error itself; botocore and gRPC have others, which say it in their text.
_CODES: Final = ("status_code", "status", "code")

_encode = msgspec.json.Encoder().encode


def error_json(error: object) -> bytes:
    """Return the `error` of an event: of an exception its text, type and code; of anything else its text."""
    if not isinstance(error, BaseException):
        return _encode({"message": text(error, MESSAGE_CHARS_MAX)})
    members: dict[str, Any] = {"message": message_of(error), "type": text(type(error).__name__, IDENTIFIER_CHARS_MAX)}
    code = _code_of(error)
    if code is not None:
        members["code"] = code
    return _encode(members)


def message_of(error: BaseException) -> str:
    """Return what an exception says, or its type where it says nothing."""
    return text(error, MESSAGE_CHARS_MAX) or type(error).__name__


def _code_of(error: BaseException) -> str | None:
    # `response` first: where both are, the status of the answer says more than a library's own code.
    for holder in (_ask(error, "response"), error):
        for name in _CODES if holder is not None else ():
            found = _ask(holder, name)
            if isinstance(found, int) and not isinstance(found, bool):
                return text(int(found), IDENTIFIER_CHARS_MAX)
            if isinstance(found, str) and found:
                return text(found, IDENTIFIER_CHARS_MAX)
    return None


def _ask(holder: object, name: str) -> object:
    try:
        return getattr(holder, name, None)
    except Exception:
        # A property of the caller's own that raises says nothing.
        return None
