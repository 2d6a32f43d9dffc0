"""Several projects whose rows overlap in every name, and the same history as each caller alone should see it.

A world is a database. The whole one holds all projects; beside it stand worlds that hold only what one caller may see. Whatever
a caller asks, the whole world must answer as its own does: then nothing of another project can have had a part in it.
"""

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from deploy.verify import kept
from deploy.verify.report import ProjectTotals, Report, finding
from ingest.contract.replay import letter_id
from ingest.contract.tables import VERIFICATIONS
from tests.support import rows
from tests.support.arrivals import Arrivals

HOUR_MS: Final = 3_600_000
T0: Final = 1_776_384_000_000  # 2026-04-17T00:00:00Z
END_MS: Final = T0 + 6 * HOUR_MS
COMPLETE_MS: Final = T0 + 8 * HOUR_MS
# Outcomes are kept for 400 days.
_VERIFIED_MS: Final = time.time_ns() // 10**6
INCARNATION: Final = f"{1:032x}"
PROJECTS: Final = ("proj_a", "proj_b", "proj_c")
# What stands in rows of a project and in no other's: wherever it turns up, its rows did.
MARKERS: Final = {"proj_a": "MARKERAAA", "proj_b": "MARKERBBB", "proj_c": "MARKERCCC"}
# Columns that tell whose row it is, and those whose values all projects share.
_MARKED: Final = (
    *("message", "error_message", "error_code", "error_type", "connected_account_id", "auth_config_id", "sandbox_id"),
    *("parent_log_id", "parent_tool_slug", "trace_id", "request_id", "framework", "language", "host"),
)


def events() -> list[dict[str, Any]]:
    """Return rows of all projects: equal ids, users, sessions and tools, of different numbers, and some of one's own."""
    chance = random.Random(7)
    made = []
    for project, count in zip(PROJECTS, (60, 90, 40), strict=True):
        mark = MARKERS[project]
        for index in range(count):
            own = index % 4 == 3
            failed = chance.random() < 0.4
            tool = f"{mark}_TOOL" if own else chance.choice(["GMAIL_SEND", "GMAIL_FETCH", "SLACK_POST"])
            row = {
                "project_id": project,
                "id": f"log_{mark}_{index}" if own else f"log_{index}",
                "timestamp": T0 + chance.choice([chance.randrange(6 * HOUR_MS), index // 8 * 60_000]),
                "tool_slug": tool,
                "toolkit_slug": tool.split("_")[0].lower(),
                "user_id": f"user_{mark}" if own else chance.choice(["", "user_1", "user_2", "ü"]),
                "session_id": f"sess_{mark}_{index % 3}" if own else chance.choice(["", "sess_1", "sess_2", "sess_3"]),
                "status": "failed" if failed else "success",
                "failure_class": chance.choice(["timeout", "unauthorized", "other"]) if failed else "",
                "http_status": chance.choice([0, 401, 429]) if failed else 200,
                "level": "error" if failed else "info",
                "duration_ms": float(chance.randrange(1, 900)),
                "data": f'{{"request":{{"payload":"{mark}"}},"response":{{}}}}',
                "metadata": f'{{"of":"{mark}"}}',
            }
            made.append(row | {column: f"{mark}_{column}_{index % 5}" for column in _MARKED if chance.random() < 0.7})
    return made


def letters() -> list[dict[str, Any]]:
    """Return dead letters of all projects, some of them equal but for their place."""
    made = []
    for offset in range(36):
        project = PROJECTS[offset % 3]
        payload = f'{{"id":"log_{offset // 3}","mark":"{MARKERS[project]}"' if offset % 2 else "not JSON at all"
        reason = ("invalid_json", "missing_member")[offset // 6 % 2]
        made.append({"project_id": project, "kafka_offset": offset, "reason": reason, "payload": payload, "key": project})
    return made


def corrections() -> list[dict[str, Any]]:
    """Return corrections of all projects."""
    chance = random.Random(9)
    made = []
    for index in range(90):
        project = PROJECTS[index % 3]
        own = index % 4 == 3
        made.append(
            {
                "project_id": project,
                "window_start": (T0 + chance.randrange(6) * HOUR_MS) // 1000,
                "newest_record_ms": END_MS + chance.randrange(2 * HOUR_MS),
                "first_offset": index,
                "tool_slug": f"{MARKERS[project]}_TOOL" if own else "GMAIL_SEND",
                "toolkit_slug": "gmail",
                "user_id": chance.choice(["", "user_1", f"user_{MARKERS[project]}"]),
                "session_id": chance.choice(["", "sess_1"]),
                "status": chance.choice(["failed", "success"]),
                "calls": chance.randrange(1, 4),
            }
        )
    return made


def report(projects: Sequence[str]) -> Report:
    """Return what a check of a world says: the same of the whole ledger, and of each project something of its own."""
    none = dict.fromkeys(("events", "accepted", "duplicates", "conflicts", "dead_letters", "forwarded", "rows", "calls"), 0)
    of = {
        project: ProjectTotals(project_id=project, **{**none, "events": 10 + place, "duplicates": place})
        for place, project in enumerate(PROJECTS)
        if project in projects
    }
    return Report(
        incarnation=INCARNATION,
        partitions=1,
        receipts=1,
        records=1,
        lag_records=0,
        lost_records=0,
        known_ids=0,
        horizon_ms=0,
        projects=list(of.values()),
        findings=(
            finding("gap", "partition 0: nothing proves [3, 4)", 0),
            *(finding("usage_differs", f"project {each!r}: {MARKERS[each]}", None, each) for each in of),
        ),
        **none,
    )


def letter_ids() -> list[str]:
    """Return the ids of all dead letters."""
    return [letter_id(INCARNATION, 0, one["kafka_offset"], 0) for one in letters()]


def fill(client: Client, projects: Sequence[str]) -> None:
    """Make the world that holds these projects."""

    def of(found: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [one for one in found if one["project_id"] in projects]

    # Each row has the offset it has in the whole world, where others stand between.
    records = [[event] if event["project_id"] in projects else [] for event in events()]
    Arrivals(client).batch(0, records, record_ms=COMPLETE_MS).write()
    rows._windows(client, [{**rows.DEFAULTS, **event} for event in of(events())])
    rows.report_progress(client, complete_until_ms=[COMPLETE_MS])
    _insert(
        client, "dead_letters", of(letters()), accepted_at=rows._moment(T0), message="it is broken", incarnation=INCARNATION
    )
    _insert(client, "usage_windows", of(corrections()), kind="correction", incarnation="one")
    client.insert(VERIFICATIONS, list(kept.rows_of(report(projects), now_ms=_VERIFIED_MS)), column_names=list(kept.COLUMNS))


def _insert(client: Client, table: str, found: Sequence[Mapping[str, Any]], **same: Any) -> None:
    lines = [{**one, **same, "batch_month": 202604} for one in found]
    names = list(lines[0])
    client.insert(table, [[line[name] for name in names] for line in lines], column_names=names)
