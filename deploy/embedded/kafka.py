"""The embedded Kafka: the real broker, one JVM, from what pip and Maven Central bring. `toolledger kafka` runs it.

Order of a start: (1) folder, lock and port are checked, nothing is written; (2) jars are fetched unless cached; (3) a new
folder is formatted; (4) the broker runs. Killed at any point, the next start goes on: formatting is repeated until its
last file is there, and the broker recovers its own log.
"""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from deploy.embedded import kafka_jars, kafka_jvm, kafka_warm
from deploy.embedded.kafka_config import Broker, properties
from deploy.embedded.process import FolderLock, accepts, ensure_folder, free_port, listens, require_free_port
from ingest.contract.errors import BrokerUnavailable, ConfigurationError

# Recovery of a long log after SIGKILL reads it back; a machine under load needs a multiple of the usual 2 s.
_START_TIMEOUT_S: Final = 300
# A clean stop takes 1 to 2 s; past this the broker recovers at its next start as after a crash.
_STOP_TIMEOUT_S: Final = 20
_POLL_S: Final = 0.05
_TAIL_BYTES: Final = 64 * 1024


class _Stopped(Exception):
    """SIGTERM or Ctrl-C came."""


def run(broker: Broker, *, say: kafka_jars.Say) -> int:
    """Run the broker until SIGTERM or SIGINT, or until it ends by itself.

    Args:
        say: takes progress and, when clients can connect, the line with the address.

    Returns:
        0 after a stop that was asked for.

    Raises:
        ConfigurationError: the folder, the port, the disk or the jars do not allow a start.
        BrokerUnavailable: the broker ended by itself, and settings are not the reason.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        data = ensure_folder(broker.data)
        ensure_folder(broker.folder)
        lock = FolderLock(broker.folder / "lock", owner="toolledger kafka")
        require_free_port(broker.host, broker.port)
        class_path = kafka_jars.ensure(say)
        (data / "logs").mkdir(exist_ok=True)
        shutil.rmtree(broker.folder / "tmp", ignore_errors=True)
        settings = broker.folder / "server.properties"
        controller_port = broker.controller_port or _beside(broker.port)
        settings.write_text(properties(broker, controller_port=controller_port), encoding="utf-8")
        if not (broker.folder / "log" / "meta.properties").is_file():
            say("preparing a new Kafka folder")
            _format(broker, class_path, settings)
        try:
            return _serve(broker, class_path, settings, say)
        finally:
            lock.release()
    except _Stopped:
        return 0


def _beside(port: int) -> int:
    """Return a port for the controller: the next one, as Kafka's own examples have it.

    What the system calls free is of the range from which it gives outgoing connections their ports; one of these could have it
    by the time that the JVM listens.
    """
    try:
        require_free_port("127.0.0.1", port + 1)
    except (ConfigurationError, OverflowError):
        return free_port()
    return port + 1


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _Stopped


def _format(broker: Broker, class_path: tuple[Path, ...], settings: Path) -> None:
    output = broker.folder / "format.log"
    arguments = ["format", "--cluster-id", broker.cluster_id or _new_cluster_id(), "--config", str(settings)]
    with output.open("wb") as sink:
        jvm = kafka_jvm.start(
            class_path,
            "kafka.tools.StorageTool",
            # What a format that was cut short left behind is no obstacle.
            [*arguments, "--ignore-formatted"],
            folder=broker.folder,
            log_file=broker.log_file,
            output=sink,
            # It lives for a second: code made fast is never worth its making.
            flags=[*_archive_flags(class_path), "-XX:TieredStopAtLevel=1"],
        )
        try:
            code = jvm.wait()
        finally:
            jvm.kill()
    if code != 0:
        raise ConfigurationError(_fault(broker, output) or f"Kafka could not prepare {broker.folder}: see {output}")


def _new_cluster_id() -> str:
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # A leading dash would read as an option.
        if not text.startswith("-"):
            return text


def _archive_flags(class_path: tuple[Path, ...]) -> list[str]:
    archive = kafka_jvm.class_archive(class_path)
    return [f"-XX:AOTCache={archive}"] if archive.is_file() else []


def _serve(broker: Broker, class_path: tuple[Path, ...], settings: Path, say: kafka_jars.Say) -> int:
    output = broker.data / "logs" / "kafka-jvm.log"
    started = time.monotonic()
    trainer: subprocess.Popen[bytes] | None = None
    with output.open("wb") as sink:
        jvm = kafka_jvm.start(
            class_path,
            "kafka.Kafka",
            [str(settings)],
            folder=broker.folder,
            log_file=broker.log_file,
            output=sink,
            flags=[
                f"-Xmx{broker.heap_mb}m",
                *_archive_flags(class_path),
                *os.environ.get("TOOLLEDGER_KAFKA_JVM_FLAGS", "").split(),
            ],
        )
        try:
            while jvm.poll() is None and not (accepts(broker.host, broker.port) and listens(jvm.pid, broker.port)):
                if time.monotonic() - started > _START_TIMEOUT_S:
                    raise ConfigurationError(f"Kafka did not start within {_START_TIMEOUT_S} s: see {broker.log_file}")
                time.sleep(_POLL_S)
            if jvm.poll() is None:
                seconds = time.monotonic() - started
                say(f"Kafka {kafka_jars.KAFKA_VERSION} ready at {broker.host}:{broker.port} after {seconds:.1f} s")
                trainer = kafka_warm.start_unless_made(class_path)
            code = _wait(jvm, trainer)
        except _Stopped:
            _end(jvm)
            return 0
        finally:
            jvm.kill()
            jvm.wait()
            if trainer is not None:
                trainer.terminate()
                trainer.wait()
    fault = _fault(broker, output)
    if fault is not None:
        raise ConfigurationError(fault)
    raise BrokerUnavailable(f"Kafka ended by itself with code {code}: see {broker.log_file}")


def _wait(jvm: "subprocess.Popen[bytes]", trainer: "subprocess.Popen[bytes] | None") -> int:
    """Wait for the broker without waking; a trainer that ends before is buried on the way."""
    while hasattr(os, "waitid") and trainer is not None and jvm.returncode is None and trainer.returncode is None:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        trainer.poll()
        jvm.poll()
    return jvm.wait()


def _end(jvm: "subprocess.Popen[bytes]") -> None:
    """Stop the broker; a second signal does not cut the stop short."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    jvm.terminate()
    try:
        jvm.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        jvm.kill()


