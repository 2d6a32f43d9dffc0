"""Keyset cursors: a place in the order of an answer, signed and bound to question, project and key. Pure.

A cursor is base64url of `mac (16 bytes) | place`; the place in logs, newest first, is `timestamp ms (8 bytes) | id`. The
signature's key is derived from the hash of the API key, which outsiders do not know, and from `cursor_secret`, which a
deployment may set to make cursors useless elsewhere. So cursors outlive restarts and work on every instance without shared
state, and end with the key they were given to.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from query_api.filters import Filter
from query_api.tenant import Tenant

_MAC_BYTES: Final = 16
_PLACE: Final = struct.Struct(">q")
# A place is an id, or two keys of a group: at most 768 characters of at most 4 bytes each (lowering a slug can triple it).
# Anything longer was not written here.
_CURSOR_CHARS_MAX: Final = 8700


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """Signs places of one question of one key, and reads those it signed.

    Args:
        secret: of the deployment; may be empty.
        question: what the cursor is bound to beside the key's projects; told as JSON, so of plain values.
    """

    secret: str
    tenant: Tenant
    question: Sequence[Any]

    def write(self, place: bytes) -> str:
        """Return the cursor of a place."""
        return self.writer()(place)

    def read(self, cursor: str) -> bytes | None:
        """Return the place of a cursor, None if it was tampered with or belongs to another question, project or key."""
        if len(cursor) > _CURSOR_CHARS_MAX:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != cursor:
            # The last character has bits that mean nothing: of several spellings only ours is taken.
            return None
        mac, place = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        return place if hmac.compare_digest(mac, self._mac(place)) else None

    def writer(self) -> Callable[[bytes], str]:
        """Return `write` for many places of the same question."""
        key, bound = self._key(), self._bound()

        def write(place: bytes) -> str:
            mac = hmac.digest(key, bound + place, hashlib.sha256)[:_MAC_BYTES]
            return base64.urlsafe_b64encode(mac + place).rstrip(b"=").decode()

        return write

    def _mac(self, place: bytes) -> bytes:
        return hmac.digest(self._key(), self._bound() + place, hashlib.sha256)[:_MAC_BYTES]

    def _key(self) -> bytes:
        return hmac.digest(self.secret.encode(), self.tenant.key_hash.encode(), hashlib.sha256)

    def _bound(self) -> bytes:
        return hashlib.sha256(msgspec.json.encode([self.tenant.projects, *self.question])).digest()


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
        of: what is paged, and the version of how.
        asked: whatever else the question says.
    """

    secret: str
    tenant: Tenant
    filters: Sequence[Filter]
    from_ms: int | None
    to_ms: int | None
    of: str = "logs.1"
    asked: Sequence[str] = ()

    def write(self, place: Place) -> str:
        """Return the cursor of a place."""
        return self._seal().write(_PLACE.pack(place.timestamp_ms) + place.id.encode())

    def read(self, cursor: str) -> Place | None:
        """Return the place of a cursor, None as `Seal.read`."""
        place = self._seal().read(cursor)
        if place is None:
            return None
        (timestamp_ms,) = _PLACE.unpack_from(place)
        return Place(timestamp_ms=timestamp_ms, id=place[_PLACE.size :].decode())

    def _seal(self) -> Seal:
        filters = [(one.field, one.operator, one.value) for one in sorted(set(self.filters))]
        question = [self.of, filters, self.from_ms, self.to_ms, *self.asked]
        return Seal(secret=self.secret, tenant=self.tenant, question=question)
