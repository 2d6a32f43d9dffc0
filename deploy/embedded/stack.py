"""`toolledger up`: the whole stack on one machine, from an empty folder to one public address, and back down again.

Order of a start, each step only when the one before holds: (1) folder, lock and public port; (2) Kafka and ClickHouse, side
by side; (3) topics and tables; (4) query, workers and ingest, side by side; (5) `stack.json`, the address; (6) the demo.
A stop goes the other way round. Killed with SIGKILL at any point, nothing is left running and the next start goes on.
"""

import asyncio
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.embedded import stack_file, stack_ports
from deploy.embedded.process import FolderLock, die_with_parent, ensure_folder, free_port, require_free_port
from deploy.embedded.speaker import Speaker
from deploy.embedded.stack_parts import (
    DATABASE,
    Part,
    clickhouse_part,
    gateway_settings,
    ingest_part,
    kafka_part,
    query_part,
    reachable,
    settings,
    toolledger,
    worker_part,
)
from deploy.embedded.stack_process import BoundedLog, PartProcess
from ingest.contract.errors import LedgerError

_USAGE: Final = 2
_FAILED: Final = 1
# How long after the start what is past its retention is taken away, and how often from then on.
_RETENTION_FIRST_S: Final = 300.0
_RETENTION_EVERY_S: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `toolledger up` was asked for; `kafka`, `clickhouse` and `upstream` are addresses of servers not ours to run."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8600
    workers: int = 1
    demo: bool = False
    kafka: str | None = None
    clickhouse: str | None = None
    upstream: str | None = None
    as_json: bool = False


def run(options: Options) -> int:
    """Run the stack until SIGTERM, SIGINT or SIGHUP.

    Returns:
        0 after a stop that was asked for, 1 when a part does not come up, 2 when folder, port or settings do not allow it.
    """
    import setproctitle

    setproctitle.setproctitle("toolledger up")
    data = ensure_folder(options.data)
    lock = FolderLock(data / stack_file.LOCK, owner="toolledger up")
    try:
        port = options.port or free_port()
        require_free_port(options.host, port)
        return asyncio.run(_Stack(options, data, port).run())
    finally:
        lock.release()


class _Stop(Exception):
    """A signal asked for the end."""


