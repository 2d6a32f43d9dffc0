"""What the descriptions of several routes share. Pure data."""

from collections.abc import Sequence
from typing import Final

from ingest.contract.openapi import Json, answer, nullable, text
from query_api.http.usage import DEFAULT_RANGE_DAYS, FILTER_VALUES_MAX
from query_api.rate_limit import WINDOW_S
from query_api.usage.question import RANGE_DAYS_MAX

# Of every answer to a key; a route built from ClickHouse has the first one too.
DATED: Final = ("CompleteUntil", "RateLimit", "RateLimitRemaining", "RateLimitWindowSize", "CacheControl")
UNDATED: Final = DATED[1:]
# Whatever a question of data may be refused with, beside what is the caller's fault.
AWAY: Final = (429, 500, 502, 503, 504)

HEADERS: Final[dict[str, Json]] = {
    "CompleteUntil": {
        "description": "Everything Kafka had accepted before this moment is in the answer. Read before the data, so it never"
        " claims too much; 1970 while nothing is proved.",
        "required": True,
        "schema": {"type": "string", "format": "date-time"},
    },
    "RateLimit": {
        "description": "Requests a key may send in a window. Announced too where nothing is limited, as in the embedded stack.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimitRemaining": {
        "description": "How many of them are left.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "RateLimitWindowSize": {
        "description": f"`{WINDOW_S}s`. A window begins with a key's first request after its last one ended.",
        "required": True,
        "schema": {"type": "string", "const": f"{WINDOW_S}s"},
    },
    "CacheControl": {"description": "`no-store`.", "required": True, "schema": {"type": "string", "const": "no-store"}},
}

COMPLETE_UNTIL: Final = text("Everything Kafka had accepted before this moment is in the answer.", format="date-time")
NEXT_CURSOR: Final = nullable(text("Send it as `cursor` for the next page; null: this is the last one."))
FROM: Final = "Begin, inclusive"
TO: Final = "end, exclusive"
MOMENT: Final = "epoch milliseconds (fractions are cut), or ISO 8601 (UTC without a zone)"
USAGE_RANGE: Final = (
    f"Half-open, to the millisecond. Without `to`: until now; without `from`: {DEFAULT_RANGE_DAYS} days before `to`. At most"
    f" {RANGE_DAYS_MAX} days. `from` = `to` is empty, `from` > `to` a 400."
)
SESSIONS: Final = (
    "A session is created at its first call in the project (smallest timestamp, then id), and belongs to that call's user,"
    " tool and status: so sessions add up over groups and days."
)
ABSENT: Final = (
    'Absent, null and the empty string are one thing: as a group their key is `""`, and `""` as a filter finds them. Nobody is'
    " not an active user."
)
VALUES_MAX: Final = FILTER_VALUES_MAX


def found(description: str, schema: Json) -> Json:
    """Describe an answer of data: JSON with the headers of freshness and rate limits."""
    return answer(description, schema, headers=DATED)


def either(words: Sequence[str]) -> str:
    """Return words as a list for people."""
    return ", ".join(f"`{word}`" for word in words)
