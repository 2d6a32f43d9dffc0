"""ClickHouse: does it answer, has it all tables, room and a true clock, and do the workers report to it?"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from deploy import migrate
from deploy.clocks import clickhouse_ahead
from deploy.doctor.finding import Finding, away, failed, ok, warning
from deploy.doctor.machine import disk
from ingest.contract import store
from ingest.contract.addresses import is_http
from ingest.contract.errors import ConfigurationError, StoreUnavailable
from ingest.contract.tables import PROGRESS, SCHEMA_MIGRATIONS, SCHEMA_VERSION

# The first one whose inverted indexes may be relied on.
_VERSION_MIN: Final = (26, 2)
_READ_TIMEOUT_S: Final = 15.0
# A worker reports once a second; on the page, too, this is when a partition counts as behind.
_BEHIND_MS: Final = 15_000
# A clock's error up to here is what machines under NTP have; beyond the second one "complete until" may be told too early.
_CLOCK_MS_OK: Final = 100
_CLOCK_MS_MAX: Final = 1_000

_DISKS: Final = "SELECT name, free_space, total_space FROM system.disks WHERE total_space > 0 AND NOT is_remote ORDER BY name"
_PARTS: Final = (
    "SELECT table, max(count), (SELECT toUInt64(value) FROM system.merge_tree_settings WHERE name = 'parts_to_delay_insert')"
    " FROM (SELECT table, partition_id, count() AS count FROM system.parts WHERE active AND database = currentDatabase()"
    " GROUP BY table, partition_id) GROUP BY table ORDER BY table"
)
_STUCK: Final = (
    "SELECT table, latest_fail_reason FROM system.mutations"
    " WHERE database = currentDatabase() AND NOT is_done AND NOT is_killed AND latest_fail_reason != '' ORDER BY create_time"
)
_HEARTBEATS: Final = (
    "SELECT incarnation, kafka_partition, partitions, next_offset, end_offset,"
    " toUnixTimestamp64Milli(complete_until), toUnixTimestamp64Milli(reported_at), worker"
    f" FROM {PROGRESS} ORDER BY reported_at DESC LIMIT 1 BY incarnation, kafka_partition"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The newest one of a partition, in the order of the question's columns. Offsets, and epoch ms."""

    incarnation: str
    partition: int
    partitions: int
    next_offset: int
    end_offset: int
    complete_until_ms: int
    reported_ms: int
    worker: str


def examine(url: str, shown: str, where: str, incarnation: str) -> Iterator[Finding]:
    """Ask ClickHouse; nothing is changed.

    Args:
        url: its address.
        shown: the address without its password.
        where: who named it, for the answer.
        incarnation: of Kafka's event topic, empty where that is not known.
    """
    if not is_http(url):
        # It is not shown, because it may hold a password.
        text = f"what stands for its address is none (address {where})"
        yield failed("clickhouse", text, "put http(s)://[user:password@]host:port[/database] into TOOLLEDGER_CLICKHOUSE")
        return
    try:
        missing = migrate.apply(url, dry_run=True)
    except StoreUnavailable as error:
        yield away("clickhouse", error, where)
        return
    except ConfigurationError as error:
        # It answers: what was applied is not what this program has.
        yield failed("schema", str(error), "correct the address, or run the version of toolledger that made these tables")
        return
    if len(missing) == SCHEMA_VERSION:
        yield failed("schema", f"{shown} has none of the tables (address {where})", "run toolledger migrate")
        return
    try:
        with store.told(url):
            client = store.client(url, read_timeout_s=_READ_TIMEOUT_S)
    except StoreUnavailable as error:
        yield away("clickhouse", error, where)
        return
    try:
        yield server(shown, str(client.server_version), where)
        yield from _each("schema", lambda of: [schema([each.label for each in missing], _applied(of))], client)
        for name, look in (("clock", _clock), ("disk", _disks), ("parts", _parts), ("mutations", _mutations)):
            yield from _each(name, look, client)
        yield from _each("progress", lambda of: _progress(of, incarnation), client)
    finally:
        client.close()


def _each(name: str, look: Callable[[Client], list[Finding]], client: Client) -> list[Finding]:
    """Look; what this user may not read is said, and keeps nothing else from being looked at."""
    try:
        return look(client)
    except ClickHouseError as error:
        fix = "ask as a user who may read the system tables and the ledger's"
        return [warning(name, f"could not be looked at: {_one_line(error)}", fix)]


def server(shown: str, version: str, where: str) -> Finding:
    """Judge the version of a server that answers."""
    text = f"{shown} answers, version {version} (address {where})"
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < _VERSION_MIN:
        needed = ".".join(str(number) for number in _VERSION_MIN)
        return failed("clickhouse", text, f"use ClickHouse {needed} or newer: the tables need its inverted indexes")
    return ok("clickhouse", text)


def schema(missing: Sequence[str], applied: int) -> Finding:
    """Judge which migrations are applied.

    Args:
        missing: names of those that are not.
        applied: the newest that is.
    """
    if missing:
        return failed("schema", f"not applied yet: {', '.join(missing)}", "run toolledger migrate")
    if applied > SCHEMA_VERSION:
        text = f"the tables are of version {applied}, this program knows {SCHEMA_VERSION}: a newer one made them"
        return warning("schema", text, "update toolledger on this machine")
    return ok("schema", f"version {applied}, nothing missing")


