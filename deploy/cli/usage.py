"""`toolledger usage`: calls, failures, error rates and percentiles, and what was added late."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from deploy.api import Api
from deploy.cli.common import counted, data_option, json_option, now_ms, printable, say_json, service
from deploy.cli.log_lines import ms
from deploy.cli.since import since_ms

_GROUPS: Final = {"tool": "tool_slug", "toolkit": "toolkit_slug", "user": "user_id", "session": "session_id"}
_SHOWN: Final = ("calls", "failed", "error_rate", "p50_ms", "p95_ms", "p99_ms", "active_users", "active_sessions")
# Their heads in the table, and those that a narrow terminal is shown without, in the order in which they go.
_NUMBERS: Final = ("calls", "failed", "error rate", "p50 ms", "p95 ms", "p99 ms", "active users", "active sessions")
_SPARE: Final = ("active sessions", "active users", "p50 ms", "p99 ms", "p95 ms", "error rate")


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
    """Show calls, failures, error rate and percentiles; with --corrections what was added late, newest hour first.

    Days and hours go from the oldest to the present one; where there are more than --limit, the oldest are left out.
    """
    at_ms = now_ms()
    if corrections:
        _corrections(Api(*service(data)), by, {"from": since_ms(since, now_ms=at_ms), "limit": limit}, as_json=as_json)
        return
    asked: dict[str, object] = {"from": since_ms(since, now_ms=at_ms), "to": at_ms, "limit": limit}
    if by in _GROUPS:
        asked |= {"group_by": _GROUPS[by], "order_by": "calls"}
    else:
        # Where there are more than are shown, the newest are looked for.
        asked |= {"interval": by, "order_direction": "desc"}
    if not as_json:
        # Those of the table: sessions by their first call, which it does not show, cost as much as all others.
        asked["metrics"] = ",".join(_SHOWN)
    answer = Api(*service(data)).get("/v1/usage", asked)
    if by not in _GROUPS:
        answer["rows"].reverse()
    if as_json:
        for row in answer["rows"]:
            say_json(**row)
        return
    rows = [
        (_iso_minute(row["start"]) if "start" in row else printable(row[_GROUPS[by]]) or "(none)", row)
        for row in answer["rows"]
    ]
    if rows:
        rows.append(("all", answer["totals"]))
    if no_room := _table(by, rows):
        click.echo(f"this terminal has no room for {', '.join(no_room)}; --json shows all", err=True)
    if answer.get("truncated"):
        left_out = f"the first {limit} rows; --limit shows more"
        click.echo(left_out if by in _GROUPS else f"the newest {limit} {by}s; --limit shows older ones", err=True)
    click.echo(f"complete until {answer['complete_until']}", err=True)


def _corrections(api: Api, by: str, asked: dict[str, object], *, as_json: bool) -> None:
    group = _GROUPS.get(by)
    if by == "day":
        raise click.UsageError("corrections are shown by hour: take another --by.", click.get_current_context())
    answer = api.get("/v1/usage/corrections", asked | {"order_direction": "desc"} | ({"group_by": group} if group else {}))
    if as_json:
        for row in answer["rows"]:
            say_json(**row)
        return
    from deploy.cli.tables import table

    rows = [
        [
            _iso_minute(row["window_start"]),
            *([printable(row[group]) or "(none)"] if group else []),
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
    calls = counted(totals["calls"], "call")
    click.echo(f"{calls}, {totals['failed']:,} of them failed; complete until {answer['complete_until']}", err=True)


def _table(by: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Print names and their metrics; return what the terminal had no room for."""
    from deploy.cli.tables import table

    cells = [_usage_cells(name, row) for name, row in rows]
    return table([by, *_NUMBERS], cells, empty="no calls in that time", right=_NUMBERS, spare=_SPARE)


def _usage_cells(name: str, row: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    rate = row["error_rate"]
    style = "" if not rate else "red" if rate >= 0.1 else "yellow"
    return [
        name,
        f"{row['calls']:,}",
        f"{row['failed']:,}",
        Text("" if rate is None else f"{rate:.1%}", style=style),
        *(ms(row[each]) for each in ("p50_ms", "p95_ms", "p99_ms")),
        f"{row['active_users']:,}",
        f"{row['active_sessions']:,}",
    ]


def _iso_minute(moment_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment_ms / 1000))
