"""What an answer to a batch means for it: delivered, never to be sent again, or to be tried again, and when. Pure."""

import email.utils
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ingest.client.connection import Answer

# Longer than that nobody means; a server that is down for maintenance says so once more.
RETRY_AFTER_S_MAX: Final = 600.0
# The request is wrong as it is, and so would be the next one: timing, conflict and rate are not among these.
_NEVER: Final = frozenset({400, 405, 406, 409, 410, 411, 414, 415, 416, 417, 422, 431, 451})
# The key or the address is wrong, or not known yet: somebody may mend it, but nobody waits for it by the second.
_UNWELCOME: Final = frozenset({401, 402, 403, 404, 407, 421})


class _Refusal(msgspec.Struct):
    code: str = "unknown"
    id: str | None = None


class _Verdict(msgspec.Struct):
    accepted: int = -1
    rejected: list[_Refusal] = msgspec.field(default_factory=list)


_decode = msgspec.json.Decoder(_Verdict).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """The server has answered for each event of the batch."""

    accepted: int
    rejected: int = 0
    codes: Mapping[str, int] = field(default_factory=dict)
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TooLarge:
    """The server takes fewer at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgain:
    """Not now. `unwelcome`: and not soon, since the key or the address seems wrong."""

    why: str
    retry_after_s: float | None = None
    unwelcome: bool = False


Outcome = Delivered | TooLarge | TryAgain


def judge(answer: Answer, *, events: int, now_s: float) -> Outcome:
    """Judge the answer to a batch.

    Args:
        answer: as it came.
        events: how many the batch holds.
        now_s: the time, epoch seconds, for a `Retry-After` that is a date.
    """
    status = answer.status
    verdict = _verdict(answer.body) if 200 <= status < 300 or status == 400 else None
    if verdict is not None and (verdict.accepted >= 0 or verdict.rejected):
        return _delivered(verdict, events)
    if status == 413:
        return TooLarge()
    if status in _NEVER:
        return Delivered(accepted=0, rejected=events, codes={f"http_{status}": events})
    if status in _UNWELCOME or 200 <= status < 400:
        # Also a proxy's page, or somebody else's server: taking it for an answer would lose the batch.
        return TryAgain(why=f"it answered {status}, and not as toolledger does", unwelcome=True)
    return TryAgain(why=f"it answered {status}", retry_after_s=retry_after_s(answer.headers, now_s=now_s))


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Return how long the server asks to wait: `Retry-After` in seconds or as a date; None where it does not say."""
    given = headers.get("retry-after", "").strip()
    if not given:
        return None
    try:
        wait_s = float(given) if given.isdigit() else email.utils.parsedate_to_datetime(given).timestamp() - now_s
    except (ValueError, OverflowError):
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)


def _verdict(body: bytes) -> _Verdict | None:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _delivered(verdict: _Verdict, events: int) -> Delivered:
    rejected = min(len(verdict.rejected), events)
    ids = tuple(each.id for each in verdict.rejected[:3] if each.id)
    codes = Counter(each.code for each in verdict.rejected)
    return Delivered(accepted=events - rejected, rejected=rejected, codes=dict(codes), ids=ids)
