"""The command line of one embedded server."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
from setproctitle import setproctitle

from deploy.embedded.clickhouse.data_folder import CannotStart
from deploy.embedded.clickhouse.options import MEBIBYTE, ClickHouseOptions
from deploy.embedded.clickhouse.server import serve

USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a server in the foreground; one JSON line on stdout says when it is ready.

    Returns:
        0 after a stop on SIGTERM or SIGINT, 2 where it could not start (one line on stderr says why).
    """
    arguments = _parser().parse_args(argv)
    _log_to_stderr(arguments.log_level)
    setproctitle("toolledger clickhouse")
    try:
        options = ClickHouseOptions(
            data=arguments.data,
            host=arguments.host,
            port=arguments.port,
            users=_users(arguments.users),
            memory_bytes=arguments.memory_mb * MEBIBYTE,
            threads=arguments.threads,
            stop_grace_seconds=arguments.stop_grace_seconds,
        )
        serve(options, on_ready=_say_ready)
    except CannotStart as error:
        print(f"toolledger clickhouse: {error}", file=sys.stderr)
        return USAGE_ERROR
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="toolledger clickhouse",
        description="ClickHouse's HTTP interface over the embedded engine.",
        epilog="example: python -m deploy.embedded.clickhouse --data /var/lib/toolledger/clickhouse --port 8123",
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables; made if missing")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8123, help="port; 0 takes a free one (default: %(default)s)")
    parser.add_argument("--users", type=Path, help="JSON file of names and passwords (default: user default, no password)")
    parser.add_argument("--memory-mb", type=int, default=0, help="cap for all queries; 0: a quarter of the machine")
    parser.add_argument("--threads", type=int, default=0, help="threads one query may use; 0: the number of cores")
    parser.add_argument(
        "--stop-grace-seconds", type=float, default=10.0, help="how long queries may go on at a stop (default: %(default)s)"
    )
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser


def _users(path: Path | None) -> dict[str, str]:
    """Users from a file, not from arguments: those show in `ps`."""
    if path is None:
        return {"default": ""}
    try:
        users = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CannotStart(f"cannot read the users file {path}: {error}") from None
    if not isinstance(users, dict) or not all(isinstance(part, str) for pair in users.items() for part in pair) or not users:
        raise CannotStart(f'the users file {path} must hold one JSON object of names and passwords, like {{"default": ""}}')
    return users


def _say_ready(host: str, port: int) -> None:
    name = f"[{host}]" if ":" in host else host
    print(json.dumps({"event": "ready", "url": f"http://{name}:{port}", "host": host, "port": port}), flush=True)


def _log_to_stderr(level: str) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
