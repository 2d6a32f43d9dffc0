"""What the producers know: which events there are, and which of them were acknowledged. Pure.

An event is a function of seed, lane and place, so that nothing but a moment is kept of each block of events.
"""

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

Event = dict[str, Any]

PROJECTS: Final = ("acme", "birch", "cedar", "dune")
TOOLS: Final = (
    "GMAIL_SEND_EMAIL",
    "GMAIL_FETCH_EMAILS",
    "GOOGLE_CALENDAR_CREATE_EVENT",
    "GITHUB_CREATE_ISSUE",
    "SLACK_SEND_MESSAGE",
    "NOTION_SEARCH_PAGES",
)
_SIZES: Final = (1, 1, 2, 5, 12, 40)
# Most calls are of the last hour; some come days late, into windows that were closed long ago.
_RECENT_MS: Final = 3_600_000
_LATE_MS: Final = 5 * 24 * 3_600_000
_LATE_SHARE: Final = 0.1
_NOT_SENT: Final = 0.0
_NOT_ACKNOWLEDGED: Final = -1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Events of one project that a producer sends and has acknowledged together."""

    lane: str
    number: int
    project: str
    events: tuple[Event, ...]


class Lane:
    """All that one producer ever sends, block by block, and what became of it.

    Args:
        name: begins the id of each of its events.
        base_ms: no event is younger, epoch ms.
    """

    def __init__(self, name: str, *, seed: int, base_ms: int) -> None:
        self.name = name
        self._seed = seed
        self._base_ms = base_ms
        # Of each block: when it was acknowledged, s on the run's clock.
        self._moments = array("d")

    def block(self, number: int) -> Block:
        """Return a block; the same whenever it is asked for."""
        rng = random.Random(f"{self._seed}/{self.name}/{number}")
        project = rng.choice(PROJECTS)
        events = tuple(self._event(rng, project, number, index) for index in range(rng.choice(_SIZES)))
        return Block(lane=self.name, number=number, project=project, events=events)

    def _event(self, rng: random.Random, project: str, number: int, index: int) -> Event:
        age_ms = rng.randrange(_LATE_MS if rng.random() < _LATE_SHARE else _RECENT_MS)
        event: Event = {
            "id": f"{self.name}-{number}-{index}",
            "tool_slug": rng.choice(TOOLS),
            "status": "success" if rng.random() < 0.85 else "failed",
            "duration_ms": rng.randrange(1, 3000),
            "timestamp": self._base_ms - age_ms,
        }
        if rng.random() < 0.9:
            event["user_id"] = f"{project}-user-{rng.randrange(12)}"
        if rng.random() < 0.7:
            event["session_id"] = f"{project}-session-{rng.randrange(300)}"
        if event["status"] == "failed":
            event["error"] = {"message": "403 Forbidden: missing scope", "code": 403}
        if rng.random() < 0.5:
            event["data"] = {"request": {"text": "x" * rng.randrange(400)}}
        return event

    def begin(self) -> Block:
        """Return the next block; from here on it may be sent."""
        self._moments.append(_NOT_ACKNOWLEDGED)
        return self.block(len(self._moments) - 1)

    def acknowledge(self, number: int, moment_s: float) -> None:
        """A block is acknowledged: from here on it must be there."""
        assert moment_s > 0
        self._moments[number] = moment_s

    @property
    def count(self) -> int:
        """How many blocks were begun."""
        return len(self._moments)

    def acknowledged_s(self, number: int) -> float | None:
        """Return when a block was acknowledged, None if it was not."""
        moment_s = self._moments[number]
        return moment_s if moment_s > _NOT_SENT else None

    def acknowledged_among(self, rng: random.Random) -> Block | None:
        """Return some block that was acknowledged; None where none is found at once."""
        number = rng.randrange(len(self._moments)) if self._moments else 0
        return self.block(number) if self._moments and self.acknowledged_s(number) is not None else None

    def blocks(self) -> Iterator[tuple[Block, float | None]]:
        """Go through all blocks that may have been sent, with the moment of acknowledgement."""
        for number in range(len(self._moments)):
            yield self.block(number), self.acknowledged_s(number)


class Rubbish:
    """What was sent that is no event: markers, and which of them were acknowledged."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()

    def begin(self, name: str) -> str:
        """Return a marker that was never used."""
        marker = f"rubbish-{name}-{len(self.sent)}"
        self.sent.add(marker)
        return marker
