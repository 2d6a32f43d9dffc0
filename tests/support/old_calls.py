"""Calls of any age, for what retention takes and what it leaves."""

from typing import Any


def call(event_id: str, number: int, at_ms: int) -> dict[str, Any]:
    """Return an event at a time, epoch ms; tools, users, sessions and failures go by its number, a quarter has no session."""
    return {
        "id": event_id,
        "tool_slug": f"TOOL_{number % 3}",
        "status": "failed" if number % 5 == 0 else "success",
        "duration_ms": number,
        "user_id": f"u{number % 7}",
        "session_id": f"s{number % 31}" if number % 4 else "",
        "timestamp": at_ms,
        "data": {"request": {"number": number}},
    }
