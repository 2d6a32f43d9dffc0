"""Take away what is past a project's retention, logs and usage alike, so that they go on agreeing; and say how much that was.

What is kept begins with a day (UTC) by the events' own time. In this order, so that every count stays exact whenever it ends:

1. Announced in the control topic: from then on events of that time are refused, because they would count once more.
2. When everything that Kafka accepted before is proved, all there ever will be of that time is there, and it is counted.
3. The count, of all that was ever taken from before that day, is noted in `purges`, as not done: what `verify` accounts for.
4. Usage and rows are deleted, which may be done twice; then it is noted as done.

Payloads are emptied alone: no count knows of them.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from deploy.clocks import clickhouse_ahead
from deploy.mutations import await_mutations
from ingest.contract import store
from ingest.contract.access import ProjectRules
from ingest.contract.errors import StoreUnavailable
from ingest.contract.tables import (
    DEAD_LETTERS,
    KIND_PROJECT_RECEIPT,
    KIND_RECEIPT,
    KIND_TOOL_MINUTE,
    PURGE_PAYLOADS,
    PURGE_TOTALS,
    PURGES,
    TOOL_EXECUTIONS,
    USAGE_WINDOWS,
)
from ingest.keys import announce_purges, read_access
from query_api.progress import HEARTBEATS, progress
from query_api.usage.grains import DAY_MS

# What can be taken away.
LOGS: Final = "logs"
PAYLOADS: Final = "payloads"
# Longer than any service takes to hear what the control topic says.
GRACE_MS: Final = 60_000
# This clock tells what goes, and from when on it is refused; further than this from ClickHouse's, one of the two is wrong.
_CLOCK_MS_MAX: Final = GRACE_MS / 2
# How long workers may take to prove what came before the announcement, beside the grace.
_PATIENCE_S: Final = 600.0
_ASK_S: Final = 0.5
# After so many days without it somebody should know.
_LATE_DAYS: Final = 2
_TELL_S: Final = 15.0
_COLUMNS: Final = ["project_id", "kind", "until", "calls", "done", "noted_at", "kafka_partition"]

_CALLS: Final = (
    f"FROM {TOOL_EXECUTIONS} WHERE project_id = {{project:String}} AND timestamp < fromUnixTimestamp64Milli({{until:Int64}})"
)
_SINCE: Final = "toUnixTimestamp({}) >= intDiv({{since:Int64}}, 1000)"
_PAYLOADS: Final = f"{_CALLS} AND data != ''"
_LETTERS: Final = (
    f"FROM {DEAD_LETTERS} WHERE project_id = {{project:String}} AND accepted_at < fromUnixTimestamp64Milli({{until:Int64}})"
    " AND payload != ''"
)
_SUMS: Final = (
    f"FROM {USAGE_WINDOWS} WHERE project_id = {{project:String}} AND kind NOT IN ('{KIND_RECEIPT}', '{KIND_PROJECT_RECEIPT}')"
    " AND window_start < toDateTime(intDiv({until:Int64}, 1000))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was taken away of a project, or would be.

    Args:
        kind: `logs`, with their usage, or `payloads` alone.
        until_ms: all before it, epoch ms; the start of a day (UTC).
        calls: how many logs.
        letters: how many dead letters were emptied.
    """

    project_id: str
    kind: str
    until_ms: int
    calls: int
    letters: int = 0


def carry_out(
    kafka: str,
    clickhouse: str,
    *,
    dry_run: bool = False,
    grace_ms: int = GRACE_MS,
    waits: Callable[[str], None] = lambda _: None,
) -> Iterator[Taken]:
    """Do what the projects' rules ask for, and yield what was done; safe to end and to repeat at any moment.

    Args:
        kafka: bootstrap addresses.
        clickhouse: its URL.
        dry_run: only tell what would be done.
        grace_ms: how long after its announcement a purge is in force.
        waits: told, every now and then, what is waited for.

    Raises:
        BrokerUnavailable: Kafka does not answer.
        StoreUnavailable: ClickHouse does not, or workers do not prove what was accepted; or logs and usage of what is to be
            taken away differ, which `verify` explains; or this clock and its differ, and one of them would take too much.
    """
    rules = sorted(asyncio.run(read_access(kafka)).rules.values(), key=lambda one: one.project_id)
    now_ms = time.time_ns() // 1_000_000
    with store.told(clickhouse), contextlib.closing(store.client(clickhouse)) as client:
        _require_one_time(client)
        run = _Run(client, waits)
        if not dry_run:
            yield from run.finish_open()
        yield from run.payloads(rules, now_ms=now_ms, dry_run=dry_run)
        due = run.due(rules, now_ms=now_ms)
        if dry_run:
            for project_id, until_ms in due.items():
                calls = run.count(_CALLS, project_id, until_ms)
                yield Taken(project_id=project_id, kind=LOGS, until_ms=until_ms, calls=calls)
        elif due:
            run.announce(kafka, due, grace_ms=grace_ms)
            for project_id, until_ms in due.items():
                yield run.logs(project_id, until_ms)


