"""ClickHouse errors: code, name, text, and the HTTP status each is answered with."""

from __future__ import annotations

import re
from typing import Final

SYNTAX_ERROR: Final = 62
NOT_IMPLEMENTED: Final = 48
BAD_ARGUMENTS: Final = 36
CHECKSUM_DOESNT_MATCH: Final = 40
UNKNOWN_DATABASE: Final = 81
READONLY: Final = 164
QUERY_ALREADY_RUNNING: Final = 216
INTO_OUTFILE_NOT_ALLOWED: Final = 358
SESSION_NOT_FOUND: Final = 372
SESSION_IS_LOCKED: Final = 373
INVALID_SESSION_TIMEOUT: Final = 374
QUERY_WAS_CANCELLED: Final = 394
INCORRECT_DATA: Final = 117
CANNOT_DECOMPRESS: Final = 271
UNKNOWN_COMPRESSION_METHOD: Final = 89
NOT_ENOUGH_SPACE: Final = 243
UNKNOWN_ROLE: Final = 511
AUTHENTICATION_FAILED: Final = 516
BAD_REQUEST_PARAMETER: Final = 600
UNKNOWN_EXCEPTION: Final = 1002

# Which error is answered with which HTTP status; every other code is a 500.
# Source: ClickHouse, src/Server/HTTP/exceptionCodeToHTTPStatus.cpp (the mapping; codes from Common/ErrorCodes.cpp).
_STATUS_OF_CODES: Final[dict[int, frozenset[int]]] = {
    400: frozenset({6, 10, 15, 25, 26, 27, 36, 38, 41, 44, 53, 62, 66, 72, 117, 128, 167, 168, 224, 321, 376, 427, 441, 600}),
    401: frozenset({194}),
    403: frozenset({192, 193, 516, 697}),
    404: frozenset({46, 47, 50, 56, 60, 63, 73, 75, 78, 81, 115, 186, 511}),
    408: frozenset({159}),
    411: frozenset({381}),
    413: frozenset({161}),
    501: frozenset({48}),
    503: frozenset({76, 209, 439}),
}
_CODE_TO_STATUS: Final = {code: status for status, codes in _STATUS_OF_CODES.items() for code in codes}

_ENGINE_TEXT = re.compile(
    r"Code: (?P<code>\d+)\. DB::Exception: (?P<message>.*?)(?:\s*\((?P<name>[A-Z][A-Z0-9_]*)\))?\s*\Z", re.DOTALL
)
# The engine wraps an error of a pipeline once more: "Code: 27. DB::Exception: Code: 27. DB::Exception: .. (version ..)".
_WRAPPED_HEAD = re.compile(r"^Code: \d+\. DB::Exception: ")
_WRAPPED_TAIL = re.compile(r"\s*(?:\([A-Z][A-Z0-9_]*\)\s*)?\(version [^)]*\)\.?\s*$")


class ClickHouseError(Exception):
    """An error as ClickHouse reports it.

    Args:
        code: number of the error, as in `system.errors`.
        name: symbolic name, such as `UNKNOWN_TABLE`.
        message: what is wrong, without code and name.
    """

    def __init__(self, code: int, name: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.name = name
        self.message = message

    @property
    def http_status(self) -> int:
        """The HTTP status a ClickHouse server answers this error with."""
        return _CODE_TO_STATUS.get(self.code, 500)

    def text(self, version: str) -> str:
        """The line a ClickHouse server of `version` sends, ending in a newline."""
        return f"Code: {self.code}. DB::Exception: {self.message} ({self.name}) (version {version} (official build))\n"


def parse_engine_error(text: str) -> ClickHouseError:
    """Read the engine's error text back into code, name and message.

    Text of another form becomes `UNKNOWN_EXCEPTION` (1002) with the text as its message.
    """
    start = text.find("Code: ")
    match = _ENGINE_TEXT.search(text[start:]) if start >= 0 else None
    if match is None:
        return ClickHouseError(UNKNOWN_EXCEPTION, "UNKNOWN_EXCEPTION", text.strip() or "the engine gave no reason")
    message = match["message"]
    head = _WRAPPED_HEAD.match(message)
    if head is not None:
        message = _WRAPPED_TAIL.sub("", message[head.end() :])
    return ClickHouseError(int(match["code"]), match["name"] or "UNKNOWN_EXCEPTION", message)
