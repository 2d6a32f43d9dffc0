"""The pump between an MCP client and a stdio server: bytes as they come, ends and signals as if nothing stood between.

```
 client ──> fd 0 ──> inwards ──> server's stdin          client <── fd 1 <── outwards <── server's stdout
```
Standard error is the server's own: it inherits ours.
"""

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

from ingest.mcp.endings import Ending, server_exited
from ingest.mcp.frames import Kind
from ingest.mcp.tap import Tap

# What a pipe holds on Linux.
_PIECE_BYTES: Final = 65_536
# A child of the server may hold its standard output open for ever; so long we wait for more of it, once the server is gone.
_AFTERWARDS_MS: Final = 500
_LOOK_S: Final = 0.2
_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SHELL_SIGNAL_BASE: Final = 128


class Pump:
    """Runs one server; to be made and run in the main thread, where signals arrive."""

    def __init__(self, command: Sequence[str], tap: Tap, *, preexec: Callable[[], None] | None = None) -> None:
        """Start the server.

        Args:
            preexec: called in the child before it becomes the server.

        Raises:
            OSError: it cannot be started.
        """
        self._tap = tap
        self._signal = 0
        self._client_gone = False
        self._server_done = False
        self._abandoned = False
        self._server = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            preexec_fn=preexec,  # noqa: PLW1509 - the child only makes one system call, and no thread runs yet
        )
        # Its reading end becomes readable, at its end, when the server has exited.
        self._exit_seen, self._exit_told = os.pipe()

    def run(self) -> int:
        """Carry bytes until the server is gone.

        Returns:
            Its exit code; where a signal ended it, 128 and the signal's number, as shells say it.
        """
        # What our parent had us ignore, as `nohup` does, the server ignores too.
        for number in _PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:
                # It stays: once the server is gone, a signal must not take us away before its exit code is passed on.
                signal.signal(number, self._pass_on)
        threading.Thread(target=self._inwards, daemon=True).start()
        outwards = threading.Thread(target=self._outwards, daemon=True)
        outwards.start()
        code = self._server.wait()
        os.close(self._exit_told)
        while outwards.is_alive() and not self._abandoned:
            # A client may never read the rest; a signal then ends us, as the server is beyond its reach.
            outwards.join(_LOOK_S)
        return code if code >= 0 else _SHELL_SIGNAL_BASE - code

    def ending(self) -> Ending:
        """Say why the calls that are still open got no answer."""
        code = self._server.returncode
        if self._signal:
            name = signal.Signals(self._signal).name
            return Ending(why="interrupted", message=f"connection closed: {name} ended the server before it answered")
        if self._client_gone:
            return Ending(why="client_gone", message="connection closed: the client left before an answer came")
        return server_exited(code)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        if self._server.returncode is not None:
            self._abandoned = True
            return
        self._signal = number
        # Of a key pressed on a terminal the kernel has told the server as well.
        if number != signal.SIGINT or not os.isatty(0):
            with contextlib.suppress(ProcessLookupError):
                self._server.send_signal(number)

    def _inwards(self) -> None:
        assert self._server.stdin is not None, "it was asked for"
        target = self._server.stdin.fileno()
        while data := _read(0):
            self._tap.put(Kind.CLIENT, data)
            if not _write(target, data):
                # The server does not read any more: neither do we, so that the client learns of it as it would without us.
                _close(0, os.O_RDONLY)
                break
        else:
            # One who leaves because the server did is not the one who left.
            self._client_gone = not self._server_done
        self._tap.put(Kind.CLIENT_END)
        with contextlib.suppress(OSError):
            self._server.stdin.close()

    def _outwards(self) -> None:
        assert self._server.stdout is not None, "it was asked for"
        source = self._server.stdout.fileno()
        while self._more(source) and (data := _read(source)):
            self._tap.put(Kind.SERVER, data)
            if not _write(1, data):
                # Nobody reads: the server is to learn of it at its next word.
                self._client_gone = True
                break
        self._server_done = True
        self._server.stdout.close()
        _close(1, os.O_WRONLY)

    def _more(self, source: int) -> bool:
        """Wait for bytes, or the end; false where the server is gone and another process keeps its output open in silence."""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.register(self._exit_seen, select.POLLIN)
        if any(descriptor == source for descriptor, _ in poll.poll()):
            return True
        poll.unregister(self._exit_seen)
        return bool(poll.poll(_AFTERWARDS_MS))


def _read(source: int) -> bytes:
    """Read what is there, or wait for it; nothing at the end."""
    while True:
        try:
            return os.read(source, _PIECE_BYTES)
        except BlockingIOError:
            # Whoever made the pipe may have made it non-blocking, for us too.
            _wait(source, select.POLLIN)
        except OSError:
            return b""


def _write(target: int, data: bytes) -> bool:
    """Write all; false where nobody reads any more."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BlockingIOError:
            _wait(target, select.POLLOUT)
        except OSError:
            return False
    return True


def _wait(descriptor: int, event: int) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()


def _close(descriptor: int, how: int) -> None:
    """Close a standard descriptor; its number stays taken, so that nothing else gets it."""
    nowhere = os.open(os.devnull, how)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
