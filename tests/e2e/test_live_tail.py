"""Tail and export through the one address of a running stack, while the query service is killed."""

import asyncio
import csv
import fcntl
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.support.pipeline import eventually
from tests.support.sse import EventStream
from tests.support.stack import ROOT, Stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

STREAM = "/v1/logs/stream"
TOTAL = 1_200
USERS = ("ann", "bob", "eve")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(Path(tmp_path_factory.mktemp("stack")))
    made.start()
    assert made.up is not None
    # Nobody reads what `up` says of all the parts that are killed here: a full pipe must hold nothing up.
    fcntl.fcntl(made.up.process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    made.key = made.create_key("acme")
    yield made
    began_s = time.monotonic()
    made.stop()
    # Streams that are open do not hold up a stop.
    assert time.monotonic() - began_s < 60


def query_process(stack: Stack) -> psutil.Process | None:
    assert stack.up is not None
    for child in psutil.Process(stack.up.process.pid).children():
        try:
            if "toolledger query" in " ".join(child.cmdline()):
                return child
        except psutil.NoSuchProcess:
            continue  # it ended while it was looked at
    return None


def kill_query(stack: Stack) -> psutil.Process:
    found = query_process(stack)
    assert found is not None
    found.kill()
    return found


def another_query(stack: Stack, former: psutil.Process) -> bool:
    found = query_process(stack)
    return found is not None and found.pid != former.pid


class Follower:
    """Comes back with its last id until it has all it should have."""

    def __init__(self, stack: Stack, query: str, wanted: int) -> None:
        self.seen = EventStream()
        self.opened = asyncio.Event()
        self.breaks = 0
        self._stack, self._query, self._wanted = stack, query, wanted

    async def follow(self, http: aiohttp.ClientSession) -> None:
        while len(self.seen.logs) < self._wanted:
            headers = {"x-api-key": self._stack.key} | ({"last-event-id": self.seen.last_id} if self.seen.last_id else {})
            try:
                async with http.get(self._stack._url(STREAM) + self._query, headers=headers) as response:
                    if response.status == 200:
                        async for _ in self.seen.read(response):
                            self.opened.set()
                            if len(self.seen.logs) >= self._wanted:
                                return
                    else:
                        assert response.status in (502, 503, 504), await response.text()
            except aiohttp.ClientError:
                pass  # what is being tested: a connection may break at any time
            self.breaks += 1
            await asyncio.sleep(0.1)


async def send(stack: Stack, http: aiohttp.ClientSession) -> list[dict[str, Any]]:
    """Send events in requests of any size, some of them long past; return them all."""
    chance = random.Random(7)
    events = []
    while len(events) < TOTAL:
        batch = [
            {
                "id": f"log_{len(events) + one}",
                "tool_slug": "GMAIL_SEND_EMAIL",
                "status": chance.choice(["success", "failed"]),
                "duration_ms": 1,
                "user_id": chance.choice(USERS),
                "message": "m" * 8_000,
                **({"timestamp": "2026-10-01T00:00:00Z"} if chance.random() < 0.2 else {}),
            }
            for one in range(min(chance.choice([1, 10, 60]), TOTAL - len(events)))
        ]
        async with http.post(stack._url("/v1/events"), json=batch, headers={"x-api-key": stack.key}) as response:
            assert response.status == 202, await response.text()
        events += batch
        await asyncio.sleep(0.05)
    return events


async def test_each_log_once_though_the_query_service_is_killed(stack: Stack) -> None:
    """Readers over HTTP and the command line see each log that fits exactly once through two kills."""
    arguments = [ROOT / ".venv" / "bin" / "toolledger", "logs", "--follow", "--failed", "--json", "--data", str(stack.data)]
    command = await asyncio.create_subprocess_exec(
        *map(str, arguments),
        env={**os.environ, "TOOLLEDGER_API_KEY": stack.key},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=1 << 20,
    )
    assert command.stdout is not None
    # It follows once it has shown one.
    hello = {"id": "hello", "tool_slug": "A", "status": "failed", "duration_ms": 1}
    stack.post("/v1/events", hello)
    assert json.loads(await asyncio.wait_for(command.stdout.readline(), 60))["id"] == "hello"
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        followers = {name: Follower(stack, f"?user_id={name}&status=failed", 10**9) for name in USERS}
        followers["all"] = Follower(stack, "", 10**9)
        tasks = [asyncio.create_task(one.follow(http)) for one in followers.values()]
        await asyncio.wait_for(asyncio.gather(*(one.opened.wait() for one in followers.values())), 60)
        sending = asyncio.create_task(send(stack, http))
        for _ in range(2):
            await asyncio.sleep(1)
            former = kill_query(stack)
            await asyncio.to_thread(eventually, "it is started again", lambda former=former: another_query(stack, former))
        events = await sending
        expected = {name: [e["id"] for e in events if e["user_id"] == name and e["status"] == "failed"] for name in USERS}
        expected["all"] = [e["id"] for e in events]
        async with asyncio.timeout(120):
            while any(not {log["id"] for log in followers[name].seen.logs} >= set(expected[name]) for name in followers):
                # One that failed says why.
                assert not [task.exception() for task in tasks if task.done()]
                await asyncio.sleep(0.1)
        failed = sorted(e["id"] for e in events if e["status"] == "failed")
        shown: list[str] = []
        async with asyncio.timeout(60):
            while len(shown) < len(failed):
                line = await command.stdout.readline()
                assert line, (await command.communicate())[1]
                shown.append(json.loads(line)["id"])
        command.send_signal(signal.SIGINT)
        _, said = await command.communicate()
        for task in tasks:
            task.cancel()
    for name, follower in followers.items():
        # A log can be found before it is proved, so whoever begins then may see it come.
        seen = [log["id"] for log in follower.seen.logs if log["id"] != "hello"]
        assert sorted(seen) == sorted(expected[name]), name
        assert follower.breaks >= 1
    assert sorted(shown) == failed
    assert command.returncode == 130
    assert b"connection lost" in said
    assert b"following again, nothing was missed" in said
    assert b"Traceback" not in said


async def test_an_export_is_whole_or_an_error(stack: Stack, tmp_path: Path) -> None:
    """The command line writes all logs to a file; a file cut short by a kill is an error for whoever reads it."""
    await asyncio.to_thread(stack.proved)
    file = tmp_path / "logs.csv"
    await asyncio.to_thread(stack.toolledger, "logs", "--output", str(file), env={"TOOLLEDGER_API_KEY": stack.key})
    with file.open(newline="", encoding="utf-8") as opened:
        assert sorted(row["id"] for row in csv.DictReader(opened)) == sorted(["hello", *(f"log_{one}" for one in range(TOTAL))])
    assert os.listdir(tmp_path) == ["logs.csv"]
    async with (
        aiohttp.ClientSession() as http,
        http.get(stack._url("/v1/logs/export"), headers={"x-api-key": stack.key, "accept-encoding": "identity"}) as response,
    ):
        assert int(response.headers["x-total-count"]) == TOTAL + 1
        await response.content.readany()
        kill_query(stack)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
