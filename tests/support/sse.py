"""A small reader of Server-Sent Events, as the standard has it: ids, data, comments."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson


@dataclass(slots=True)
class EventStream:
    """What was read of a stream; `last_id` is what a reader comes back with."""

    last_id: str = ""
    logs: list[dict[str, Any]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    retry_ms: int | None = None

    async def read(self, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any] | None]:
        """Give each log as it comes, and None for a block without one."""
        data: list[bytes] = []
        place = self.last_id
        async for raw in response.content:
            line = raw.rstrip(b"\r\n")
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if not line:
                found = orjson.loads(b"\n".join(data)) if data else None
                data = []
                # Only now: an event that was cut off has not been seen.
                self.last_id = place
                if found is not None:
                    self.logs.append(found)
                yield found
            elif not name:
                self.comments.append(value.decode())
            elif name == b"id":
                place = value.decode()
            elif name == b"data":
                data.append(value)
            elif name == b"retry":
                self.retry_ms = int(value)
