"""Keyset cursors over logs, newest first: a place in the order, signed and bound to question, project and key. Pure.

A cursor is base64url of `mac (16 bytes) | timestamp ms (8 bytes) | id`. The signature's key is derived from the hash of the API
key, which outsiders do not know, and from `cursor_secret`, which a deployment may set to make cursors useless elsewhere. So
cursors outlive restarts and work on every instance without shared state, and end with the key they were given to.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from query_api.filters import Filter
from query_api.tenant import Tenant

_MAC_BYTES: Final = 16
_PLACE: Final = struct.Struct(">q")
# An id is at most 256 characters of at most 4 bytes; anything longer was not written here.
_CURSOR_CHARS_MAX: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The last log of a page; the next page begins below it in (timestamp, id)."""

    timestamp_ms: int
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursors:
    """Writes and reads the cursors of one question of one key.

    Args:
        secret: of the deployment; may be empty.
        filters: of the question; their order and repeats do not matter.
        from_ms, to_ms: range of the question as asked, None where it was not.
    """

    secret: str
    tenant: Tenant
    filters: Sequence[Filter]
    from_ms: int | None
    to_ms: int | None

    def write(self, place: Place) -> str:
        """Return the cursor of a place."""
        body = _PLACE.pack(place.timestamp_ms) + place.id.encode()
        return base64.urlsafe_b64encode(self._mac(body) + body).rstrip(b"=").decode()

    def read(self, cursor: str) -> Place | None:
        """Return the place of a cursor, None if it was tampered with or belongs to another question, project or key."""
        if len(cursor) > _CURSOR_CHARS_MAX:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if len(body) < _PLACE.size or not hmac.compare_digest(mac, self._mac(body)):
            return None
        (timestamp_ms,) = _PLACE.unpack_from(body)
        return Place(timestamp_ms=timestamp_ms, id=body[_PLACE.size :].decode())

    def _mac(self, body: bytes) -> bytes:
        filters = [(one.field, one.operator, one.value) for one in sorted(set(self.filters))]
        bound = msgspec.json.encode(["logs.1", self.tenant.projects, filters, self.from_ms, self.to_ms])
        key = hmac.digest(self.secret.encode(), self.tenant.key_hash.encode(), hashlib.sha256)
        return hmac.digest(key, hashlib.sha256(bound).digest() + body, hashlib.sha256)[:_MAC_BYTES]
