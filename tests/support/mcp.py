"""`toolledger mcp` as a process, between a test and a server, and what it entered into a real ingest service."""

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from deploy.embedded.process import die_with_parent
from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.keys import create_key
from tests.support.ingest_service import IngestService, ends, records_since
from tests.support.plain_http import HTTP

ROOT = Path(__file__).parents[2]
SERVER = [sys.executable, str(Path(__file__).with_name("mcp_stdio_server.py"))]
WAIT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Where calls are entered."""

    kafka: str
    url: str
    key: str
    since: Mapping[int, int]

    @classmethod
    @contextmanager
    def start(cls, kafka: str, folder: Path) -> Iterator[Self]:
        """Run an ingest service, with a key for it."""
        apply(kafka, topics())
        with IngestService.start(kafka, folder) as service:
            _, key = asyncio.run(create_key(kafka, project_id="mcp-tests"))
            deadline = time.monotonic() + WAIT_S
            while HTTP.post(f"{service.url}/v1/events", json=[], headers={"x-api-key": key}).status_code == 401:
                assert time.monotonic() < deadline, "the key is not in force"
                time.sleep(0.05)
            yield cls(kafka=kafka, url=service.url, key=key, since=asyncio.run(ends(kafka)))

    def events(self, session: str) -> list[dict[str, Any]]:
        """Return the events of a session, by the time they began."""
        records = asyncio.run(records_since(self.kafka, dict(self.since)))
        packs = [json.loads(record.value) for record in records]
        found = [one for pack in packs for one in (pack if isinstance(pack, list) else [pack]) if _of(one, session)]
        assert len({one["id"] for one in found}) == len(found), "an event was entered twice"
        return sorted(found, key=lambda one: (one["timestamp"], int(one["context"]["request_id"])))

    def await_events(self, session: str, count: int) -> list[dict[str, Any]]:
        """Wait until a session has so many events, and return them."""
        deadline = time.monotonic() + WAIT_S
        while len(found := self.events(session)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} events: {found}"
            time.sleep(0.1)
        return found


def _of(event: dict[str, Any], session: str) -> bool:
    return bool(event.get("session_id") == session)


class Wrapped:
    """A server behind `toolledger mcp`, spoken to line by line."""

    def __init__(
        self, ledger: Ledger | None, command: list[str], *options: str, env: Mapping[str, str] | None = None, **popen: Any
    ) -> None:
        self.session = f"ses_{uuid.uuid4().hex[:12]}"
        own = (
            {} if ledger is None else {"TOOLLEDGER_URL": ledger.url, "TOOLLEDGER_API_KEY": ledger.key, "TOOLLEDGER_SPOOL": "no"}
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli.main", "mcp", "--session", self.session, *options, "--", *command],
            cwd=ROOT,
            env={**os.environ, **own, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - the child only makes one system call
            **popen,
        )
        self._id = 0

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, tool: str, **arguments: Any) -> int:
        """Send a call and return its id."""
        self._id += 1
        self.send(id=self._id, method="tools/call", params={"name": tool, "arguments": arguments})
        return self._id

    def call(self, tool: str, **arguments: Any) -> Any:
        """Send a call and return its answer."""
        self.ask(tool, **arguments)
        return json.loads(self.line())

    def hold(self) -> None:
        """Send a call that gets no answer, and see that the server has it."""
        self.ask("hold")
        assert json.loads(self.line())["params"]["data"] == "held"

    def send(self, **members: Any) -> None:
        self.write(json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\n")

    def leave(self) -> tuple[int, bytes, bytes]:
        """Close standard input and read all; return the exit code, and what came on standard output and error."""
        out, error = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out, error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


class Proxied:
    """A server over HTTP behind `toolledger mcp --url`."""

    def __init__(self, ledger: Ledger, server: str, *options: str) -> None:
        self.session = f"ses_{uuid.uuid4().hex[:12]}"
        own = {"TOOLLEDGER_URL": ledger.url, "TOOLLEDGER_API_KEY": ledger.key, "TOOLLEDGER_SPOOL": "no"}
        environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli.main", "mcp", "--json", "--url", server, *options],
            cwd=ROOT,
            env={**environment, **own},
            stdout=subprocess.PIPE,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - the child only makes one system call
        )
        assert self.process.stdout is not None
        self.url = str(json.loads(self.process.stdout.readline())["url"])

    def stop(self) -> int:
        """Ask it to end and return its exit code."""
        self.process.terminate()
        return self.process.wait(WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        self.process.communicate()
