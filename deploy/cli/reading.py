"""Commands that look at logs and usage through the HTTP API."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from deploy.api import Api
from deploy.cli.common import data_option, json_option, now_ms, printable, service
from deploy.cli.since import since_ms
from ingest.contract.errors import QueryError
from ingest.contract.event import TIMESTAMP_AHEAD_MS_MAX

_LOGS: Final = "/api/v3.1/logs/tool_execution"
_PAGE: Final = 100
_FOLLOW_S: Final = 1.0
# How far behind the newest one an event may still turn up while following: its time is its start, not its arrival.
_FOLLOW_BACK_MS: Final = 120_000
_FOLLOW_KNOWN_MAX: Final = 20_000

_GROUPS: Final = {"tool": "tool_slug", "toolkit": "toolkit_slug", "user": "user_id", "session": "session_id"}


@click.command(epilog="Example: toolledger logs --failed --toolkit gmail --since 15m")
@data_option
@click.option("--failed", is_flag=True, help="Only failed calls.")
@click.option("--tool", metavar="T", help="Only calls of this tool.")
@click.option("--toolkit", metavar="T", help="Only calls of this toolkit.")
@click.option("--user", metavar="U", help="Only calls of this user.")
@click.option("--session", metavar="S", help="Only calls of this session.")
@click.option("--since", metavar="SPAN", help="How far back: 30s, 15m, 2h, 7d, or a moment in ISO 8601.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most this many.")
@click.option("--follow", "-f", is_flag=True, help="Go on and show calls as they come, until Ctrl-C.")
@json_option
def logs(
    data: Path,
    failed: bool,
    tool: str | None,
    toolkit: str | None,
    user: str | None,
    session: str | None,
    since: str | None,
    limit: int,
    follow: bool,
    as_json: bool,
) -> None:
    """Show what happened, newest first; with --follow oldest first and on."""
    given = {
        "status": "failed" if failed else None,
        "tool_slug": tool,
        "toolkit_slug": toolkit,
        "user_id": user,
        "session_id": session,
    }
    filters = [{"field": name, "operator": "==", "value": value} for name, value in given.items() if value is not None]
    api = Api(*service(data))
    from_ms = since_ms(since, now_ms=now_ms()) if since else None
    found = list(_search(api, filters, from_ms=from_ms, limit=limit))
    show = _json_line if as_json else _log_line
    if not follow:
        for item in found:
            show(item)
        if not found and not as_json:
            click.echo("no call fits", err=True)
        return
    for item in reversed(found):
        show(item)
    for item in _follow(api, filters, found):
        show(item)


def _search(api: Api, filters: list[dict[str, str]], *, from_ms: int | None, limit: int) -> Iterator[dict[str, Any]]:
    """Yield logs newest first, page by page."""
    body: dict[str, Any] = {"limit": min(limit, _PAGE), "filters": filters}
    if from_ms is not None:
        body["time_range"] = {"from": from_ms, "to": now_ms() + TIMESTAMP_AHEAD_MS_MAX}
    left = limit
    while left > 0:
        page = api.post(_LOGS, body)
        yield from page["logs"][:left]
        left -= len(page["logs"])
        if page["next_cursor"] is None:
            return
        body["cursor"] = page["next_cursor"]


def _follow(api: Api, filters: list[dict[str, str]], shown: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield what was not shown yet, oldest first, as it becomes visible."""
    known = dict.fromkeys(item["id"] for item in shown)
    from_ms = now_ms() - _FOLLOW_BACK_MS
    # What is older than the first look is not news, however late it is asked for.
    known |= dict.fromkeys(item["id"] for item in _search(api, filters, from_ms=from_ms, limit=_FOLLOW_KNOWN_MAX))
    while True:
        time.sleep(_FOLLOW_S)
        fresh = []
        for item in _search(api, filters, from_ms=now_ms() - _FOLLOW_BACK_MS, limit=_FOLLOW_KNOWN_MAX):
            if item["id"] not in known:
                fresh.append(item)
        for item in reversed(fresh):
            known[item["id"]] = None
            yield item
        while len(known) > _FOLLOW_KNOWN_MAX:
            known.pop(next(iter(known)))


@click.command(epilog="Example: toolledger log log_1a2b3c4d5e6f")
@data_option
@click.argument("log_id", metavar="ID")
@json_option
def log(data: Path, log_id: str, as_json: bool) -> int:
    """Show one tool call in full: request, response, timings, context. Exit 1 if there is none of that id."""
    from urllib.parse import quote

    try:
        item = Api(*service(data)).get(f"{_LOGS}/{quote(log_id, safe='')}")
    except QueryError as error:
        if error.status != 404:
            raise
        click.echo(f"there is no log {log_id} in this project", err=True)
        return 1
    if as_json:
        _json_line(item)
        return 0
    from rich.json import JSON

    from deploy.cli.tables import console

    screen = console()
    _log_line(item)
    for name in ("timings", "context", "source", "parent", "metadata", "data"):
        if item.get(name):
            screen.print(f"\n{name}", style="bold")
            screen.print(JSON(json.dumps(item[name], ensure_ascii=False)))
    return 0