def overdue(kafka: str, clickhouse: str) -> tuple[int, list[str]]:
    """Return how many projects ask for retention, and those of which something has been past it for days.

    Raises:
        BrokerUnavailable, StoreUnavailable: as `carry_out`.
    """
    rules = [one for one in asyncio.run(read_access(kafka)).rules.values() if one.retention_days or one.payload_retention_days]
    if not rules:
        return 0, []
    then_ms = time.time_ns() // 1_000_000 - _LATE_DAYS * DAY_MS
    with store.told(clickhouse), contextlib.closing(store.client(clickhouse)) as client:
        run = _Run(client, lambda _: None)
        return len(rules), sorted({*run.due(rules, now_ms=then_ms), *run.unlooked(rules, now_ms=then_ms)})


class _Run:
    """One run against one ClickHouse."""

    def __init__(self, client: Client, waits: Callable[[str], None]) -> None:
        self._client = client
        self._waits = waits

    def count(self, rows: str, project_id: str, until_ms: int) -> int:
        """Count some of what lies before a time."""
        return int(self._one(f"SELECT count() {rows}", project_id, until_ms))

    def due(self, rules: Sequence[ProjectRules], *, now_ms: int) -> dict[str, int]:
        """Return the projects that have logs past their retention, and until when."""
        untils = {one.project_id: _until(one.retention_days, now_ms) for one in rules if one.retention_days}
        return {project_id: until_ms for project_id, until_ms in untils.items() if self.count(_CALLS, project_id, until_ms)}

    def unlooked(self, rules: Sequence[ProjectRules], *, now_ms: int) -> list[str]:
        """Return the projects whose payloads of before their retention nobody has looked for."""
        untils = {one.project_id: _until(one.payload_retention_days, now_ms) for one in rules if one.payload_retention_days}
        return [
            project_id
            for project_id, until_ms in untils.items()
            if max(self._noted(project_id, PURGE_PAYLOADS), default=0) < until_ms and self.count(_CALLS, project_id, until_ms)
        ]

    def announce(self, kafka: str, due: Mapping[str, int], *, grace_ms: int) -> None:
        """Announce purges, and wait until everything that was accepted before they are in force is proved."""
        began = told = time.monotonic()

        def announced() -> int:
            return asyncio.run(announce_purges(kafka, due, effective_ms=time.time_ns() // 1_000_000 + grace_ms))

        in_force_ms = announced()
        while True:
            heartbeats = self._client.query(HEARTBEATS).result_rows
            if progress(heartbeats, now_ms=time.time_ns() // 1_000_000).complete_until_ms > in_force_ms:
                # Another run may have announced the same a moment later, or have written over what was announced here: workers
                # that forgot it took what they should refuse, so it is in force later.
                again_ms = announced()
                if again_ms <= in_force_ms:
                    return
                in_force_ms = again_ms
            if time.monotonic() - began > grace_ms / 1000 + _PATIENCE_S:
                raise StoreUnavailable(
                    "nothing was taken away: workers have not proved what Kafka accepted before it was announced;"
                    " toolledger doctor says why"
                )
            if time.monotonic() - told > _TELL_S:
                told = time.monotonic()
                self._waits("waiting: every service has a minute to hear of it, and what was accepted before has to be proved")
            time.sleep(_ASK_S)  # nobody tells how far the proof has come

    def logs(self, project_id: str, until_ms: int) -> Taken:
        """Count, note and take away a project's logs and usage."""
        while True:
            since_ms, before = self._taken_so_far(project_id)
            # What an earlier purge has counted may come again: written anew after ClickHouse had lost it. It only goes again.
            calls = int(self._one(f"SELECT count() {_CALLS} AND {_SINCE.format('timestamp')}", project_id, until_ms, since_ms))
            minutes = f"{_SUMS} AND kind = '{KIND_TOOL_MINUTE}' AND {_SINCE.format('window_start')}"
            summed = int(self._one(f"SELECT sum(calls) {minutes}", project_id, until_ms, since_ms))
            # Another run, which noted a purge meanwhile, may have been deleting what was counted.
            if (since_ms, before) == self._taken_so_far(project_id):
                break
        if calls != summed:
            raise StoreUnavailable(
                f"nothing of {project_id} was taken away: before {day(until_ms)} it has {calls} logs and {summed} calls in"
                " usage; toolledger verify says what is wrong"
            )
        # All there ever was before that day, and not what came since the last purge: so it does not matter which purges were
        # noted when, by runs at the same time.
        self._note(project_id, PURGE_TOTALS, until_ms, calls=before + calls, done=False)
        return self._take(project_id, until_ms, calls)

    def finish_open(self) -> Iterator[Taken]:
        """Go on with what an earlier run has noted and not done."""
        rows = self._client.query(
            "SELECT project_id, toUnixTimestamp(until) AS until_s, max(calls), max(done)"
            f" FROM {PURGES} WHERE kind = '{PURGE_TOTALS}' GROUP BY project_id, until_s ORDER BY until_s"
        ).result_rows
        before: Counter[str] = Counter()
        for project_id, until_s, calls, is_done in rows:
            if not is_done:
                yield self._take(project_id, until_s * 1000, max(0, calls - before[project_id]))
            before[project_id] = max(before[project_id], calls)

    def payloads(self, rules: Sequence[ProjectRules], *, now_ms: int, dry_run: bool) -> Iterator[Taken]:
        """Empty payloads past their retention, and dead letters past that of payloads or of logs."""
        for one in rules:
            days = [each for each in (one.payload_retention_days, one.retention_days) if each]
            if not days:
                continue
            until_ms = _until(min(days), now_ms)
            # To look for payloads is to read them, so it is done once a day; what comes late waits for the next one.
            if until_ms in self._noted(one.project_id, PURGE_PAYLOADS):
                continue
            calls = self.count(_PAYLOADS, one.project_id, until_ms) if one.payload_retention_days else 0
            letters = self.count(_LETTERS, one.project_id, until_ms)
            if not dry_run:
                if calls:
                    self._change(f"ALTER TABLE {TOOL_EXECUTIONS} UPDATE data = ''", _PAYLOADS, one.project_id, until_ms)
                if letters:
                    self._change(
                        f"ALTER TABLE {DEAD_LETTERS} UPDATE payload = '', key = ''", _LETTERS, one.project_id, until_ms
                    )
                self._note(one.project_id, PURGE_PAYLOADS, until_ms, calls=calls, done=True)
            if calls or letters:
                yield Taken(project_id=one.project_id, kind=PAYLOADS, until_ms=until_ms, calls=calls, letters=letters)

    def _take(self, project_id: str, until_ms: int, calls: int) -> Taken:
        # Logs are masked and not rewritten: ClickHouse makes a part's inverted indexes anew in memory, gigabytes of them.
        for command, rows in ((f"ALTER TABLE {USAGE_WINDOWS} DELETE", _SUMS), (f"DELETE FROM {TOOL_EXECUTIONS}", _CALLS)):
            if self.count(rows, project_id, until_ms):
                self._change(command, rows, project_id, until_ms)
        self._note(project_id, PURGE_TOTALS, until_ms, calls=0, done=True)  # of a purge the largest count stands
        return Taken(project_id=project_id, kind=LOGS, until_ms=until_ms, calls=calls)

    def _change(self, command: str, rows: str, project_id: str, until_ms: int) -> None:
        where = rows[rows.index("WHERE") :]
        settings = {"mutations_sync": 0, "lightweight_deletes_sync": 0}
        self._client.command(f"{command} {where}", _values(project_id, until_ms), settings=settings)
        await_mutations(self._client, f"the retention of {project_id}", self._waits)

    def _note(self, project_id: str, kind: str, until_ms: int, *, calls: int, done: bool) -> None:
        row = [project_id, kind, until_ms // 1000, calls, int(done), datetime.now(tz=UTC), 0]
        self._client.insert(PURGES, [row], column_names=_COLUMNS)

    def _noted(self, project_id: str, kind: str) -> set[int]:
        """Return up to when purges of a project were noted, epoch ms."""
        query = f"SELECT toUnixTimestamp(until) FROM {PURGES} WHERE project_id = {{project:String}} AND kind = {{kind:String}}"
        return {until_s * 1000 for (until_s,) in self._client.query(query, {"project": project_id, "kind": kind}).result_rows}

    def _taken_so_far(self, project_id: str) -> tuple[int, int]:
        """Return up to when a project's logs were taken, epoch ms, and how many ever were."""
        noted = f"FROM {PURGES} WHERE project_id = {{project:String}} AND kind = '{PURGE_TOTALS}'"
        query = f"SELECT toUnixTimestamp(max(until)), max(calls) {noted}"
        until_s, calls = self._client.query(query, {"project": project_id}).result_rows[0]
        return until_s * 1000, calls

    def _one(self, query: str, project_id: str, until_ms: int, since_ms: int = 0) -> Any:
        return self._client.query(query, _values(project_id, until_ms) | {"since": since_ms}).result_rows[0][0]


def _require_one_time(client: Client) -> None:
    """Raise where one of two clocks must be wrong: what a clock that is ahead takes away does not come back."""
    ahead = clickhouse_ahead(client)
    if abs(ahead.ms) - ahead.doubt_ms > _CLOCK_MS_MAX:
        way = "ahead of" if ahead.ms > 0 else "behind"
        raise StoreUnavailable(
            f"nothing was taken away: ClickHouse's clock is {abs(ahead.ms) / 1000:,.0f} s {way} this machine's, and days are"
            " counted by them; set both by NTP"
        )


def day(at_ms: int) -> str:
    """Return a day (UTC) as people read it."""
    return f"{datetime.fromtimestamp(at_ms / 1000, tz=UTC):%Y-%m-%d}"


def _until(days: int | None, now_ms: int) -> int:
    assert days
    return max(0, (now_ms - days * DAY_MS) // DAY_MS * DAY_MS)


def _values(project_id: str, until_ms: int) -> dict[str, Any]:
    return {"project": project_id, "until": until_ms}
