"""The running stack with two projects of one organisation, keys to them, and a process for each official client."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from ingest.keys import create_key
from tests.support.client_api import Api, Event
from tests.support.official_clients import Client
from tests.support.ports import free_port
from tests.support.process import Process, eventually
from tests.support.stack import Stack

Commands = Mapping[str, tuple[list[str], Path]]


class Site:
    """Keys by name: `airline`, `other` and `document` are projects', `ingest` may only send, `acme` is the organisation's."""

    def __init__(self, folder: Path, commands: Commands) -> None:
        self.stack = Stack(folder / "data")
        self.folder = folder
        self.keys: dict[str, str] = {}
        self._clients: dict[str, Client] = {}
        self._commands = commands

    def start(self, **projects: list[Event]) -> None:
        """Start everything and send each project its events."""
        self.stack.start()
        self._clients |= {name: Client(command, folder) for name, (command, folder) in self._commands.items()}
        self._make_key("ingest", project_id="airline", scope="ingest")
        self._make_key("acme", org_id="acme")
        for project, events in projects.items():
            key = self._make_key(project, project_id=project, org_id="acme")
            self.stack.await_key(key)
            lines = b"\n".join(json.dumps(event).encode() for event in events)
            answer = self.stack.post("/v1/events", lines, key=key, **{"content-type": "application/x-ndjson"})
            assert answer.json()["accepted"] == len(events), answer.text
        assert self.stack.proved().proved

    def stop(self) -> None:
        for client in self._clients.values():
            client.end()
        self.stack.stop()

    @property
    def url(self) -> str:
        assert self.stack.up is not None
        return str(self.stack.up.ready["url"])

    @property
    def clickhouse(self) -> str:
        assert self.stack.up is not None
        return str(self.stack.up.ready["clickhouse"])

    def api(self, kind: str, *, key: str | Mapping[str, str] = "airline", url: str = "", **options: Any) -> Api:
        """Return a client with a key by its name, or with keys as given."""
        named = self.keys.get(key, key) if isinstance(key, str) else key
        client = self._clients[kind.split("-", maxsplit=1)[0]]
        return Api(kind, client, url=url or self.url, key=named, **options)

    @contextlib.contextmanager
    def query(self, **settings: str) -> Iterator[str]:
        """Run one more query service on the same servers, with settings of its own; give its address."""
        assert self.stack.up is not None
        port = free_port()
        addresses = {name: str(self.stack.up.ready[name]) for name in ("kafka", "clickhouse")}
        named = {"query_port": str(port)} | addresses | settings
        env = {f"TOOLLEDGER_{name.upper()}": value for name, value in named.items()}
        process = Process(f"query-{port}", ["query"], folder=self.folder, env=env)
        url = f"http://127.0.0.1:{port}"
        try:
            with httpx.Client(base_url=url) as http:
                eventually("the query service knows the keys", lambda: self._known(http))
            yield url
        finally:
            process.end(signal.SIGTERM)

    def _known(self, http: httpx.Client) -> bool:
        try:
            answer = http.get("/v1/freshness", headers={"x-api-key": self.keys["ingest"]})
        except httpx.TransportError:
            return False
        # It may not read; before keys are known it would be 503.
        return answer.status_code == 403

    def _make_key(self, name: str, **fields: Any) -> str:
        assert self.stack.up is not None
        _, self.keys[name] = asyncio.run(create_key(self.stack.up.ready["kafka"], **fields))
        return self.keys[name]
