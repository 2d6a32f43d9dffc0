"""The jars of the embedded broker: which ones, where they lie, and how they are brought from Maven Central.

`kafka_jars.txt` pins every file by name, size and hash. A complete cache is recognised by sizes alone (46 stat calls), so
that a warm start neither resolves nor hashes anything. After a change of KAFKA_VERSION: `python -m deploy.embedded.kafka_jars`
resolves anew through jgo and prints the new pins.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.embedded.process import cache_folder, die_with_parent
from ingest.contract.errors import ConfigurationError

KAFKA_VERSION: Final = "4.3.1"
_PINS: Final = Path(__file__).with_name("kafka_jars.txt")
# slf4j's bridge to log4j stands in Kafka's distribution, not among the dependencies of its jar; the version is log4j's.
_LOGGING_BRIDGE: Final = ("org.apache.logging.log4j", "log4j-slf4j-impl", "log4j-core")
# Connections at once: enough to hide the round trips of small files, few enough to be a polite client.
_CONNECTIONS: Final = 8
_HTTP_TIMEOUT_S: Final = 20
_ATTEMPTS: Final = 3

_PROGRESS: Final = "fetching "

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Jar:
    """One pinned file, laid out as in a Maven repository."""

    group: str
    artifact: str
    version: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.artifact}-{self.version}.jar"

    def path(self, repository: Path) -> Path:
        """Place of the file in a Maven repository."""
        return repository.joinpath(*self.group.split("."), self.artifact, self.version, self.name)


def pins(text: str | None = None) -> tuple[Jar, ...]:
    """Read the pins: one `group:artifact:version size sha256` a line."""
    jars = []
    for line in (_PINS.read_text(encoding="utf-8") if text is None else text).splitlines():
        if line and not line.startswith("#"):
            coordinate, size, sha256 = line.split()
            group, artifact, version = coordinate.split(":")
            jars.append(Jar(group=group, artifact=artifact, version=version, size=int(size), sha256=sha256))
    return tuple(jars)


def repository() -> Path:
    """Return the folder that holds the jars."""
    return cache_folder() / "maven"


def missing(jars: Iterable[Jar], folder: Path) -> list[Jar]:
    """List the jars that are absent or cut short."""
    return [jar for jar in jars if not jar.path(folder).is_file() or jar.path(folder).stat().st_size != jar.size]


def ensure(say: Say) -> tuple[Path, ...]:
    """Return the class path, after fetching what the cache does not hold.

    Args:
        say: takes one line of progress at a time.

    Raises:
        ConfigurationError: the cache cannot be written, or a file could not be fetched or is not what was pinned.
    """
    jars, folder = pins(), repository()
    if missing(jars, folder):
        _fetch_apart(say)
    return tuple(jar.path(folder) for jar in jars)


def _fetch_apart(say: Say) -> None:
    """Fetch in a process of its own: what it takes in memory would stay with a server that runs for months."""
    fetcher = subprocess.Popen(
        [sys.executable, "-m", "deploy.embedded.kafka_jars", "fetch"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - the child only makes one system call
    )
    fault = ""
    try:
        assert fetcher.stdout is not None
        for line in fetcher.stdout:
            if line.startswith(_PROGRESS):
                say(line.strip())
            else:
                fault = line.strip() or fault
        if fetcher.wait() != 0:
            raise ConfigurationError(fault)
    finally:
        fetcher.kill()
        fetcher.communicate()


def fetch(say: Say) -> None:
    """Bring what the cache does not hold.

    Raises:
        ConfigurationError: as `ensure`.
    """
    folder = repository()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Two stacks that start at once must not write the same file; the second finds everything there.
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _fetch(missing(pins(), folder), folder, say)
    except OSError as error:
        raise ConfigurationError(
            f"the cache {folder} cannot be written ({error.strerror}): name another folder in TOOLLEDGER_CACHE"
        ) from None


def _fetch(jars: list[Jar], folder: Path, say: Say) -> None:
    if not jars:
        return
    context = _context(folder)
    total = sum(jar.size for jar in jars)
    fetched = files = 0
    lock = threading.Lock()
    say(f"fetching Kafka {KAFKA_VERSION} from Maven Central, once: {len(jars)} files, {total / 1e6:.0f} MB")

    def one(jar: Jar) -> None:
        nonlocal fetched, files
        _fetch_one(context, jar, folder)
        with lock:
            fetched, files = fetched + jar.size, files + 1
            if files % 8 == 0 or files == len(jars):
                say(f"fetching Kafka: {files} of {len(jars)} files, {fetched / 1e6:.0f} of {total / 1e6:.0f} MB")

    # The largest first, so that the end is not one long file alone.
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        pending = [pool.submit(one, jar) for jar in sorted(jars, key=lambda jar: -jar.size)]
        try:
            for each in pending:
                each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch_one(context: Any, jar: Jar, folder: Path) -> None:
    import requests

    path = jar.path(folder)
    for attempt in range(1, _ATTEMPTS + 1):
        # jgo writes in place: what an interrupted fetch left there would be taken for the file.
        path.unlink(missing_ok=True)
        try:
            context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        except (requests.RequestException, RuntimeError) as error:
            if attempt == _ATTEMPTS:
                path.unlink(missing_ok=True)
                raise ConfigurationError(
                    f"could not fetch {jar.name} from Maven Central ({_cause(error)}): "
                    "connect to the network once, or use a Kafka of your own with --kafka ADDRESS"
                ) from None
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256:
            return
    path.unlink(missing_ok=True)
    raise ConfigurationError(
        f"{jar.name} from Maven Central is not the file that was pinned: something on the way changes it; "
        "use a Kafka of your own with --kafka ADDRESS"
    )


def _cause(error: Exception) -> str:
    import requests

    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error).split(" in remote repositories")[0]


def _context(folder: Path) -> Any:
    """Open jgo; TOOLLEDGER_MAVEN names a mirror of Maven Central where the network asks for one."""
    # Imported here: jgo brings requests, which a warm start does not need.
    from jgo.maven import MavenContext

    mirror = os.environ.get("TOOLLEDGER_MAVEN")
    remotes = {"central": mirror.rstrip("/")} if mirror else None
    return MavenContext(repo_cache=folder, remote_repos=remotes, timeout=_HTTP_TIMEOUT_S)


def _resolve(folder: Path) -> list[str]:
    """Resolve KAFKA_VERSION with all it needs at run time, fetch it, and return the lines of the pin file."""
    from jgo.parse import Coordinate

    context = _context(folder)
    kafka = Coordinate(groupId="org.apache.kafka", artifactId="kafka_2.13", version=KAFKA_VERSION, scope="compile")
    inputs, transitive = context.resolver.resolve([context.create_dependency(kafka)])
    artifacts = [each.artifact for each in (*inputs, *(one for one in transitive if one.scope in ("compile", "runtime")))]
    group, name, twin = _LOGGING_BRIDGE
    version = next(each.version for each in artifacts if each.artifactId == twin)
    artifacts.append(context.project(group, name).at_version(version).artifact())
    lines = []
    for artifact in artifacts:
        content = artifact.resolve().read_bytes()
        coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
        lines.append(f"{coordinate} {len(content)} {hashlib.sha256(content).hexdigest()}")
    return lines


def main() -> int:
    """`fetch` brings what is pinned; without an argument, print new pins."""
    if sys.argv[1:] != ["fetch"]:
        sys.stdout.write("\n".join(_resolve(repository())) + "\n")
        return 0
    try:
        fetch(lambda line: print(line, flush=True))
    except ConfigurationError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
