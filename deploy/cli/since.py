"""Read how far back to look: `15m`, `2h`, `7d`, or a moment in ISO 8601. Pure."""

import re
from datetime import UTC, datetime
from typing import Final

import click

_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_SPAN: Final = re.compile(r"(\d{1,9})([smhdw])")


def since_ms(text: str, *, now_ms: int) -> int:
    """Return the moment, epoch ms.

    Raises:
        click.BadParameter: it is neither a span nor a moment.
    """
    if match := _SPAN.fullmatch(text):
        return max(0, now_ms - int(match.group(1)) * _UNITS_MS[match.group(2)])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is neither a span as 30s, 15m, 2h, 7d nor a moment as 2026-04-17T10:25:00Z"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
