"""`toolledger failures`: what failed lately, why, and what to do."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any, Final

import click

from deploy.api import Api
from deploy.cli.common import counted, data_option, json_option, now_ms, printable, say_json, service
from deploy.cli.since import since_ms
from query_api.failures.causes import CAUSES

# A table is for looking over; `toolledger log` shows a text in full.
_MESSAGE_CHARS: Final = 160
# Less leaves no room for a message beside the rest.
_TABLE_COLUMNS: Final = 120
_NUMBERS: Final = ("calls", "share", "users")


@click.command(epilog="Example: toolledger failures --since 15m --toolkit gmail")
@data_option
@click.option("--since", metavar="SPAN", default="1h", show_default=True, help="How far back: 15m, 2h, 7d, or ISO 8601.")
@click.option("--tool", metavar="T", help="Only calls of this tool.")
@click.option("--toolkit", metavar="T", help="Only calls of this toolkit.")
@click.option("--user", metavar="U", help="Only calls of this user.")
@click.option("--session", metavar="S", help="Only calls of this session.")
@click.option("--class", "failure_class", type=click.Choice(list(CAUSES)), help="Only failures of this class.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most this many groups.")
@json_option
def failures(
    data: Path,
    since: str,
    tool: str | None,
    toolkit: str | None,
    user: str | None,
    session: str | None,
    failure_class: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show what failed, most calls first: whom it hit, the likely cause, and below what to do."""
    at_ms = now_ms()
    asked = {
        "from": since_ms(since, now_ms=at_ms),
        "to": at_ms,
        "limit": limit,
        "tool_slug": tool,
        "toolkit_slug": toolkit,
        "user_id": user,
        "session_id": session,
        "failure_class": failure_class,
    }
    answer = Api(*service(data)).get("/v1/failures", asked)
    groups = answer["groups"]
    if as_json:
        for group in groups:
            say_json(**group)
        return
    from deploy.cli.tables import console

    (_table if console().width >= _TABLE_COLUMNS else _list)(groups, at_ms=at_ms)
    _actions(groups)
    shown = sum(group["share"] for group in groups)
    if groups:
        total = round(groups[0]["calls"] / groups[0]["share"])
        rest = round(total * (1 - shown))
        more = f"; {rest:,} in groups not shown, --limit shows more" if rest else ""
        click.echo(f"{total:,} failed since {since}{more}", err=True)
    click.echo(f"complete until {answer['complete_until']}", err=True)


def _table(groups: Sequence[dict[str, Any]], *, at_ms: int) -> None:
    from rich.text import Text

    from deploy.cli.tables import table

    rows = [
        [
            Text(group["failure_class"], style="bold red"),
            printable(group["tool_slug"]),
            f"{group['calls']:,}",
            f"{group['share']:.1%}",
            f"{group['users']:,}",
            ago(at_ms - _moment_ms(group["last_seen"])),
            Text(_message(group)).append(f"\n{group['likely_cause']}", style="dim"),
        ]
        for group in groups
    ]
    headers = ("class", "tool", *_NUMBERS, "last seen", "message and likely cause")
    table(headers, rows, empty="nothing failed in that time", right=_NUMBERS)


def _list(groups: Sequence[dict[str, Any]], *, at_ms: int) -> None:
    """Print the same for a narrow terminal: a line of numbers, and the texts as wide as there is room."""
    if not groups:
        click.echo("nothing failed in that time")
    for group in groups:
        seen = ago(at_ms - _moment_ms(group["last_seen"]))
        name = f"{click.style(group['failure_class'], fg='red', bold=True)} {printable(group['tool_slug'])}"
        calls, users = counted(group["calls"], "call"), counted(group["users"], "user")
        click.echo(f"{name}: {calls}, {group['share']:.1%}, {users}, {seen}")
        click.echo(f"  {_message(group)}")
        click.echo(click.style(f"  {group['likely_cause']}", dim=True))
    click.echo()


def _message(group: dict[str, Any]) -> str:
    message = printable(group["message"])
    return message if len(message) <= _MESSAGE_CHARS else message[: _MESSAGE_CHARS - 3] + "..."


def _actions(groups: Sequence[dict[str, Any]]) -> None:
    """Print what to do, each advice once, with how to see the largest group it is for: its newest call, and all of them."""
    told: set[str] = set()
    for group in groups:
        if group["action"] in told:
            continue
        told.add(group["action"])
        click.echo(f"{click.style(group['failure_class'], bold=True)}: {group['action']}")
        click.echo(click.style(f"  toolledger log {quote(printable(group['example_log_id']))}", fg="cyan"))
        # A message that is not shown as it is cannot be asked for by what is shown.
        if _message(group) == group["message"]:
            tool = quote(printable(group["tool_slug"]))
            click.echo(click.style(f"  toolledger logs --tool {tool} --pattern {quote(group['message'])}", fg="cyan"))


def ago(span_ms: int) -> str:
    """Tell a span in its two largest units, as one looks back on it."""
    seconds = max(0, span_ms) // 1000
    if seconds < 60:
        return f"{seconds}s ago"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86_400
    if minutes < 60:
        return f"{minutes}m {seconds % 60}s ago"
    if hours < 48:
        return f"{hours}h {minutes % 60}m ago"
    return f"{days}d {hours % 24}h ago"


def _moment_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
