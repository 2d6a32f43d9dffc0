"""Make the archive of loaded classes that halves a broker's start. `python -m deploy.embedded.kafka_warm`.

It takes one start of a broker on a throw-away folder and some ten seconds of processor time, once per cache: done in the
background at the lowest priority, after the first broker is up. Cut short, it leaves nothing and is tried at the next start.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from deploy.embedded import kafka_jars, kafka_jvm
from deploy.embedded.kafka_config import Broker, properties
from deploy.embedded.process import accepts, cache_folder, die_with_parent, free_port

_TIMEOUT_S: Final = 300
_POLL_S: Final = 0.1
# Any will do: the folder lives for seconds.
_CLUSTER: Final = "AAAAAAAAAAAAAAAAAAAAAA"


def start_unless_made(class_path: Sequence[Path]) -> "subprocess.Popen[bytes] | None":
    """Start making the archive in a process of its own, unless it is there or TOOLLEDGER_KAFKA_ARCHIVE is `no`."""
    if kafka_jvm.class_archive(class_path).is_file() or os.environ.get("TOOLLEDGER_KAFKA_ARCHIVE") == "no":
        return None
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.embedded.kafka_warm"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - it must not outlive the broker it was made for
    )


def make(class_path: tuple[Path, ...]) -> bool:
    """Make the archive; False when another process is at it, or when the JVM would not."""
    archive = kafka_jvm.class_archive(class_path)
    with (cache_folder() / ".archive.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        with _scratch() as folder:
            made = _record(class_path, folder)
            if made.is_file():
                # Moved within one file system, so that no broker ever maps half an archive.
                made.replace(archive)
        return archive.is_file()


def _record(class_path: tuple[Path, ...], folder: Path) -> Path:
    """Run a broker of its own until it listens, and make the archive from the classes it loaded."""
    broker = Broker(data=folder, port=free_port())
    settings, record, made = folder / "server.properties", folder / "classes.record", folder / "classes.aot"
    settings.write_text(properties(broker, controller_port=free_port()), encoding="utf-8")

    with _jvm(
        class_path, "kafka.tools.StorageTool", ["format", "--cluster-id", _CLUSTER, "--config", str(settings)], folder
    ) as jvm:
        jvm.wait(_TIMEOUT_S)
    recording = ["-XX:AOTMode=record", f"-XX:AOTConfiguration={record}"]
    with _jvm(class_path, "kafka.Kafka", [str(settings)], folder, recording) as jvm:
        deadline = time.monotonic() + _TIMEOUT_S
        while jvm.poll() is None and not accepts(broker.host, broker.port) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        jvm.terminate()
        jvm.wait(_TIMEOUT_S)
    making = ["-XX:AOTMode=create", f"-XX:AOTConfiguration={record}", f"-XX:AOTCache={made}"]
    with _jvm(class_path, "kafka.Kafka", [], folder, making) as jvm:
        jvm.wait(_TIMEOUT_S)
    return made


@contextlib.contextmanager
def _jvm(
    class_path: tuple[Path, ...], main: str, arguments: list[str], folder: Path, flags: Sequence[str] = ()
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a JVM; it is ended with the block, however that is left."""
    jvm = kafka_jvm.start(
        class_path,
        main,
        arguments,
        folder=folder,
        log_file=folder / "server.log",
        output=subprocess.DEVNULL,
        flags=flags,
        title="toolledger kafka archive",
    )
    try:
        yield jvm
    finally:
        jvm.kill()
        jvm.wait()


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    # Beside the archive, not in /tmp: it takes 100 MB, and what a killed run left is found and removed by the next one.
    for left in cache_folder().glob("archive-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix="archive-", dir=cache_folder()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Make the archive if the jars are there."""
    import setproctitle

    setproctitle.setproctitle("toolledger kafka archive")
    os.nice(19)
    # An exit and not a sudden end, so that the JVM at work is ended and the scratch folder removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if kafka_jars.missing(kafka_jars.pins(), kafka_jars.repository()):
        return 1
    return 0 if make(kafka_jars.ensure(lambda _line: None)) else 1


if __name__ == "__main__":
    sys.exit(main())
