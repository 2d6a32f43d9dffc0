"""One process of the stack: start it, see that it is ready, keep its log, start it again when it dies, stop it.

start ──> ready ──> (dies) ──> wait, longer each time ──> start ...
  └─ exit 2 before it was ever ready: settings are wrong, the whole start fails with its last line
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final

from deploy.embedded.process import accepts, die_with_parent, folder_fault, listens
from deploy.embedded.stack_parts import SERVERS, Part, reachable
from ingest.contract.errors import ConfigurationError, LedgerError

LOG_BYTES_MAX: Final = 10 * 1024 * 1024
_BACKOFF_S_MIN: Final = 0.5
_BACKOFF_S_MAX: Final = 10.0
# Alive for this long, a part counts as healthy, and its next death is not counted with those before.
_HEALTHY_S: Final = 60.0
# Deaths in a row before it was ever ready: it will not come up by itself.
_ATTEMPTS: Final = 5
# A message is said once in so long, and in that time so many different ones: who reads along is to understand, not to count.
_SAID_S: Final = 60.0
_SAID_MAX: Final = 30
_POLL_S: Final = 0.05
_PROBE_S: Final = 5.0
_LEVELS: Final = ("warning", "error", "critical")
_USAGE: Final = 2

Say = Callable[[str], None]


class BoundedLog:
    """A log file of at most twice LOG_BYTES_MAX, the older half in `NAME.1`."""

    def __init__(self, path: Path) -> None:
        """Open the file to append to it.

        Raises:
            ConfigurationError: it cannot be written.
        """
        self._path = path
        try:
            self._file = self._open()
        except OSError as error:
            raise ConfigurationError(folder_fault(path, error)) from None

    def write(self, chunk: bytes) -> None:
        """Append, and start a new file when this one is full. What the disk has no room for is left out.

        An error here would end the watch over the part, which then waits for ever for somebody to read what it says.
        """
        with contextlib.suppress(OSError):
            self._file.write(chunk)
            if self._file.tell() > LOG_BYTES_MAX:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                full, self._file = self._file, self._open()
                full.close()

    def _open(self) -> FileIO:
        # Without a buffer: what could not be written would stay in it.
        return self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class PartProcess:
    """Runs one part. `ready` is set while it answers; `failed` says why it never will."""

    def __init__(self, part: Part, *, logs: Path, say: Say) -> None:
        """Prepare; nothing is started yet.

        Args:
            part: what to run.
            logs: folder of the log files.
            say: takes lines for people: deaths, warnings, progress of long steps.
        """
        self.part = part
        self.ready = asyncio.Event()
        self.failed: LedgerError | None = None
        self.starts = 0
        self._say = say
        self._log_path = logs / f"{part.name}.log"
        self._log = BoundedLog(self._log_path)
        self._process: Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._last_line = ""
        self._said: dict[str, float] = {}
        self._was_ready = False

    def start(self) -> None:
        """Begin to run it and to keep it running."""
        self._task = asyncio.create_task(self._keep_running(), name=f"stack-{self.part.name}")

    @property
    def pid(self) -> int | None:
        """The process number while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def wait_ready(self) -> None:
        """Wait until it answers.

        Raises:
            LedgerError: it will not, and why.
        """
        assert self._task is not None
        waiter = asyncio.create_task(self.ready.wait())
        await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self.failed is not None:
            raise self.failed

    async def stop(self) -> None:
        """Stop it: ask, wait as long as a clean stop may take, then insist."""
        self._stopping.set()
        if self._task is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.part.stop_s):
                await asyncio.shield(self._task)
        except TimeoutError:
            self._say(f"{self.part.name} did not stop within {self.part.stop_s:g} s and is killed")
            self.kill()
            await self._task
        self._log.close()

    def kill(self) -> None:
        """End it at once."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _keep_running(self) -> None:
        backoff_s = _BACKOFF_S_MIN
        deaths = 0
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            code = await self._run_once()
            if self._stopping.is_set():
                return
            deaths += 1
            if not self._was_ready and (code == _USAGE or deaths >= _ATTEMPTS):
                self.failed = self._fault(code)
                return
            if loop.time() - started > _HEALTHY_S:
                backoff_s = _BACKOFF_S_MIN
            reason = f": {self._last_line}" if code == _USAGE else ""
            again = f"it is started again in {backoff_s:g} s, log in {self._log_path}"
            self._say(f"{self.part.name} ended ({_ending(code)}){reason}; {again}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s):
                    await self._stopping.wait()
            backoff_s = min(2 * backoff_s, _BACKOFF_S_MAX)

    def _fault(self, code: int) -> LedgerError:
        if self.part.listens and accepts(reachable(self.part.host).strip("[]"), self.part.port):
            return ConfigurationError(
                f"{self.part.name}: another program took port {self.part.port} during the start: start again, with another"
                " --port if it is the public one"
            )
        # The part said it in one line, with its own name in front; ours is added by who prints it.
        line = self._last_line.removeprefix("toolledger: ").removeprefix(f"toolledger {self.part.kind}: ")
        if code == _USAGE and line:
            return ConfigurationError(f"{self.part.name}: {line}")
        return LedgerError(
            f"{self.part.name} does not start ({_ending(code)}): {line or 'no word why'}; log in {self._log_path}"
        )

    async def _run_once(self) -> int:
        orphaned = signal.SIGTERM if self.part.kind in SERVERS else signal.SIGKILL
        self._process = process = await asyncio.create_subprocess_exec(
            *self.part.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self.part.environment},
            # A Ctrl-C at the terminal reaches only us, so that we can stop the parts in order.
            process_group=0,
            preexec_fn=die_with_parent(orphaned),
        )
        self.starts += 1
        self._last_line = ""
        watcher = asyncio.create_task(self._watch_ready(process.pid))
        try:
            await self._read_output(process)
            return await process.wait()
        finally:
            watcher.cancel()
            self.ready.clear()

    async def _watch_ready(self, pid: int) -> None:
        # Another program may have taken the port since it was chosen, and answer there: another stack's part even.
        while not (await answers(self.part) and await self._is_its_own(pid)):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(_POLL_S)
        if self.starts > 1:
            self._say(f"{self.part.name} is ready again")
        self._was_ready = True
        self.ready.set()

    async def _is_its_own(self, pid: int) -> bool:
        return not self.part.listens or await asyncio.to_thread(listens, pid, self.part.port)

    async def _read_output(self, process: Process) -> None:
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(65_536):
            self._log.write(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            # A line without end must not grow in memory.
            rest = rest[-65_536:]
            for line in lines:
                self._notice(line.decode(errors="replace").strip())

    def _notice(self, line: str) -> None:
        """Remember the last line for people; pass on progress, warnings and errors."""
        if not line:
            return
        important = important_line(line)
        if important is None:
            return
        if not line.startswith("{"):
            self._last_line = line
        if important and not self._stopping.is_set() and self._is_news(important):
            self._say(f"{self.part.name}: {important}")

    def _is_news(self, message: str) -> bool:
        """Tell whether it was not said a moment ago: a fault that repeats is said now and then; its log has every line."""
        now_s = time.monotonic()
        self._said = {said: at_s for said, at_s in self._said.items() if now_s - at_s < _SAID_S}
        if message in self._said or len(self._said) >= _SAID_MAX:
            return False
        self._said[message] = now_s
        return True


def important_line(line: str) -> str | None:
    """Return what to show people of a line: "" for nothing, None for a line that is no message at all.

    JSON lines are shown from level warning on; of plain lines, those that tell progress of a long step.
    """
    if line.startswith("{"):
        try:
            members = json.loads(line)
        except ValueError:
            return None
        if not isinstance(members, dict) or members.get("level") not in _LEVELS:
            return ""
        details = [f"{name}={members[name]}" for name in ("error", "reason", "message", "path") if members.get(name)]
        return " ".join([str(members.get("event", "")).strip(), *details])[:300]
    return line if line.startswith(("fetching ", "preparing ", "importing ", "imported ")) else ""


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


async def answers(part: Part) -> bool:
    """Tell whether a part is ready: it accepts connections and, where it has one, its ready path answers 200."""
    try:
        async with asyncio.timeout(_PROBE_S):
            reader, writer = await asyncio.open_connection(part.host if part.host != "0.0.0.0" else "127.0.0.1", part.port)  # noqa: S104
            try:
                if part.ready_path is None:
                    return True
                writer.write(f"GET {part.ready_path} HTTP/1.1\r\nHost: {part.host}\r\nConnection: close\r\n\r\n".encode())
                status = await reader.readline()
                return status.split()[1:2] == [b"200"]
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False