class _Stack:
    """One run of the stack; `_running` holds the parts in the order they were started."""

    def __init__(self, options: Options, data: Path, port: int) -> None:
        self._options = options
        self._data = data
        self._port = port
        self._logs = data / "logs"
        self._running: list[list[PartProcess]] = []
        self._stop = asyncio.Event()
        self._retention: asyncio.Task[None] | None = None
        # With --json standard output belongs to programs.
        self._speaker = Speaker(sys.stderr if options.as_json else sys.stdout)
        self._say = self._speaker.say

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop)
        self._logs.mkdir(exist_ok=True)
        # What a killed stack left behind would send commands to addresses that are not there.
        stack_file.remove(self._data)
        code = 0
        try:
            await self._unless_stopped(self._bring_up())
            await self._stop.wait()
        except _Stop:
            pass
        except LedgerError as error:
            sys.stderr.write(f"toolledger: {error}\n")
            code = _USAGE if error.code == "configuration" else _FAILED
        finally:
            stack_file.remove(self._data)
            if self._retention is not None:
                self._retention.cancel()
                await asyncio.wait([self._retention])
            await self._bring_down()
            self._speaker.close()
        return code

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            # Asked twice: whoever waits does not want to wait for a clean stop.
            for process in (process for group in self._running for process in group):
                process.kill()
        self._stop.set()

    async def _unless_stopped(self, work: "asyncio.Future[None] | object") -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            raise _Stop
        await task

    async def _bring_up(self) -> None:
        options = self._options
        ports = stack_ports.choose(self._data, self._port, options.workers)
        kafka = options.kafka or f"127.0.0.1:{ports.kafka}"
        clickhouse = options.clickhouse or f"http://127.0.0.1:{ports.clickhouse}/{DATABASE}"
        environment = settings(kafka, clickhouse, self._data)

        servers: list[Part] = []
        if options.kafka is None:
            servers.append(kafka_part(self._data, ports.kafka))
        if options.clickhouse is None:
            servers.append(clickhouse_part(self._data, ports.clickhouse))
        await self._start(servers)
        await asyncio.gather(
            self._once("topics", toolledger("topics", "--kafka", kafka), environment),
            self._once("migrate", toolledger("migrate"), environment),
        )
        self._say("topics and tables ready")
        workers = [worker_part(number, options.workers, port, environment) for number, port in enumerate(ports.workers, 1)]
        gateway = gateway_settings(self._data, options.upstream, os.environ)
        ingest = ingest_part(options.host, self._port, ports.query, environment | gateway)
        await self._start([query_part(ports.query, environment), *workers, ingest])

        stack = stack_file.Stack(
            url=f"http://{reachable(options.host)}:{self._port}",
            kafka=kafka,
            clickhouse=clickhouse,
            query=f"http://127.0.0.1:{ports.query}",
            workers=tuple(f"http://127.0.0.1:{port}" for port in ports.workers),
            pid=os.getpid(),
        )
        stack_file.write(self._data, stack)
        if gateway:
            self._say(f"tools run at {gateway['TOOLLEDGER_UPSTREAM']} and are recorded")
        if options.demo:
            await self._start_demo(stack, environment)
        self._say(f"toolledger is ready at {stack.url} (Ctrl-C stops it)")
        if options.as_json:
            ready = {"event": "ready", "url": stack.url, "kafka": kafka, "clickhouse": clickhouse, "pid": stack.pid}
            sys.stdout.write(json.dumps(ready) + "\n")
            sys.stdout.flush()
        elif options.demo:
            self._say(_next_steps(stack.url, stack_file.demo_key(self._data) or ""))
        self._retention = asyncio.create_task(self._keep_retention(environment), name="retention")

    async def _keep_retention(self, environment: dict[str, str]) -> None:
        """Have taken away what is past its retention, for as long as the stack runs; what was in the way is said."""
        pause_s = _RETENTION_FIRST_S
        while True:
            await asyncio.sleep(pause_s)
            pause_s = _RETENTION_EVERY_S
            try:
                for line in await self._once("retention", toolledger("retention", "--data", str(self._data)), environment):
                    if "taken away" in line:
                        self._say(f"retention: {line}")
            except LedgerError as error:
                self._say(str(error))

    async def _start(self, parts: Sequence[Part]) -> None:
        """Start parts side by side; say each as it becomes ready."""
        group = [PartProcess(part, logs=self._logs, say=self._say) for part in parts]
        self._running.append(group)
        for process in group:
            process.start()

        async def settle(process: PartProcess) -> None:
            await process.wait_ready()
            where = "" if process.part.kind == "demo" else f" at {process.part.address}"
            self._say(f"{process.part.name} ready{where} (pid {process.pid})")

        try:
            async with asyncio.TaskGroup() as tasks:
                for process in group:
                    tasks.create_task(settle(process))
        except ExceptionGroup as errors:
            # One line is said; the first fault is the one that stopped the others.
            raise errors.exceptions[0] from None

    async def _once(self, name: str, command: Sequence[str], environment: dict[str, str]) -> list[str]:
        """Run a command that ends, and return its lines; the last one says what went wrong."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **environment},
            process_group=0,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        try:
            assert process.stdout is not None
            lines: list[str] = []
            with contextlib.closing(BoundedLog(self._logs / f"{name}.log")) as log:
                async for line in process.stdout:
                    log.write(line)
                    lines.append(line.decode(errors="replace").strip())
                    if lines[-1].startswith(("importing ", "imported ", "waiting for ")):
                        self._say(f"{name}: {lines[-1]}")
            if await process.wait() != 0:
                reason = next((line for line in reversed(lines) if line), "no word why").removeprefix("toolledger: ")
                raise LedgerError(f"{name}: {reason}")
            return lines
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _start_demo(self, stack: stack_file.Stack, environment: dict[str, str]) -> None:
        environment = {**environment, "TOOLLEDGER_URL": stack.url}
        await self._once("demo", (sys.executable, "-m", "deploy.demo", str(self._data)), environment)
        # The demo's own key, whatever key the person who started us has in the environment.
        environment["TOOLLEDGER_API_KEY"] = stack_file.demo_key(self._data) or ""
        arguments = ("simulate", "--data", str(self._data))
        part = Part(name="demo", arguments=arguments, environment=environment, port=self._port, listens=False, stop_s=5)
        await self._start([part])

    async def _bring_down(self) -> None:
        if self._running:
            self._say("stopping")
        for group in reversed(self._running):
            # Ingest before the others of its group: what it has taken it can still hand to Kafka.
            front = [process for process in group if process.part.kind == "ingest"]
            await asyncio.gather(*(process.stop() for process in front))
            await asyncio.gather(*(process.stop() for process in group if process not in front))
        if self._running:
            self._say("stopped; nothing is left running")


def _next_steps(url: str, key: str) -> str:
    """Return what to open, and three commands that work as printed."""
    head = f"-H {shlex.quote('x-api-key: ' + key)} -H 'content-type: application/json'"
    failed = '{"limit":3,"filters":[{"field":"status","operator":"==","value":"failed"}]}'
    event = '{"tool_slug":"GMAIL_SEND_EMAIL","status":"success","duration_ms":120,"user_id":"user_123"}'
    return f"""
open {url}/ in a browser and enter the key of project demo: {key}

what failed lately:
  curl -s {url}/api/v3.1/logs/tool_execution {head} -d '{failed}'
calls by toolkit:
  curl -s {url}/api/v3.1/project/usage/toolkit {head} -d '{{"limit":10}}'
enter a call of your own:
  curl -s {url}/v1/events {head} -d '{event}'
"""
