"""The client in a server that forks, as it is run: gunicorn, with and without the application loaded before the fork."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support.answering import Answering
from tests.support.plain_http import HTTP
from tests.support.ports import HOST, free_port
from tests.support.process import eventually

ROOT: Final = Path(__file__).parents[2]
_WORKERS: Final = 2
# Nothing is sent before a process ends unless something makes it.
_APPLICATION: Final = """
import os
from ingest.client import ToolLedger

ledger = ToolLedger(api_key="ak_test", base_url=os.environ["SERVER"], spool=os.environ["SPOOL"], flush_interval_s=60)
ledger.record("A_TOOL", duration_ms=1, log_id=f"loaded-{os.getpid()}")

@ledger.tool("A_TOOL")
def tool(who):
    return who

def app(environ, start_response):
    tool(environ["PATH_INFO"][1:])
    start_response("200 OK", [("content-type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


class Gunicorn:
    """A running gunicorn with the application, and what it answered."""

    def __init__(self, folder: Path, server: Answering, *options: str) -> None:
        (folder / "application.py").write_text(_APPLICATION)
        self.port = free_port()
        bound = ("--workers", str(_WORKERS), "--bind", f"{HOST}:{self.port}")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *bound, *options, "application:app"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SERVER": server.url, "SPOOL": str(folder / "spool")},
        )
        self.called: list[str] = []
        eventually("gunicorn answers", lambda: self._ask("/") is not None)
        self.called.append("")

    def _ask(self, path: str) -> int | None:
        """Return the process that answered, None where nobody did."""
        try:
            return int(HTTP.get(f"http://{HOST}:{self.port}{path}", timeout=10).text)
        except httpx.TransportError:
            return None

    def call(self, name: str) -> int:
        """Record a call by one of the workers; return its process."""
        answered = self._ask(f"/{name}")
        assert answered is not None, name
        self.called.append(name)
        return answered


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as running:
        yield running


@pytest.mark.parametrize("options", [(), ("--preload",), ("--preload", "--worker-class", "gthread", "--threads", "4")])
def test_each_call_counts_once_through_a_reload_and_the_end(
    server: Answering, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """What old workers recorded is sent when a reload ends them, what new ones and the first process did at the end."""
    running = Gunicorn(tmp_path, server, *options)
    try:
        before: set[int] = set()
        for number in range(200):
            before.add(running.call(f"before-{number}"))
            if len(before) == _WORKERS and number >= 20:
                break
        os.kill(running.process.pid, signal.SIGHUP)
        eventually("new workers answer", lambda: running.call(f"between-{len(running.called)}") not in before)
        for number in range(20):
            running.call(f"after-{number}")
        running.process.terminate()
        assert running.process.wait(60) == 0
    finally:
        running.process.kill()
        running.process.wait()
    calls = [event for event in server.accepted if "data" in event]
    assert sorted(event["data"]["request"]["payload"]["who"] for event in calls) == sorted(running.called)
    loaded = [event["id"] for event in server.accepted if event["id"].startswith("loaded-")]
    assert len(loaded) == len(set(loaded))
    # Loaded once before the forks, and with `--preload` never again; otherwise by each worker, old and new.
    first = [f"loaded-{running.process.pid}"]
    assert loaded == first if "--preload" in options else len(loaded) >= 2 * _WORKERS
    assert not list((tmp_path / "spool").glob("*.gz"))
