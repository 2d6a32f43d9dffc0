"""What the parts of a stack are: commands, settings, how to see that one is ready, how to stop it. Pure but for the ports."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

DATABASE: Final = "toolledger"
# Kafka and ClickHouse finish writing when our process is killed; a service has nothing to finish that would not be redone.
SERVERS: Final = frozenset({"kafka", "clickhouse"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The inner ports of a stack, remembered in its data folder so that addresses stay the same."""

    kafka: int
    clickhouse: int
    query: int
    workers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process of the stack.

    Args:
        name: as printed and as its log file is called.
        arguments: of `toolledger`; or a whole command if `command` is given.
        environment: settings for it, beside ours.
        host: where it listens.
        port: where it listens.
        listens: whether it does so itself; else the port is that of another part, which it waits for.
        ready_path: HTTP path that answers 200 once it would work; None: accepting connections is enough.
        stop_s: how long a clean stop may take.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int
    listens: bool = True
    ready_path: str | None = "/readyz"
    stop_s: float = 20

    @property
    def kind(self) -> str:
        """What it is, without its number."""
        return self.name.partition("-")[0]

    @property
    def address(self) -> str:
        """Where it can be reached, for people."""
        scheme = "" if self.kind == "kafka" else "http://"
        return f"{scheme}{reachable(self.host)}:{self.port}"

    @property
    def command(self) -> tuple[str, ...]:
        """The command line to start."""
        return toolledger(*self.arguments)


def toolledger(*arguments: str) -> tuple[str, ...]:
    """Return the command line of a `toolledger` verb, run by this very Python."""
    return (sys.executable, "-m", "deploy.cli.main", *arguments)


def reachable(host: str) -> str:
    """Return an address of this machine at which a server that listens at `host` can be reached."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{local}]" if ":" in local else local


def kafka_part(data: Path, port: int) -> Part:
    """Describe the embedded Kafka. A long log that was not closed is read back at the start, so a stop may take its time."""
    return Part(
        name="kafka", arguments=("kafka", "--data", str(data), "--port", str(port)), port=port, ready_path=None, stop_s=30
    )


def clickhouse_part(data: Path, port: int) -> Part:
    """Describe the embedded ClickHouse."""
    arguments = ("clickhouse", "--data", str(data), "--port", str(port))
    return Part(name="clickhouse", arguments=arguments, port=port, ready_path="/ping", stop_s=30)


def query_part(port: int, environment: Mapping[str, str]) -> Part:
    """Describe the query service."""
    return Part(
        name="query", arguments=("query", "--host", "127.0.0.1", "--port", str(port)), environment=environment, port=port
    )


def worker_part(number: int, count: int, port: int, environment: Mapping[str, str]) -> Part:
    """Describe one worker; a lone one has no number."""
    name = f"worker-{number}" if count > 1 else "worker"
    return Part(name=name, arguments=("worker", "--port", str(port)), environment=environment, port=port)


def ingest_part(host: str, port: int, query_port: int, environment: Mapping[str, str]) -> Part:
    """Describe the ingest service, which has the public address and forwards what is not its own."""
    arguments = ("ingest", "--host", host, "--port", str(port), "--query-url", f"http://127.0.0.1:{query_port}")
    return Part(name="ingest", arguments=arguments, environment=environment, host=host, port=port)


def settings(kafka: str, clickhouse: str, data: Path) -> dict[str, str]:
    """Return the environment that every part gets, so that all agree on addresses and log in lines that can be read."""
    return {
        "TOOLLEDGER_KAFKA": kafka,
        "TOOLLEDGER_CLICKHOUSE": clickhouse,
        "TOOLLEDGER_DATA": str(data),
        "TOOLLEDGER_LOG_JSON": "true",
    }


def gateway_settings(data: Path, upstream: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """Return what ingest gets for the gateway: the upstream, and a spool in the data folder unless another is given."""
    address = upstream or given.get("TOOLLEDGER_UPSTREAM")
    if not address:
        return {}
    return {
        "TOOLLEDGER_UPSTREAM": address,
        "TOOLLEDGER_UPSTREAM_SPOOL": given.get("TOOLLEDGER_UPSTREAM_SPOOL") or str(data / "gateway"),
    }
