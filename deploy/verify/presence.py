"""Who was there, day by day: active users and sessions are counted from rows of days, which must say what the logs say.

Of each day and user (or session) the first and the last call are compared. Logs are written before the rows of days, and are
proved by receipts that come together with them. So, whatever goes on meanwhile: what is proved must be within what the rows of
days say, and that must be within all logs. A batch may land between two looks at two tables, so a difference is looked at
again, and counts if it stays.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from deploy.verify.purged import Purged
from deploy.verify.report import Finding, finding
from deploy.verify.store import Store
from ingest.contract import tables

# Kind of row -> whose.
_KINDS: Final = {tables.KIND_USER_DAY: "user_id", tables.KIND_SESSION_DAY: "session_id"}
# So many are looked at again; where there are more, those in excess are found when these are mended.
_DOUBTS_MAX: Final = 1000
_LOOKS: Final = 3
_PAUSE_S: Final = 0.5
_LATEST_MS: Final = 2**62

# Where batches are proved to: (incarnation, partition) -> next offset.
Proved = Mapping[tuple[str, int], int]
# Project; start of the day, epoch s; user or session.
Doubt = tuple[str, int, str]


def presence(store: Store, projects: Sequence[str], proved: Proved, purged: Purged) -> Iterator[Finding]:
    """Compare projects' rows of days with their logs.

    Args:
        proved: as one question to `usage_windows` saw it, before this.
        purged: what retention took, which is compared no more.
    """
    for kind, column in _KINDS.items():
        doubts = _look(store, projects, kind, column, proved, purged, None)
        for _ in range(_LOOKS - 1):
            if not doubts:
                break
            time.sleep(_PAUSE_S)  # nothing tells when what was under way has landed
            doubts = _look(store, projects, kind, column, proved, purged, doubts)
        for (project_id, day_s, name), (there, logged) in sorted(doubts.items()):
            yield finding(
                "usage_differs",
                f"project {project_id!r}, {datetime.fromtimestamp(day_s, tz=UTC):%Y-%m-%d}, {column} {name!r}: logs say"
                f" {_told(logged)}, {kind} says {_told(there)}",
                None,
                project_id,
            )


def _look(
    store: Store,
    projects: Sequence[str],
    kind: str,
    column: str,
    proved: Proved,
    purged: Purged,
    again: Mapping[Doubt, Any] | None,
) -> dict[Doubt, tuple[tuple[int, int], tuple[int, int]]]:
    """Return (first, last) as rows of days and as logs have them, by what does not fit.

    Args:
        again: what to look at; None: everything.
    """
    within = " OR ".join(
        f"(incarnation = '{incarnation}' AND kafka_partition = {partition} AND first_offset < {end})"
        for (incarnation, partition), end in proved.items()
    )
    proof, day = within or "0", "toUnixTimestamp(toStartOfDay({}))"
    some, limit, parameters = "", f" LIMIT {_DOUBTS_MAX}", {"projects": list(projects)}
    if again is not None:
        # All of their days: a limit might leave out just those that are in doubt.
        some, limit = " AND name IN {names:Array(String)}", ""
        parameters["projects"] = sorted({project_id for project_id, _, _ in again})
        parameters["names"] = sorted({name for _, _, name in again})
    sums = ", ".join(
        f"min({name}_first) AS {name}_from, max({name}_last) AS {name}_to" for name in ("there", "proved", "logged")
    )
    rows = store.rows(
        f"SELECT project_id, day, name, {sums} FROM ("
        f" SELECT project_id, {day.format('window_start')} AS day, {column} AS name,"
        f"  tupleElement(first_call, 1) AS there_first, last_call_ms AS there_last,"
        f"  toInt64({_LATEST_MS}) AS proved_first, toInt64(-1) AS proved_last,"
        f"  toInt64({_LATEST_MS}) AS logged_first, toInt64(-1) AS logged_last"
        f" FROM {tables.USAGE_WINDOWS} WHERE project_id IN {{projects:Array(String)}} AND kind = '{kind}'{some}"
        f"{purged.kept('window_start')}"
        f" UNION ALL SELECT project_id, {day.format('timestamp')}, {column} AS name, {_LATEST_MS}, -1,"
        f"  if({proof}, toUnixTimestamp64Milli(timestamp), {_LATEST_MS}), if({proof}, toUnixTimestamp64Milli(timestamp), -1),"
        "  toUnixTimestamp64Milli(timestamp), toUnixTimestamp64Milli(timestamp)"
        f" FROM {tables.TOOL_EXECUTIONS} WHERE project_id IN {{projects:Array(String)}} AND name != ''{some}"
        f"{purged.kept('timestamp')})"
        " GROUP BY project_id, day, name"
        " HAVING proved_from < there_from OR proved_to > there_to OR there_from < logged_from OR there_to > logged_to"
        f"{limit}",
        **parameters,
        **purged.parameters,
    )
    found = {(project_id, day_s, name): ((a, b), (c, d)) for project_id, day_s, name, a, b, _, _, c, d in rows}
    return found if again is None else {doubt: said for doubt, said in found.items() if doubt in again}


def _told(span: tuple[int, int]) -> str:
    first_ms, last_ms = span
    return "nothing" if last_ms < first_ms else f"from {first_ms} to {last_ms} ms"
