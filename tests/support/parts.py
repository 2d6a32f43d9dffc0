"""Which Kafka and ClickHouse the suites run on, chosen once a run: given addresses, official images, or the embedded ones.

TOOLLEDGER_TEST_KAFKA and TOOLLEDGER_TEST_CLICKHOUSE name servers that are there. Else, where a Docker engine answers, official
images run through testcontainers. Else the embedded servers, started as users start them. A part that cannot start fails
every test that needs it.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from deploy.embedded.kafka_jars import KAFKA_VERSION
from deploy.embedded.process import die_with_parent
from tests.support.ports import free_port

GIVEN_KAFKA = "TOOLLEDGER_TEST_KAFKA"
GIVEN_CLICKHOUSE = "TOOLLEDGER_TEST_CLICKHOUSE"
KAFKA_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:26.9"
_ROOT = Path(__file__).parents[2]

Choice = Literal["given", "docker", "embedded"]


def choice(variable: str) -> Choice:
    """Say where a part comes from in this run."""
    if os.environ.get(variable):
        return "given"
    return "docker" if docker_answers() else "embedded"


def header() -> str:
    """Return the line of pytest's header that says which parts this run uses."""
    told = {"docker": "official image by Docker", "embedded": "embedded"}
    kafka, clickhouse = choice(GIVEN_KAFKA), choice(GIVEN_CLICKHOUSE)
    return (
        f"parts: Kafka {told.get(kafka) or 'at ' + os.environ[GIVEN_KAFKA]}, "
        f"ClickHouse {told.get(clickhouse) or 'at an address given'}"
    )


def docker_answers() -> bool:
    """Tell whether a Docker engine answers; asked once a run."""
    global _docker  # noqa: PLW0603 - the answer of the whole run
    if _docker is None:
        _docker = _ask_docker()
    return _docker


_docker: bool | None = None


def _ask_docker() -> bool:
    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").exists():
        return False
    import docker  # noqa: PLC0415 - half a second that only a machine with an engine pays

    try:
        client = docker.from_env(timeout=3)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except docker.errors.DockerException:
        return False


@contextlib.contextmanager
def kafka(folder: Path) -> Iterator[str]:
    """Give the address of a Kafka for the run, host:port."""
    match choice(GIVEN_KAFKA):
        case "given":
            yield os.environ[GIVEN_KAFKA]
        case "docker":
            port = free_port()
            with _container(KAFKA_IMAGE, _kafka_image_settings(port), {9092: port}, ready="Kafka Server started"):
                yield f"127.0.0.1:{port}"
        case "embedded":
            port = free_port()
            with started(["kafka", "--data", str(folder), "--port", str(port)], ready=" ready at "):
                yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def clickhouse(folder: Path) -> Iterator[str]:
    """Give the HTTP address of a ClickHouse for the run, without a database."""
    match choice(GIVEN_CLICKHOUSE):
        case "given":
            yield os.environ[GIVEN_CLICKHOUSE]
        case "docker":
            port = free_port()
            environment = {"CLICKHOUSE_SKIP_USER_SETUP": "1"}
            with _container(CLICKHOUSE_IMAGE, environment, {8123: port}, ready="Logging errors to"):
                yield f"http://127.0.0.1:{port}"
        case "embedded":
            with started(["clickhouse", "--data", str(folder), "--port", "0"], ready='"event": "ready"') as line:
                yield str(json.loads(line)["url"])


@contextlib.contextmanager
def started(arguments: list[str], *, ready: str, settings: dict[str, str] | None = None) -> Iterator[str]:
    """Run `toolledger ...` until the block ends; gives the line that said it is ready.

    Raises:
        AssertionError: it ended before that, with all it said.
    """
    process = popen(arguments, settings=settings)
    try:
        yield await_line(process, ready)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def popen(arguments: list[str], *, settings: dict[str, str] | None = None, **more: Any) -> "subprocess.Popen[str]":
    """Start `toolledger ...`; what it says can be read from its standard output, both streams in one."""
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli.main", *arguments],
        cwd=_ROOT,
        env={**os.environ, **(settings or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A test run that is killed leaves nothing behind.
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - the child only makes one system call
        **more,
    )


def await_line(process: "subprocess.Popen[str]", part: str) -> str:
    """Read what a process says until a line has `part` in it.

    Raises:
        AssertionError: it ended before that.
    """
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if part in line:
            return line
    raise AssertionError(f"{process.args} ended with {process.wait()} before {part!r}:\n{''.join(said)}")


def _kafka_image_settings(port: int) -> dict[str, str]:
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }


@contextlib.contextmanager
def _container(image: str, environment: dict[str, str], ports: dict[int, int], *, ready: str) -> Iterator[None]:
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - as docker
    from testcontainers.core.waiting_utils import wait_for_logs  # noqa: PLC0415

    container = DockerContainer(image)
    for name, value in environment.items():
        container.with_env(name, value)
    for inner, outer in ports.items():
        container.with_bind_ports(inner, outer)
    with container:
        wait_for_logs(container, ready, timeout=120)
        yield
