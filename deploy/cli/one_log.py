"""`toolledger log ID`: one tool call in full."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from deploy.api import Api
from deploy.cli.common import data_option, json_option, json_text, printable, say_json, service
from deploy.cli.log_lines import ms
from deploy.cli.logs import LOGS
from ingest.contract.errors import QueryError

if TYPE_CHECKING:
    from rich.text import Text


@click.command(epilog="Example: toolledger log log_1a2b3c4d5e6f")
@data_option
@click.argument("log_id", metavar="ID")
@json_option
def log(data: Path, log_id: str, as_json: bool) -> int:
    """Show one tool call in full: request, response, timings, context. Exit 1 if there is none of that id."""
    try:
        item = Api(*service(data)).get(f"{LOGS}/{quote(log_id, safe='')}")
    except QueryError as error:
        if error.status != 404:
            raise
        click.echo(f"there is no log {log_id} in this project", err=True)
        return 1
    if as_json:
        say_json(**item)
    else:
        _show(item)
    return 0


def _show(item: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from deploy.cli.tables import console

    screen = console()
    failed = item["status"] == "failed"
    head = Text.assemble(
        (item["status"], "bold red" if failed else "bold green"),
        "  ",
        (printable(str(item["metadata"].get("tool_slug", ""))), "bold"),
        f"  {ms(item['metrics'].get('duration_ms'))} ms  ",
        (printable(item["id"]), "dim"),
    )
    screen.print(head)
    if item.get("message"):
        screen.print(Text(printable(str(item["message"])), style="red" if failed else ""))
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    # A value without spaces is longer than a narrow terminal is wide.
    facts.add_column(overflow="fold")
    for name, value in _facts(item):
        if value:
            facts.add_row(name, Text(printable(str(value))))
    screen.print()
    screen.print(facts)
    payload = item["data"]
    rest = {name: value for name, value in payload.items() if name not in ("request", "response")}
    for name, value in (("request", payload.get("request")), ("response", payload.get("response")), ("data", rest or None)):
        if value is not None:
            screen.print(f"\n{name}", style="bold")
            screen.print(_json(value))
    screen.print("\nmetadata", style="bold")
    screen.print(_json(item["metadata"]))


def _json(value: object) -> "Text":
    """Return JSON over several lines, in colour."""
    from rich.highlighter import JSONHighlighter

    text = JSONHighlighter()(json_text(value, indent=2))
    text.no_wrap = True
    return text


def _facts(item: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return what is known of a log, in the order people ask."""
    metadata, context, source = item["metadata"], item["context"], item["source"]
    parent = item.get("parent") or {}
    status = metadata.get("http_status")
    return [
        ("time", item["timestamp"].replace("T", " ")),
        ("toolkit", metadata.get("toolkit_slug")),
        ("user", metadata.get("user_id")),
        ("session", context.get("session_id")),
        ("class", " ".join(str(one) for one in (metadata.get("failure_class"), f"(HTTP {status})" if status else "") if one)),
        ("error", " ".join(str(metadata[name]) for name in ("error_type", "error_code") if metadata.get(name))),
        ("account", metadata.get("connected_account_id")),
        ("trace", context.get("trace_id")),
        ("request", context.get("request_id")),
        ("parent", " ".join(one for one in (parent.get("tool_slug"), parent.get("log_id")) if one)),
        ("source", " · ".join(source[name] for name in ("host", "framework", "language") if source.get(name))),
    ]
