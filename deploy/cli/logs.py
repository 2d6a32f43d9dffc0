"""`toolledger logs`: what happened, what is happening, and all of it as a file."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from deploy.api import Api
from deploy.cli import export, log_lines
from deploy.cli.common import data_option, json_option, now_ms, say_json, service
from deploy.cli.follow import follow as follow_stream
from deploy.cli.follow import patiently
from deploy.cli.since import since_ms
from ingest.contract.event import TIMESTAMP_AHEAD_MS_MAX

LOGS: Final = "/api/v3.1/logs/tool_execution"
_PAGE: Final = 100
_LIMIT: Final = 20

Filters = list[tuple[str, str, str]]


@click.command(epilog="Example: toolledger logs --failed --toolkit gmail --since 15m")
@data_option
@click.option("--failed", is_flag=True, help="Only failed calls.")
@click.option("--tool", metavar="T", help="Only calls of this tool.")
@click.option("--toolkit", metavar="T", help="Only calls of this toolkit.")
@click.option("--user", metavar="U", help="Only calls of this user.")
@click.option("--session", metavar="S", help="Only calls of this session.")
@click.option("--search", metavar="TEXT", help="Only calls whose message or error holds this text.")
@click.option(
    "--pattern", metavar="MESSAGE", help="Only failures of the group that `toolledger failures` shows with this message."
)
@click.option("--since", metavar="SPAN", help="How far back: 30s, 15m, 2h, 7d, or a moment in ISO 8601.")
@click.option("--limit", type=click.IntRange(1), help=f"At most this many; {_LIMIT} unless given.")
@click.option("--follow", "-f", is_flag=True, help="Go on and show calls as they come, until Ctrl-C.")
@click.option("--output", "-o", metavar="FILE", help="Write all of them to a file; `-` is standard output.")
@click.option(
    "--format", "kind", type=click.Choice(export.FORMATS), help="Of the file; by its ending unless given, else NDJSON."
)
@click.option("--with-data", is_flag=True, help="With requests and responses in the file.")
@json_option
def logs(
    data: Path,
    failed: bool,
    tool: str | None,
    toolkit: str | None,
    user: str | None,
    session: str | None,
    search: str | None,
    pattern: str | None,
    since: str | None,
    limit: int | None,
    follow: bool,
    output: str | None,
    kind: str | None,
    with_data: bool,
    as_json: bool,
) -> None:
    """Show what happened, newest first; with --follow oldest first and on; with --output all of it as a file."""
    _check(follow=follow, output=output, limit=limit, kind=kind, with_data=with_data, as_json=as_json)
    given = (
        ("status", "==", "failed" if failed else None),
        ("tool_slug", "==", tool),
        ("toolkit_slug", "==", toolkit),
        ("user_id", "==", user),
        ("session_id", "==", session),
        ("text", "contains", search),
        ("failure_pattern", "==", pattern),
    )
    filters = [(field, operator, value) for field, operator, value in given if value is not None]
    from_ms = since_ms(since, now_ms=now_ms()) if since else None
    api = Api(*service(data))
    if output is not None:
        asked = {"format": kind or export.format_of(output), "from": from_ms, "data": "true" if with_data else None}
        export.export(api, asked | _parameters(filters), output)
        return
    if follow:
        # Open before the past is looked at, so that nothing falls in between.
        events = follow_stream(Api(*service(data)), _parameters(filters))
        next(events)
        found = patiently(lambda: list(_search(api, filters, from_ms=from_ms, limit=limit or _LIMIT)))
    else:
        found = list(_search(api, filters, from_ms=from_ms, limit=limit or _LIMIT))
    for item in reversed(found) if follow else found:
        _show(item, as_json=as_json)
    if follow:
        # What was looked up may come once more.
        known = {item["id"] for item in found}
        for event in events:
            if event is not None and event["id"] not in known:
                _show(event, as_json=as_json)
    elif not found and not as_json:
        click.echo("no call fits", err=True)


def _check(*, follow: bool, output: str | None, limit: int | None, kind: str | None, with_data: bool, as_json: bool) -> None:
    context = click.get_current_context()
    if output is None and (kind or with_data):
        raise click.UsageError("--format and --with-data are for --output FILE.", context)
    if output is not None and (follow or as_json or limit):
        raise click.UsageError("--output writes all there is to a file: leave out --follow, --json and --limit.", context)


def _parameters(filters: Filters) -> dict[str, object]:
    return {"filter": [f"{field}:{operator}:{value}" for field, operator, value in filters]}


def _search(api: Api, filters: Filters, *, from_ms: int | None, limit: int) -> Iterator[dict[str, Any]]:
    """Yield logs newest first, page by page."""
    listed = [{"field": field, "operator": operator, "value": value} for field, operator, value in filters]
    body: dict[str, Any] = {"limit": min(limit, _PAGE), "filters": listed}
    if from_ms is not None:
        body["time_range"] = {"from": from_ms, "to": now_ms() + TIMESTAMP_AHEAD_MS_MAX}
    left = limit
    while left > 0:
        page = api.post(LOGS, body)
        yield from page["logs"][:left]
        left -= len(page["logs"])
        if page["next_cursor"] is None:
            return
        body["cursor"] = page["next_cursor"]


def _show(item: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        say_json(**item)
    else:
        click.echo(log_lines.line(item, width=log_lines.columns(), coloured=log_lines.colours()))