@click.command(epilog="Example: toolledger usage --by toolkit --since 24h")
@data_option
@click.option(
    "--by",
    type=click.Choice([*_GROUPS, "day", "hour"]),
    default="tool",
    show_default=True,
    help="What a row stands for.",
)
@click.option("--since", metavar="SPAN", default="7d", show_default=True, help="How far back: 2h, 7d, or ISO 8601.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most this many rows.")
@click.option("--corrections", is_flag=True, help="Show what late events added to hours that had closed, by hour.")
@json_option
def usage(data: Path, by: str, since: str, limit: int, corrections: bool, as_json: bool) -> None:
    """Show calls, failures, error rate and percentiles; with --corrections what was added late, newest hour first."""
    at_ms = now_ms()
    if corrections:
        _corrections(Api(*service(data)), by, {"from": since_ms(since, now_ms=at_ms), "limit": limit}, as_json=as_json)
        return
    asked: dict[str, object] = {"from": since_ms(since, now_ms=at_ms), "to": at_ms, "limit": limit}
    if by in _GROUPS:
        asked |= {"group_by": _GROUPS[by], "order_by": "calls"}
    else:
        asked["interval"] = by
    answer = Api(*service(data)).get("/v1/usage", asked)
    if as_json:
        for row in answer["rows"]:
            _json_line(row)
        return
    from deploy.cli.tables import table

    numbers = ("calls", "failed", "error rate", "p50 ms", "p95 ms", "p99 ms", "users", "sessions")
    rows = [
        _usage_cells(_iso_minute(row["start"]) if "start" in row else row[_GROUPS[by]] or "(none)", row)
        for row in answer["rows"]
    ]
    if rows:
        rows.append(_usage_cells("all", answer["totals"]))
    table([by, *numbers], rows, empty="no calls in that time", right=numbers)
    if answer.get("truncated"):
        click.echo(f"the first {limit} rows; --limit shows more", err=True)
    click.echo(f"complete until {answer['complete_until']}", err=True)


def _corrections(api: Api, by: str, asked: dict[str, object], *, as_json: bool) -> None:
    group = _GROUPS.get(by)
    if by == "day":
        raise click.UsageError("corrections are shown by hour: take another --by.", click.get_current_context())
    answer = api.get("/v1/usage/corrections", asked | {"order_direction": "desc"} | ({"group_by": group} if group else {}))
    if as_json:
        for row in answer["rows"]:
            _json_line(row)
        return
    from deploy.cli.tables import table

    rows = [
        [
            _iso_minute(row["window_start"]),
            *([row[group] or "(none)"] if group else []),
            f"{row['calls']:,}",
            f"{row['failed']:,}",
            _iso_minute(row["last_corrected_at"]),
        ]
        for row in answer["rows"]
    ]
    headers = ["hour", *([by] if group else []), "calls", "failed", "last corrected"]
    table(headers, rows, empty="no corrections in that time", right=("calls", "failed"))
    if answer["next_cursor"]:
        click.echo(f"the first {asked['limit']} rows; --limit shows more", err=True)
    totals = answer["totals"]
    click.echo(
        f"{totals['calls']:,} calls, {totals['failed']:,} of them failed; complete until {answer['complete_until']}", err=True
    )


def _usage_cells(name: str, row: dict[str, Any]) -> list[Any]:
    from rich.text import Text

    rate = row["error_rate"]
    style = "" if not rate else "red" if rate >= 0.1 else "yellow"
    return [
        name,
        f"{row['calls']:,}",
        f"{row['failed']:,}",
        Text("" if rate is None else f"{rate:.1%}", style=style),
        *(_ms(row[each]) for each in ("p50_ms", "p95_ms", "p99_ms")),
        f"{row['active_users']:,}",
        f"{row['active_sessions']:,}",
    ]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _iso_minute(moment_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment_ms / 1000))


def _json_line(item: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _log_line(item: dict[str, Any]) -> None:
    """Print one log as one line: time, status, duration, user, message, id."""
    metadata, metrics = item.get("metadata") or {}, item.get("metrics") or {}
    failed = item["status"] == "failed"
    duration = f"{_ms(metrics.get('duration_ms'))} ms" if metrics.get("duration_ms") is not None else ""
    message = printable(str(item.get("message") or metadata.get("tool_slug") or ""))
    cells = (
        click.style(item["timestamp"].replace("T", " "), dim=True),
        click.style("failed ", fg="red", bold=True) if failed else click.style("success", fg="green"),
        f"{duration:>10}",
        click.style(f"{printable(metadata.get('user_id') or '-'):<16}", fg="cyan"),
        click.style(message, fg="red") if failed else message,
        click.style(printable(item["id"]), dim=True),
    )
    click.echo("  ".join(cells))