def clock(ahead_ms: float, doubt_ms: float) -> Finding:
    """Judge ClickHouse's clock.

    Args:
        ahead_ms: how far it is ahead of ours, negative where it is behind.
        doubt_ms: how far off that may be.
    """
    off_ms = max(0.0, abs(ahead_ms) - doubt_ms)
    way = "ahead of" if ahead_ms > 0 else "behind"
    text = f"ClickHouse's is {abs(ahead_ms):,.0f} ms {way} this machine's (± {doubt_ms:,.0f} ms)"
    fix = "set the clocks of all machines by NTP: workers judge by theirs until when answers are complete"
    if off_ms > _CLOCK_MS_MAX:
        return failed("clock", text, fix)
    if off_ms > _CLOCK_MS_OK:
        return warning("clock", text, fix)
    return ok("clock", text)


def progress(beats: Sequence[Heartbeat], *, now_ms: int, incarnation: str) -> list[Finding]:
    """Judge the partitions' newest heartbeats, the newest first."""
    fix = "start toolledger worker, or look at the log of the one that runs"
    if not beats:
        return [failed("progress", "no worker has ever reported here", fix)]
    newest = beats[0].incarnation
    if incarnation and newest != incarnation:
        text = "the workers that report here read another topic than this Kafka has now (or it was made anew, and none has yet)"
        return [failed("progress", text, "see that Kafka and ClickHouse are of the same installation, and that a worker runs")]
    current = {beat.partition: beat for beat in beats if beat.incarnation == newest}
    found = []
    if silent := [number for number in range(beats[0].partitions) if number not in current]:
        found.append(failed("progress", f"never reported: {_numbered(silent)}", fix))
    old = [beat for beat in current.values() if now_ms - beat.reported_ms > _BEHIND_MS]
    if old:
        since_s = (now_ms - max(beat.reported_ms for beat in old)) / 1000
        text = f"not reported for {since_s:,.0f} s: {_numbered([beat.partition for beat in old])}{_by(old)}"
        found.append(failed("progress", text, fix))
    late = [beat for beat in current.values() if beat not in old and now_ms - beat.complete_until_ms > _BEHIND_MS]
    if late:
        behind_s = (now_ms - min(beat.complete_until_ms for beat in late)) / 1000
        waiting = sum(beat.end_offset - beat.next_offset for beat in late)
        text = (
            f"behind by {behind_s:,.0f} s, {waiting:,} records wait: {_numbered([beat.partition for beat in late])}{_by(late)}"
        )
        found.append(
            warning("progress", text, "ask again: if it does not shrink, look at that worker's log or start another one")
        )
    if not found:
        behind_ms = now_ms - min(beat.complete_until_ms for beat in current.values())
        found.append(ok("progress", f"all {len(current)} partitions report; complete until {behind_ms / 1000:,.1f} s ago"))
    return found


def _numbered(partitions: Sequence[int]) -> str:
    return f"partition{'' if len(partitions) == 1 else 's'} {', '.join(str(number) for number in sorted(partitions))}"


def _by(beats: Sequence[Heartbeat]) -> str:
    return f" (last worker: {', '.join(sorted({beat.worker for beat in beats}))})"


def _applied(client: Client) -> int:
    return int(client.query(f"SELECT max(version) FROM {SCHEMA_MIGRATIONS}").result_rows[0][0])


def _clock(client: Client) -> list[Finding]:
    return [clock(*clickhouse_ahead(client))]


def _disks(client: Client) -> list[Finding]:
    return [disk(f"ClickHouse's {name}", free=free, total=total) for name, free, total in client.query(_DISKS).result_rows]


def _parts(client: Client) -> list[Finding]:
    """Tell where inserts are slowed down, or will be, because merges do not keep up."""
    rows: Sequence[Sequence[Any]] = client.query(_PARTS).result_rows
    full = [f"{table} {count:,}" for table, count, most in rows if most and count * 2 > most]
    if not full:
        return []
    text = f"merges do not keep up, parts of one partition: {', '.join(full)} (from {rows[0][2]:,} on inserts are slowed down)"
    return [warning("parts", text, "give ClickHouse more cores or a faster disk, or send less at once")]


def _mutations(client: Client) -> list[Finding]:
    stuck = client.query(_STUCK).result_rows
    return [
        failed(
            "mutations", f"{table} cannot be rewritten: {_shortened(reason)}", "mend what it names; ClickHouse goes on trying"
        )
        for table, reason in stuck
    ]


def _progress(client: Client, incarnation: str) -> list[Finding]:
    beats = [Heartbeat(**dict(zip(Heartbeat.__slots__, row, strict=True))) for row in client.query(_HEARTBEATS).result_rows]
    return progress(beats, now_ms=time.time_ns() // 1_000_000, incarnation=incarnation)


def _one_line(error: Exception) -> str:
    return _shortened(str(error))


def _shortened(text: str) -> str:
    return " ".join(text.split())[:300]
