"""The whole stack as users start it: `toolledger up` in a folder of the test's own."""

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from deploy.verify import Report, lag_records, verify
from tests.support.parts import await_line, popen
from tests.support.pipeline import eventually
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]


class Up:
    """One running `toolledger up --json`."""

    def __init__(self, data: Path, port: int, *options: str, env: Mapping[str, str] | None = None) -> None:
        arguments = ["up", "--data", str(data), "--port", str(port), "--json", *options]
        self.process = popen(arguments, settings=dict(env or {}))
        # The line of --json is the only one on standard output; the others come on the same pipe here.
        self.ready = json.loads(await_line(self.process, '"event": "ready"'))
        self.parts = {child.cmdline()[0].strip(): child for child in psutil.Process(self.process.pid).children()}
        self.all = psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stop it and see that nothing is left running; return its status."""
        self.process.send_signal(number)
        self.process.communicate(timeout=120)
        _, alive = psutil.wait_procs(self.all, timeout=60)
        assert alive == [], "parts were left running"
        return self.process.returncode


class Stack:
    """A stack that may be stopped and started again on the same data, and a key to ask it with."""

    def __init__(self, data: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.data = data
        self.port = free_port()
        self.env = dict(env or {})
        self.up: Up | None = None
        self.key = ""
        self._http = httpx.Client(timeout=60)

    def start(self) -> None:
        self.up = Up(self.data, self.port, env=self.env)

    def stop(self) -> None:
        if self.up is not None and self.up.process.poll() is None:
            assert self.up.stop() == 0
        self.up = None

    def create_key(self, project: str) -> str:
        """Create a key with the command line, and wait until it is in force."""
        key = json.loads(self.toolledger("keys", "create", "--project", project, "--json"))["key"]
        self.await_key(key)
        return str(key)

    def await_key(self, key: str) -> None:
        """Wait until a key is in force; where it never is, the last answer is told."""
        answers: list[httpx.Response] = []

        def in_force() -> bool:
            answers[:] = [self.get("/v1/freshness", key=key)]
            return answers[0].status_code == 200

        try:
            eventually("the key is in force", in_force)
        except AssertionError as error:
            error.add_note(f"{answers[0]!r}: {answers[0].text}")
            raise

    def toolledger(self, *arguments: str, status: int = 0, env: Mapping[str, str] | None = None) -> str:
        """Run a command against the stack; return its standard output."""
        done = subprocess.run(
            [ROOT / ".venv" / "bin" / "toolledger", *arguments, "--data", str(self.data)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, **(env or {})},
        )
        assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def get(self, path: str, *, key: str = "", **params: Any) -> httpx.Response:
        return self._http.get(self._url(path), params=params, headers={"x-api-key": key or self.key})

    def post(self, path: str, body: Any, *, key: str = "", **headers: str) -> httpx.Response:
        sent = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self._http.post(self._url(path), headers={"x-api-key": key or self.key, **headers}, **sent)

    def proved(self) -> Report:
        """Wait until every record is proved, and return what `verify` says."""
        assert self.up is not None
        kafka, clickhouse = self.up.ready["kafka"], self.up.ready["clickhouse"]

        def prove() -> Report:
            eventually("every record is proved", lambda: not lag_records(kafka, clickhouse))
            return verify(kafka, clickhouse)

        # In a thread of its own: a test that drives a browser has an event loop in its thread, and there can be no other there.
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(prove).result()

    def _url(self, path: str) -> str:
        assert self.up is not None
        return f"{self.up.ready['url']}{path}"
