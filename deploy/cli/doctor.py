"""`toolledger doctor`: addresses, versions, topics, schema, clock, disk and progress, and what to do about each."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from deploy.cli.common import (
    clickhouse_option,
    clickhouse_place,
    data_option,
    json_option,
    kafka_option,
    kafka_place,
    known_key,
    quiet_libraries,
    say_json,
    url_place,
)
from deploy.cli.configuration import masked
from deploy.embedded.stack_file import find

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.doctor import Finding

_STYLES: Final = {"ok": "green", "warning": "yellow", "failed": "bold red"}
_STATE_CHARS: Final = max(len(state) for state in _STYLES)
_CHECK_CHARS: Final = 10


@click.command(epilog="Example: toolledger doctor")
@data_option
@kafka_option
@clickhouse_option
@json_option
def doctor(data: Path, kafka: str | None, clickhouse: str | None, as_json: bool) -> int:
    """Look at addresses, versions, topics, schema, clocks, disks and workers; say what to do. Changes nothing.

    Exit 1 if anything failed; a warning is none.
    """
    from deploy.cli.tables import console
    from deploy.doctor import Addresses, examine

    quiet_libraries()
    stack = find(data)
    clickhouse_url, clickhouse_named = clickhouse_place(clickhouse, data)
    url, named = url_place(data)
    services = [(url.rstrip("/"), named)]
    if stack is not None and url == stack.url:
        services.append((stack.query, "of its query service"))
    addresses = Addresses(
        kafka=kafka_place(kafka, data),
        clickhouse=(clickhouse_url, clickhouse_named),
        clickhouse_shown=masked(clickhouse_url),
        services=tuple(services),
        key=known_key(url, data),
        data=data,
    )
    out = console()
    counts = dict.fromkeys(_STYLES, 0)
    for finding in examine(addresses):
        counts[finding.state] += 1
        if as_json:
            say_json(check=finding.check, state=finding.state, text=finding.text, fix=finding.fix)
        else:
            _show(out, finding)
    if not as_json:
        _conclude(out, failed=counts["failed"], warned=counts["warning"])
    return 1 if counts["failed"] else 0


def _show(out: "Console", finding: "Finding") -> None:
    from rich.text import Text

    head = Text.assemble(
        (finding.state.ljust(_STATE_CHARS), _STYLES[finding.state]), " ", (finding.check.ljust(_CHECK_CHARS), "bold"), " "
    )
    indent = len(head)
    lines = Text(finding.text)
    if finding.fix:
        lines.append(f"\n→ {finding.fix}", style="" if finding.state == "ok" else _STYLES[finding.state])
    wrapped = lines.wrap(out, max(20, out.width - indent))
    for number, line in enumerate(wrapped):
        out.print(Text.assemble(head if number == 0 else " " * indent, line))


def _conclude(out: "Console", *, failed: int, warned: int) -> None:
    parts = [f"{failed} failed"] if failed else []
    parts += [f"{warned} {'warning' if warned == 1 else 'warnings'}"] if warned else []
    out.print(", ".join(parts) or "all is well")
