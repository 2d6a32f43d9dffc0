"""An ingest process with a gateway before an upstream of the test's own, keys of every kind, and what was recorded."""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.keys import create_key, revoke_key
from tests.support.ingest_service import IngestService, eventually, records_since
from tests.support.ports import HOST, free_port

UPSTREAM_KEY: Final = "ak_of_the_upstream"
KEYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "full": {"project_id": "gate"},
    "read": {"project_id": "gate", "scope": "read"},
    "ingest": {"project_id": "gate", "scope": "ingest"},
    "revoked": {"project_id": "gate"},
    "org": {"org_id": "acme"},
}


@dataclass(slots=True, kw_only=True)
class GatewaySite:
    """One process; the upstream runs in the loop of each test, on a port that stays the same."""

    service: IngestService
    kafka: str
    upstream_port: int
    keys: dict[str, str]


@contextlib.contextmanager
def gateway_site(kafka: str, folder: Path, **settings: Any) -> Iterator[GatewaySite]:
    """Start a process and make its keys."""
    apply(kafka, topics())
    port = free_port()
    given = {"upstream": f"http://{HOST}:{port}", "upstream_api_key": UPSTREAM_KEY, "upstream_project": "foreign"}
    with IngestService.start(kafka, folder, **{**given, **settings}) as service:
        keys = {}
        for name, what in KEYS.items():
            made, keys[name] = asyncio.run(create_key(kafka, **what))
            if name == "revoked":
                asyncio.run(revoke_key(kafka, made.id))
        asyncio.run(_known(service, keys["org"]))
        yield GatewaySite(service=service, kafka=kafka, upstream_port=port, keys=keys)


async def _known(service: IngestService, org_key: str) -> None:
    """Wait until the last key is in force: with it all before."""
    async with httpx.AsyncClient(base_url=service.url) as http:

        async def known() -> bool:
            return (await http.post("/v1/events", headers={"x-api-key": org_key})).status_code == 403

        await eventually(known)


class Recorded:
    """What was written to Kafka since a moment."""

    def __init__(self, kafka: str, before: dict[int, int]) -> None:
        self._kafka = kafka
        self._before = before

    async def events(self, count: int) -> list[dict[str, Any]]:
        """Wait for that many events, and see that there are no more; `_project` is the header's."""
        found: list[dict[str, Any]] = []

        async def there() -> bool:
            found[:] = await self.now()
            return len(found) >= count

        await eventually(there)
        assert len(found) == count, found
        return found

    async def event(self) -> dict[str, Any]:
        """Wait for the only one."""
        (only,) = await self.events(1)
        return only

    async def now(self) -> list[dict[str, Any]]:
        """Return what is there."""
        found: list[dict[str, Any]] = []
        for record in await records_since(self._kafka, self._before):
            value = json.loads(record.value)
            project = dict(record.headers)["project_id"].decode()
            found.extend(one | {"_project": project} for one in (value if isinstance(value, list) else [value]))
        return found
