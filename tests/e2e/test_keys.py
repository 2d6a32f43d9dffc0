"""Keys from the command line to both services: in force and out of force within seconds, and never written anywhere."""

import contextlib
import json
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from deploy.topics import apply
from ingest.contract.topics import topics
from tests.support import rows
from tests.support.faulty_clickhouse import PASS, Fault, FaultyClickHouse
from tests.support.ingest_service import IngestService
from tests.support.plain_http import HTTP
from tests.support.ports import free_port
from tests.support.process import Process, eventually

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
EVENT = {"tool_slug": "GMAIL_SEND", "status": "success", "duration_ms": 1}
# What "within seconds" means where five other things run on two cores.
SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Both services in front of one Kafka and one ClickHouse, which can be slowed down."""

    kafka: str
    clickhouse: FaultyClickHouse
    ingest: IngestService
    query: Process
    query_url: str
    http: httpx.Client

    def keys(self, *arguments: str, status: int = 0) -> str:
        """Run `toolledger keys ...`."""
        command = [sys.executable, "-m", "deploy.cli.main", "keys", *arguments, "--kafka", self.kafka]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done
        return done.stdout + done.stderr

    def create(self, *arguments: str) -> tuple[str, str]:
        """Create a key; return its id and itself."""
        made = json.loads(self.keys("create", *arguments, "--json"))
        return made["id"], made["key"]

    def allowed(self, key: str) -> tuple[int, int, int]:
        """The status of sending an event, of reading a project, and of reading an organisation, at the public address."""
        header = {"x-org-api-key" if key.startswith("oak_") else "x-api-key": key}
        return (
            self.http.post(f"{self.ingest.url}/v1/events", json=EVENT, headers=header).status_code,
            self.http.get(f"{self.ingest.url}/v1/freshness", headers=header).status_code,
            self.http.post(f"{self.ingest.url}/api/v3.1/org/usage/summary", json={}, headers=header).status_code,
        )

    def said(self) -> str:
        """All that both services have written so far."""
        return self.ingest.log.read_text(errors="replace") + self.query.said()


@pytest.fixture(scope="module")
def site(kafka_address: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    apply(kafka_address, topics())
    folder = tmp_path_factory.mktemp("keys")
    with contextlib.ExitStack() as stack:
        database = urlsplit(stack.enter_context(rows.fresh_database(clickhouse_url)))
        proxy = FaultyClickHouse(database.port or 8123, host=database.hostname or "127.0.0.1")
        proxy.start()
        stack.callback(proxy.stop)
        port = free_port()
        query_url = f"http://127.0.0.1:{port}"
        query = Process(
            "query",
            ["query"],
            folder=folder,
            env={
                "TOOLLEDGER_KAFKA": kafka_address,
                "TOOLLEDGER_CLICKHOUSE": proxy.url + database.path,
                "TOOLLEDGER_QUERY_PORT": str(port),
                "TOOLLEDGER_LOG_LEVEL": "debug",
            },
        )
        stack.callback(query.end)
        ingest = stack.enter_context(IngestService.start(kafka_address, folder, query_url=query_url))
        http = stack.enter_context(httpx.Client(timeout=60))
        made = Site(kafka=kafka_address, clickhouse=proxy, ingest=ingest, query=query, query_url=query_url, http=http)
        eventually("the query service is ready", lambda: _status(http, f"{query_url}/readyz") == 200)
        yield made


def _status(http: httpx.Client, url: str) -> int:
    try:
        return http.get(url).status_code
    except httpx.TransportError:
        return 0


def test_each_key_may_do_what_its_scope_says_and_nothing_once_it_is_revoked(site: Site) -> None:
    """Created, in force at both services within seconds; listed without itself; revoked, and refused within seconds."""
    may = {
        ("--project", "keys_a", "--org", "keys_org"): (202, 200, 403),
        ("--project", "keys_a", "--scope", "read"): (403, 200, 403),
        ("--project", "keys_a", "--scope", "ingest"): (202, 403, 403),
        # To ingest another header than a project's is no key of a project at all.
        ("--org", "keys_org"): (401, 403, 200),
    }
    made = {arguments: site.create(*arguments) for arguments in may}
    for arguments, (_, key) in made.items():
        eventually(f"{arguments} is in force", lambda key=key, now=may[arguments]: site.allowed(key) == now, timeout_s=SECONDS)
    listed = site.keys("list", "--json")
    assert {made_id for made_id, _ in made.values()} <= {json.loads(line)["id"] for line in listed.splitlines()}
    assert not any(key in listed or key[8:] in listed for _, key in made.values())
    for arguments, (key_id, key) in made.items():
        site.keys("revoke", key_id)
        eventually(f"{arguments} is refused", lambda key=key: site.allowed(key) == (401, 401, 401), timeout_s=SECONDS)
        # All others go on as they were.
        for others, (_, other) in list(made.items())[list(made).index(arguments) + 1 :]:
            assert site.allowed(other) == may[others]
    assert "no key" in site.keys("revoke", "key_of_nobody", status=1)


def test_a_key_is_never_written(site: Site) -> None:
    """However it is sent, rightly, wrongly or twice: no log line, no error and no metric of either service holds it."""
    key_id, good = site.create("--project", "keys_b")
    eventually("the key is in force", lambda: site.allowed(good)[0] == 202, timeout_s=SECONDS)
    wrong = "ak_" + secrets.token_urlsafe(24)
    bodies = [site.keys("list")]
    for key in (good, wrong):
        for base in (site.ingest.url, site.query_url):
            for path in ("/v1/events", "/v1/usage", "/v1/freshness", "/nowhere", "/readyz"):
                for headers in _ways_to_send(key):
                    for method in ("GET", "POST"):
                        sent = [(name.encode(), value.encode()) for name, value in headers]
                        reply = site.http.request(method, base + path, headers=sent, params={"api_key": key, "key": key})
                        bodies.append(reply.text + str(dict(reply.headers)))
        site.http.post(f"{site.ingest.url}/v1/events", headers={"x-api-key": key}, content=b"{")
    site.keys("revoke", key_id)
    eventually("it is revoked", lambda: site.allowed(good)[0] == 401, timeout_s=SECONDS)
    bodies += [site.http.get(f"{base}/metrics").text for base in (site.ingest.url, site.query_url)]
    written = site.said()
    assert "request_refused" in written, "both services do write of what they refuse"
    for key in (good, wrong):
        assert not any(key[8:] in body for body in bodies)
        assert key[8:] not in written
        assert key[8:] not in " ".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in (site.query.process.pid,))


def _ways_to_send(key: str) -> list[list[tuple[str, str]]]:
    return [
        [("x-api-key", key)],
        [("x-org-api-key", key)],
        [("x-user-api-key", key)],
        [("authorization", f"Bearer {key}")],
        [("cookie", f"key={key}")],
        [("x-api-key", key), ("x-api-key", key)],
        [("x-api-key", key), ("authorization", f"Bearer {key}")],
        [("x-api-key", key), ("x-request-id", f"{key} {key}")],
        [("x-api-key", key + "\u00fc")],
    ]


def test_a_stop_answers_what_is_in_flight(site: Site) -> None:
    """On SIGTERM the question that is being worked on is answered; idle and half-dead connections do not hold it up; exit 0."""
    _, key = site.create("--project", "keys_c")
    eventually("the key is in force", lambda: site.allowed(key)[1] == 200, timeout_s=SECONDS)
    site.clickhouse.switch(Fault(how="delay", seconds=3))
    replies: list[httpx.Response] = []

    def ask() -> None:
        replies.append(
            HTTP.post(f"{site.query_url}/api/v3.1/logs/tool_execution", json={}, headers={"x-api-key": key}, timeout=60)
        )

    asking = threading.Thread(target=ask)
    try:
        met = site.clickhouse.met
        asking.start()
        eventually("the question has reached ClickHouse", lambda: site.clickhouse.met > met)
        with httpx.Client() as idle, contextlib.closing(_half_a_head(site.query_url)):
            idle.get(f"{site.query_url}/healthz")
            site.query.send_signal(signal.SIGTERM)
            asking.join(60)
            assert site.query.process.wait(60) == 0
    finally:
        site.clickhouse.switch(PASS)
    (reply,) = replies
    assert reply.status_code == 200
    assert reply.json() == {"logs": [], "next_cursor": None}
    assert "query_stopped" in site.query.said()


def _half_a_head(url: str) -> socket.socket:
    half = socket.create_connection(("127.0.0.1", urlsplit(url).port or 80))
    half.sendall(b"GET /healthz HTTP/1.1\r\nhost: ")
    return half
