"""Read a request's body within its limit of size, and count what is held at once."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from ingest.contract.metrics import INGEST_BYTES, INGEST_IN_FLIGHT
from ingest.fairness import Shares
from ingest.http.answers import ClientGone, Receive, Refused
from ingest.settings import IngestSettings

# A client that sends too much is listened to for that much more: one that is cut off while it sends sees a broken
# connection instead of the answer.
_DRAIN_BYTES_MAX: Final = 64 * 1024 * 1024
_DRAIN_TIMEOUT_S: Final = 5.0


class InFlight:
    """Counts the bytes of bodies that are held, over all requests and by key, and refuses to go beyond a bound.

    A key may hold as much as is still free, so that one that floods the service leaves room for the others; a request that is
    the only one may have it all.
    """

    def __init__(self, bytes_max: int, *, retry_after_s: int) -> None:
        self._shares = Shares(bytes_max)
        self._retry_after_s = retry_after_s
        INGEST_IN_FLIGHT.set_function(lambda: self._shares.bytes_held)

    def share(self, key_id: str = "") -> "Share":
        """Return an empty share for one request of a key, given back when its `with` block ends."""
        return Share(self, key_id)

    def _take(self, key_id: str, size: int, held: int) -> None:
        shares = self._shares
        if not shares.has_room(key_id, size, alone=shares.bytes_held == held):
            raise Refused(
                429,
                f"{shares.of(key_id)} bytes of this key's requests, and {shares.bytes_held} in all, are being worked on; at "
                f"most {shares.bytes_max} are held at once, and of one key no more than are still free",
                suggested_fix="Send again after the time in Retry-After.",
                retry_after_s=self._retry_after_s,
            )
        shares.take(key_id, size)

    def _give_back(self, key_id: str, size: int) -> None:
        self._shares.give_back(key_id, size)


class Share:
    """What one request holds."""

    def __init__(self, in_flight: InFlight, key_id: str) -> None:
        self._in_flight = in_flight
        self._key_id = key_id
        self._bytes = 0

    def grow_to(self, size: int) -> None:
        """Hold at least that many bytes.

        Raises:
            Refused: 429, beyond what this key may hold beside the others.
        """
        if size > self._bytes:
            self._in_flight._take(self._key_id, size - self._bytes, self._bytes)
            self._bytes = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._in_flight._give_back(self._key_id, self._bytes)


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], settings: IngestSettings, share: Share) -> bytes:
    """Read the whole body. How long it may take is the connection's business (`ingest.http.server`).

    Raises:
        Refused: 413 too large, 429 too much held at once, 400 for a nonsensical length.
        ClientGone: the client went away, or was too slow.
    """
    bytes_max = settings.ingest_body_bytes_max
    announced = headers.get(b"content-length")
    if announced is not None:
        if not announced.isdigit():
            raise Refused(400, "the header content-length is not a number")
        size = int(announced)
        if size > bytes_max:
            if size <= bytes_max + _DRAIN_BYTES_MAX:
                await _drain(receive)
            raise _too_large(bytes_max)
        share.grow_to(size)
    chunks: list[bytes] = []
    read = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk: bytes = message.get("body", b"")
        read += len(chunk)
        if read > bytes_max:
            break
        share.grow_to(read)
        chunks.append(chunk)
        if not message.get("more_body", False):
            INGEST_BYTES.inc(read)
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
    await _drain(receive)
    raise _too_large(bytes_max)


async def _drain(receive: Receive) -> None:
    """Read on for a while and forget it, so that the client gets to read the answer."""
    left = _DRAIN_BYTES_MAX
    try:
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _too_large(bytes_max: int) -> Refused:
    return Refused(
        413,
        f"the body has more than {bytes_max} bytes; that is the limit of one request",
        suggested_fix="Send fewer events at once.",
        headers=((b"connection", b"close"),),
    )
