"""`toolledger dead-letters`: see poison input, mend it, and replay it exactly once."""

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import click

from deploy.cli.common import (
    clickhouse_option,
    clickhouse_url,
    data_option,
    json_option,
    kafka_address,
    kafka_option,
    quiet_libraries,
    say,
    say_json,
)
from deploy.cli.since import since_ms

if TYPE_CHECKING:
    from deploy.letters import Kept, LetterBox, Replayed, Which

_TIMEOUT_S: Final = 30.0
_HEAD_BYTES: Final = 160
_HEAD_CHARS: Final = 60
# Of bytes that are no text this many are drawn; --raw gives all.
_DUMPED_BYTES_MAX: Final = 4_096
_DUMP_WIDTH: Final = 16


def _which_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--since", metavar="SPAN", help="Only those accepted since: 30s, 15m, 2h, 7d, or ISO 8601."),
        click.option("--reason", metavar="R", help="Only those refused for this reason."),
        click.option("--project", metavar="P", help="Only those of this project; '' for those that name none."),
    ):
        command = option(command)
    return command


@click.group("dead-letters", epilog="Example: toolledger dead-letters list --since 1d")
def dead_letters() -> None:
    """See input that could not become an event, mend it, and replay it exactly once. For operators: all projects."""


@dead_letters.command("list", epilog="Example: toolledger dead-letters list --project demo --since 1d")
@data_option
@clickhouse_option
@_which_options
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="At most this many.")
@json_option
def list_(
    data: Path,
    clickhouse: str | None,
    project: str | None,
    reason: str | None,
    since: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List dead letters, newest first, and how many there are of each reason."""
    which = _which(project, reason, since)
    with _box(clickhouse, data) as box:
        found = box.newest(which, limit=limit, head_bytes=_HEAD_BYTES)
        reasons = [] if as_json else box.reasons(which)
    if as_json:
        for kept in found:
            say_json(**_members(kept))
        return
    from deploy.cli.tables import table

    rows = [
        (
            kept.letter.id,
            _iso(kept.letter.accepted_ms),
            kept.letter.project_id or "(unknown)",
            kept.letter.reason,
            f"{kept.nbytes:,}",
            "yes" if kept.replayed else "no",
            _head(kept.letter.payload),
        )
        for kept in found
    ]
    table(
        ["id", "accepted", "project", "reason", "bytes", "replayed", "begins"], rows, empty="no dead letters", right=["bytes"]
    )
    if reasons:
        counts = [(name, of or "(unknown)", f"{count:,}") for name, of, count in reasons]
        table(["reason", "project", "dead letters"], counts, empty="", right=["dead letters"])


@dead_letters.command("show", epilog="Example: toolledger dead-letters show ID --raw > mended.json")
@data_option
@clickhouse_option
@click.argument("letter_id", metavar="ID")
@click.option("--raw", is_flag=True, help="Write its bytes and nothing else, to be mended.")
@json_option
def show(data: Path, clickhouse: str | None, letter_id: str, raw: bool, as_json: bool) -> int:
    """Show one dead letter in full: its bytes, why it is one, and where it came from. Exit 1 if there is none of that id."""
    with _box(clickhouse, data) as box:
        kept = _one(box, letter_id)
    if kept is None:
        return _unknown(letter_id)
    if raw:
        sys.stdout.buffer.write(kept.letter.payload)
        sys.stdout.buffer.flush()
    elif as_json:
        say_json(**_members(kept))
    else:
        for line in _described(kept):
            say(line)
    return 0


@dead_letters.command("replay", epilog="Example: toolledger dead-letters replay ID --file mended.json")
@data_option
@kafka_option
@clickhouse_option
@click.argument("letter_ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All of them, or all that --project, --reason and --since choose.")
@_which_options
@click.option(
    "--file",
    "mended",
    type=click.File("rb"),
    metavar="FILE",
    help="Send this event, array or NDJSON in place of ONE; - reads it.",
)
@click.option("--assign-project", metavar="P", help="Whose those are that name no project.")
@json_option
def replay(
    data: Path,
    kafka: str | None,
    clickhouse: str | None,
    letter_ids: tuple[str, ...],
    everything: bool,
    project: str | None,
    reason: str | None,
    since: str | None,
    mended: Any,
    assign_project: str | None,
    as_json: bool,
) -> int:
    """Send dead letters back to the topic, as they are or mended. Running it again counts nothing twice.

    Exit 1 if any still cannot become an event.
    """
    context = click.get_current_context()
    if everything == bool(letter_ids):
        raise click.UsageError("name dead letters by id, or take --all", context)
    if not everything and (project is not None or reason is not None or since is not None):
        raise click.UsageError("--project, --reason and --since go with --all", context)
    if mended is not None and len(letter_ids) != 1:
        raise click.UsageError("--file mends one dead letter: name it by its id", context)
    from ingest.contract.access import is_project

    if assign_project is not None and not is_project(assign_project):
        raise click.UsageError(f"{assign_project!r} cannot be a project", context)
    which = _which(project, reason, since) if everything else None
    with _box(clickhouse, data) as box:
        bytes_in = mended.read() if mended is not None else None
        address = kafka_address(kafka, data)
        done = asyncio.run(_replay(box, address, letter_ids, which, bytes_in, assign_project or "", as_json=as_json))
    if not as_json:
        say(f"replayed {done['replayed']:,}, already in the logs {done['already']:,}, still no events {done['refused']:,}")
    return 1 if done["refused"] or done["unknown"] else 0


async def _replay(
    box: "LetterBox",
    kafka: str,
    ids: Sequence[str],
    which: "Which | None",
    mended: bytes | None,
    project_id: str,
    *,
    as_json: bool,
) -> Counter[str]:
    from deploy.letters import Replayed, replay_page, replayer

    done: Counter[str] = Counter()

    def tell(outcomes: Sequence[Replayed]) -> None:
        for one in outcomes:
            done[one.outcome] += 1
            _tell(one, as_json=as_json, briefly=which is not None)

    async with replayer(kafka, timeout_s=_TIMEOUT_S) as sender:
        if which is not None:
            with _progress(box.count(which), quiet=as_json) as advance:
                for page in box.pages(which):
                    tell(await replay_page(box, sender, page, project_id=project_id))
                    advance(len(page))
            return done
        for letter_id in ids:
            kept = _one(box, letter_id)
            if kept is None:
                tell([Replayed(id=letter_id, outcome="unknown", message="there is no dead letter of this id")])
            else:
                tell(await replay_page(box, sender, [kept], mended=mended, project_id=project_id))
    return done


def _tell(one: "Replayed", *, as_json: bool, briefly: bool) -> None:
    """Say what became of one; of many only what needs somebody to look at it."""
    if as_json:
        say_json(id=one.id, outcome=one.outcome, ids=one.ids, sent=one.sent, reason=one.reason, message=one.message)
    elif one.outcome == "refused":
        say(f"{one.id} still no event: {one.reason}: {one.message[:500]}")
    elif one.outcome == "unknown":
        click.echo(f"{one.id}: {one.message}", err=True)
    elif not briefly:
        as_what = f" as {', '.join(one.ids[:10])}{', ...' if len(one.ids) > 10 else ''}" if one.ids else ""
        say(f"{one.id} {'replayed' if one.outcome == 'replayed' else 'is in the logs already'}{as_what}")


@contextlib.contextmanager
def _progress(total: int, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Give what counts up; on a terminal with a bar."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("dead letters", total=total)
        yield lambda more: progress.advance(task, more)


@contextlib.contextmanager
def _box(clickhouse: str | None, data: Path) -> Iterator["LetterBox"]:
    from deploy.letters import LetterBox

    quiet_libraries()
    with contextlib.closing(LetterBox(clickhouse_url(clickhouse, data))) as box:
        yield box


def _which(project: str | None, reason: str | None, since: str | None) -> "Which":
    from deploy.letters import Which
    from ingest.contract.event import Reason

    if reason is not None and reason not in get_args(Reason):
        known = ", ".join(sorted(get_args(Reason)))
        raise click.UsageError(f"--reason {reason!r} is none: take one of {known}", click.get_current_context())
    now_ms = time.time_ns() // 1_000_000
    return Which(project=project, reason=reason, since_ms=since_ms(since, now_ms=now_ms) if since else None)


def _one(box: "LetterBox", letter_id: str) -> "Kept | None":
    from ingest.contract.replay import parse_letter_id

    place = parse_letter_id(letter_id)
    return None if place is None else box.one(place)


def _unknown(letter_id: str) -> int:
    click.echo(f"there is no dead letter {letter_id}: see `toolledger dead-letters list`", err=True)
    return 1


def _members(kept: "Kept") -> dict[str, Any]:
    import base64

    letter = kept.letter
    try:
        payload, encoding = letter.payload.decode(), "utf-8"
    except UnicodeDecodeError:
        payload, encoding = base64.b64encode(letter.payload).decode(), "base64"
    return {
        "id": letter.id,
        "project": letter.project_id,
        "reason": letter.reason,
        "message": kept.message,
        "accepted_at": _iso(letter.accepted_ms),
        "origin": {
            "topic": kept.topic,
            "incarnation": letter.incarnation,
            "partition": letter.partition,
            "offset": letter.offset,
            "index": letter.index,
        },
        "key": kept.key.decode(errors="replace"),
        "bytes": kept.nbytes,
        "payload": payload,
        "encoding": encoding,
        "truncated": len(letter.payload) < kept.nbytes,
        "replayed": kept.replayed,
    }


def _described(kept: "Kept") -> Iterator[str]:
    letter = kept.letter
    yield f"id        {letter.id}"
    yield f"reason    {letter.reason}: {_plain(kept.message[:2_000])}"
    yield f"project   {letter.project_id or '(unknown: replay it with --assign-project)'}"
    yield f"accepted  {_iso(letter.accepted_ms)}"
    yield f"origin    {kept.topic}, partition {letter.partition}, offset {letter.offset}, event {letter.index} in its record"
    if kept.key:
        yield f"key       {_plain(kept.key.decode(errors='replace'))}"
    yield f"replayed  {'yes' if kept.replayed else 'no'}"
    yield f"bytes     {kept.nbytes:,}"
    yield ""
    try:
        yield _plain(letter.payload.decode(), lines=True)
    except UnicodeDecodeError:
        yield from _dump(letter.payload[:_DUMPED_BYTES_MAX])
        if len(letter.payload) > _DUMPED_BYTES_MAX:
            yield f"... {len(letter.payload) - _DUMPED_BYTES_MAX:,} more bytes: --raw gives all"


def _dump(raw: bytes) -> Iterator[str]:
    for start in range(0, len(raw), _DUMP_WIDTH):
        row = raw[start : start + _DUMP_WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{start:08x}  {row.hex(' '):<{3 * _DUMP_WIDTH - 1}}  {text}"


def _head(raw: bytes) -> str:
    return _plain(raw.decode(errors="replace"))[:_HEAD_CHARS]


def _plain(text: str, *, lines: bool = False) -> str:
    """Text that a terminal only shows: poison may hold its control sequences too."""
    kept = "\n\t" if lines else ""
    return "".join(each if each.isprintable() or each in kept else "\N{REPLACEMENT CHARACTER}" for each in text)


def _iso(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms // 1000, UTC).replace(microsecond=at_ms % 1000 * 1000)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