# What the broker's log says, and what a person can do about it.
_FAULTS: Final = (
    ("No space left on device", "the disk of {folder} is full: free some space and start again"),
    ("Address already in use", "port {port} of {host} is in use by another program: choose another with --port"),
    ("Failed to acquire lock", "{folder} is in use by another Kafka: stop it, or choose another folder with --data"),
    ("Permission denied", "{folder} cannot be written: choose another folder with --data"),
    ("Read-only file system", "{folder} cannot be written: choose another folder with --data"),
    ("Invalid cluster.id", "{folder} belongs to another Kafka cluster: choose another folder with --data"),
)


def _fault(broker: Broker, output: Path) -> str | None:
    """Read from the end of the logs why the broker ended; None where a person cannot mend it."""
    text = "".join(_tail(path) for path in (broker.log_file, output))
    for sign, message in _FAULTS:
        if sign in text:
            return message.format(folder=broker.folder, port=broker.port, host=broker.host)
    return None


def _tail(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def serve(broker: Broker) -> int:
    """Run the broker as this process: title, lines on standard output, faults as one line on standard error."""
    import setproctitle

    setproctitle.setproctitle("toolledger kafka")

    def say(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        return run(broker, say=say)
    except ConfigurationError as error:
        sys.stderr.write(f"toolledger kafka: {error}\n")
        return 2
    except BrokerUnavailable as error:
        sys.stderr.write(f"toolledger kafka: {error}\n")
        return 1
