"""What an exporter is answered, in the encoding it sent: what became of its spans, or why nothing did. Pure.

Two messages of two or three members each, so they are written here by hand.
Source: opentelemetry-proto `ExportTraceServiceResponse`, googleapis `google.rpc.Status` and `google.rpc.Code`.
"""

from typing import Final, Literal

import msgspec

Encoding = Literal["protobuf", "json"]

CONTENT_TYPES: Final = {"protobuf": b"application/x-protobuf", "json": b"application/json"}
# The numbers of google.rpc.Code that the statuses of HTTP stand for; whatever is not here is UNKNOWN.
_CODES: Final = {400: 3, 401: 16, 403: 7, 404: 5, 408: 4, 413: 3, 415: 3, 429: 8, 500: 13, 503: 14, 504: 4}
_UNKNOWN: Final = 2

_encode = msgspec.json.Encoder().encode


def export_response(encoding: Encoding, *, rejected: int = 0, message: str = "") -> bytes:
    """Return an `ExportTraceServiceResponse`; of full success it is empty.

    Args:
        rejected: how many spans were not taken.
        message: why, for people.
    """
    if not rejected:
        return b"{}" if encoding == "json" else b""
    if encoding == "json":
        return _encode({"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": message}})
    return _bytes(1, _number(1, rejected) + _bytes(2, message.encode()))


def status(encoding: Encoding, *, http_status: int, message: str) -> bytes:
    """Return a `google.rpc.Status`."""
    code = _CODES.get(http_status, _UNKNOWN)
    if encoding == "json":
        return _encode({"code": code, "message": message})
    return _number(1, code) + _bytes(2, message.encode())


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
