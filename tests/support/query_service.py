"""The query service on a real socket within the test's loop, with keys given to it instead of read from Kafka."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from multidict import CIMultiDict

from ingest.contract.access import Key, hash_key, key_record
from ingest.contract.control import ControlFollower
from ingest.contract.http_connections import Patience
from ingest.contract.replayer import Replayer
from query_api.export.places import Exports
from query_api.http.app import application
from query_api.http.caller import may_read
from query_api.http.edge import Services
from query_api.http.server import PATIENCE, make_server
from query_api.live.hub import Tails
from query_api.live.proved import Proved
from query_api.past import Past
from query_api.progress import Freshness
from query_api.rate_limit import RateLimit
from query_api.settings import QuerySettings
from query_api.store import Reader
from tests.support import api_answers

KEY_A = "ak_test_key_of_project_a"
KEY_A2 = "ak_test_second_key_of_a"
KEY_B = "ak_test_key_of_project_b"
KEY_READ = "ak_test_read_key_of_a"
KEY_INGEST = "ak_test_ingest_key_of_a"
KEY_REVOKED = "ak_test_revoked_key_of_a"
KEY_ORG = "oak_test_key_of_organization"
KEY_ORG_EMPTY = "oak_test_key_without_project"
KEYS: Mapping[str, Mapping[str, Any]] = {
    KEY_A: {"project_id": "proj_a", "org_id": "org_1"},
    KEY_A2: {"project_id": "proj_a", "org_id": "org_1"},
    KEY_B: {"project_id": "proj_b", "org_id": "org_1"},
    KEY_READ: {"project_id": "proj_a", "scope": "read"},
    KEY_INGEST: {"project_id": "proj_a", "scope": "ingest"},
    KEY_REVOKED: {"project_id": "proj_a", "revoked_at_ms": 1},
    KEY_ORG: {"project_id": "", "org_id": "org_1"},
    KEY_ORG_EMPTY: {"project_id": "", "org_id": "org_2"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: Any
    raw: bytes


class QueryService:
    """A client of one running service; `services` are the real ones behind it."""

    def __init__(self, url: str, services: Services, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.services = services
        self._session = session

    async def post(self, path: str, body: Any = None, *, key: str | None = KEY_A, **more: Any) -> Reply:
        """Send JSON, or bytes as they are."""
        sent = {"data": body} if isinstance(body, bytes) else {"json": body}
        return await self.request("POST", path, key=key, **sent, **more)

    async def get(self, path: str, parameters: Any = None, *, key: str | None = KEY_A, **more: Any) -> Reply:
        """Ask a GET route."""
        return await self.request("GET", path, key=key, params=parameters, **more)

    async def request(self, method: str, path: str, *, key: str | None, headers: Any = None, **more: Any) -> Reply:
        """Send a request; the key goes where a key of its kind belongs. Headers may repeat, as pairs."""
        sent = CIMultiDict(headers or ())
        if key is not None:
            sent["x-org-api-key" if key.startswith("oak_") else "x-api-key"] = key
        async with self._session.request(method, self.url + path, headers=sent, **more) as response:
            raw = await response.read()
            is_json = response.headers.get("content-type", "").startswith("application/json")
            body = await response.json() if is_json and raw else None
            api_answers.check(method, path, response.status, response.headers, body)
            return Reply(status=response.status, headers=response.headers, body=body, raw=raw)

    async def logs(self, body: Any = None, *, key: str = KEY_A) -> Reply:
        """Search logs."""
        return await self.post("/api/v3.1/logs/tool_execution", body or {}, key=key)


@contextlib.asynccontextmanager
async def query_service(
    clickhouse: str, *, patience: Patience = PATIENCE, port: int = 0, **settings: Any
) -> AsyncIterator[QueryService]:
    """Run the service until the block ends."""
    # Progress is asked for anew with every request, unless a test is about the cache.
    chosen = QuerySettings(clickhouse=clickhouse, **{"freshness_cache_s": 0, **settings})  # type: ignore[arg-type]
    # Not started: no Kafka is needed to know the keys of a test.
    control = ControlFollower(chosen.kafka)
    for key, fields in KEYS.items():
        control.access.apply(*key_record(Key(id="id_" + key, key_hash=hash_key(key), **fields)))
    control.caught_up.set()
    reader = Reader(chosen)
    services = Services(
        settings=chosen,
        control=control,
        reader=reader,
        freshness=Freshness(reader, cache_s=chosen.freshness_cache_s),
        past=Past(reader),
        replayer=(replayer := Replayer(chosen.kafka, timeout_s=chosen.query_replay_timeout_s)),
        rate_limit=RateLimit(chosen.rate_limit_per_minute),
        proved=(proved := Proved(reader)),
        exports=Exports(chosen.query_exports_max),
        tails=Tails(
            reader,
            proved,
            in_force=lambda tenant: may_read(tenant, control.access),
            tails_max=chosen.query_tails_max,
            poll_s=chosen.query_tail_poll_s,
        ),
    )
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    # Requests may come before the server's first step.
    listening.listen()
    server = make_server(application(services), stop_timeout_s=chosen.query_stop_timeout_s, patience=patience)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with aiohttp.ClientSession() as session:
            yield QueryService(f"http://127.0.0.1:{listening.getsockname()[1]}", services, session)
    finally:
        server.should_exit = True
        services.tails.stop()
        await serving
        await services.freshness.close()
        await reader.close()
        await replayer.close()
