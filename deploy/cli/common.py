"""What the commands share: options, where a stack is found, and how lines are printed."""

import json
import logging
import os
import re
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from deploy.embedded.stack_file import demo_key, find
from ingest.contract.addresses import is_kafka
from ingest.contract.errors import ConfigurationError

DEFAULT_DATA: Final = ".toolledger"
DEFAULT_KAFKA: Final = "127.0.0.1:9092"
DEFAULT_CLICKHOUSE: Final = "http://127.0.0.1:8123"
DEFAULT_URL: Final = "http://127.0.0.1:8600"
# What JSON itself leaves as it is, beyond letters that every terminal shows and the ends of its own lines.
_FOREIGN: Final = re.compile(r"[^\x20-\x7e\n]")
# They stand within words of some scripts, and within emoji.
_JOINING: Final = "\u200c\u200d"

F = TypeVar("F", bound=Callable[..., Any])


def data_option(command: F) -> F:
    """Add `--data`: the data folder of an embedded stack."""
    return click.option(
        "--data",
        type=click.Path(path_type=Path, file_okay=True),
        default=lambda: Path(os.environ.get("TOOLLEDGER_DATA") or DEFAULT_DATA),
        show_default=DEFAULT_DATA,
        help="Data folder of the embedded stack (TOOLLEDGER_DATA).",
    )(command)


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON lines and nothing else.")(command)


def kafka_option(command: F) -> F:
    """Add `--kafka`: an address that wins over the environment and a running stack."""
    return click.option("--kafka", metavar="ADDRESS", help="Kafka, host:port[,host:port] (TOOLLEDGER_KAFKA).")(command)


def clickhouse_option(command: F) -> F:
    """Add `--clickhouse`: an address that wins over the environment and a running stack."""
    text = "ClickHouse, http(s)://[user:password@]host:port[/database] (TOOLLEDGER_CLICKHOUSE)."
    return click.option("--clickhouse", metavar="URL", help=text)(command)


def kafka_address(given: str | None, data: Path) -> str:
    """Return Kafka's address: given, else the environment's, else a running stack's, else the usual one.

    Raises:
        ConfigurationError: what was found is no address.
    """
    found, where = kafka_place(given, data)
    if not is_kafka(found):
        raise ConfigurationError(f"{found!r} ({where}) is no address of Kafka: put host:port[,host:port] into TOOLLEDGER_KAFKA")
    return found


def clickhouse_url(given: str | None, data: Path) -> str:
    """Return ClickHouse's address, found as `kafka_address`."""
    return clickhouse_place(given, data)[0]


def kafka_place(given: str | None, data: Path) -> tuple[str, str]:
    """Return Kafka's address as `kafka_address` finds it, and who named it, in words."""
    stack = find(data)
    return _place(given, "--kafka", "TOOLLEDGER_KAFKA", stack.kafka if stack else None, data, DEFAULT_KAFKA)


def clickhouse_place(given: str | None, data: Path) -> tuple[str, str]:
    """Return ClickHouse's address, as `kafka_place`."""
    stack = find(data)
    return _place(given, "--clickhouse", "TOOLLEDGER_CLICKHOUSE", stack.clickhouse if stack else None, data, DEFAULT_CLICKHOUSE)


def url_place(data: Path) -> tuple[str, str]:
    """Return the address of the HTTP API, as `kafka_place`."""
    stack = find(data)
    return _place(None, "", "TOOLLEDGER_URL", stack.url if stack else None, data, DEFAULT_URL)


def _place(given: str | None, option: str, variable: str, running: str | None, data: Path, default: str) -> tuple[str, str]:
    if given:
        return given, f"from {option}"
    if named := os.environ.get(variable):
        return named, f"from {variable}"
    if running:
        return running, f"of the stack that runs in {data}"
    return default, f"by default: no stack runs in {data}"


def known_key(url: str, data: Path) -> str | None:
    """Return the API key for an address: the environment's, else, at a running stack's own address, its demo project's."""
    stack = find(data)
    # A file's line end comes along with a key easily.
    given = os.environ.get("TOOLLEDGER_API_KEY", "").strip()
    # The demo key belongs to this very stack and must not be shown to another address.
    return given or (demo_key(data) if stack and url == stack.url else None)


def service(data: Path) -> tuple[str, str]:
    """Return the address of the HTTP API and the API key.

    Raises:
        ConfigurationError: no key is known.
    """
    url, _ = url_place(data)
    key = known_key(url, data)
    if not key:
        hint = "toolledger keys create --project NAME"
        raise ConfigurationError(f"no API key: put one into TOOLLEDGER_API_KEY ({hint} makes one)")
    return url.rstrip("/"), key


def say(line: str) -> None:
    """Print a line for people."""
    click.echo(line)


def say_json(**members: object) -> None:
    """Print one JSON line for programs."""
    sys.stdout.write(json_text(members) + "\n")
    sys.stdout.flush()


def quiet_libraries() -> None:
    """Keep clients of servers from writing tracebacks of what a command says in one line."""
    for name in ("aiokafka", "clickhouse_connect", "urllib3", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def printable(text: str) -> str:
    """Make foreign text one line without control characters: it must not steer the terminal it is shown on."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def counted(number: int, thing: str) -> str:
    """Return `1 call`, `2,000 calls`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def json_text(value: object, *, indent: int | None = None) -> str:
    """Write JSON for standard output that says all of a value: what might steer a terminal or cannot be shown is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=None if indent else (",", ":"), default=str)
    encoding = sys.stdout.encoding or "utf-8"
    return _FOREIGN.sub(lambda found: found[0] if _shows(found[0], encoding) else json.dumps(found[0])[1:-1], text)


def _shows(character: str, encoding: str) -> bool:
    """Tell whether an encoding has a character, and a terminal does nothing but show it."""
    harmless = character.isprintable() or character in _JOINING or unicodedata.category(character) == "Zs"
    return harmless and bool(character.encode(encoding, "ignore"))


def now_ms() -> int:
    """Return the time, epoch ms."""
    return time.time_ns() // 1_000_000
