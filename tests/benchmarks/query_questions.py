"""What the benchmark of the query service asks: each question as requests of a client, and as SQL over raw rows beside it."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from clickhouse_connect.driver.client import Client

from ingest.contract.access import hash_key
from query_api.http.app import LOGS, ORG_USAGE, PROJECT_USAGE
from query_api.paging import Cursors, Place
from query_api.tenant import Tenant

PROJECT: Final = "acme"
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
_SAMPLES: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that is there, to be asked about."""

    id: str
    timestamp_ms: int
    user_id: str
    session_id: str
    request_id: str


class Asker:
    """Makes requests of one project's key (and one organisation's) about calls that are there.

    Args:
        now_ms: when the history ended, which questions mean by now.
        goes_on: calls arrive meanwhile, so that the newest ones are those of this moment.
    """

    def __init__(self, key: str, org_key: str, calls: Sequence[Call], *, now_ms: int, goes_on: bool) -> None:
        self.now_ms = now_ms
        self._goes_on = goes_on
        self._key = key
        self._org_key = org_key
        self._calls = calls
        self._random = random.Random(5)
        self._cursors = Cursors(
            secret="", tenant=Tenant(projects=(PROJECT,), key_hash=hash_key(key)), filters=(), from_ms=None, to_ms=None
        )

    def call(self) -> Call:
        """Return any call: of a busy user more often than of an idle one."""
        return self._random.choice(self._calls)

    def days(self, count: float) -> tuple[int, int]:
        """Return the range of so many days before now; its ends lie on no minute."""
        to_ms = self.now_ms - self._random.randrange(_MINUTE_MS)
        return to_ms - int(count * _DAY_MS), to_ms

    def search(self, *filters: tuple[str, str, str], limit: int = 20, **more: Any) -> bytes:
        listed = [{"field": field, "operator": operator, "value": value} for field, operator, value in filters]
        return self._post(LOGS, {"limit": limit, "filters": listed, **more})

    def newest(self, *filters: tuple[str, str, str]) -> bytes:
        """Return a search for the newest calls, as it was asked when the history ended."""
        return self.search(*filters, **({} if self._goes_on else {"time_range": {"from": 0, "to": self.now_ms + 1}}))

    def page_far_back(self) -> bytes:
        place = Place(timestamp_ms=self.call().timestamp_ms, id="log_")
        return self._post(LOGS, {"limit": 100, "cursor": self._cursors.write(place)})

    def detail(self) -> bytes:
        return self._get(f"{LOGS}/{quote(self.call().id, safe='')}", {})

    def usage(self, days: float, **more: Any) -> bytes:
        from_ms, to_ms = self.days(days)
        return self._get("/v1/usage", {"from": from_ms, "to": to_ms, **more})

    def failures(self, days: float) -> bytes:
        from_ms, to_ms = self.days(days)
        return self._get("/v1/failures", {"from": from_ms, "to": to_ms})

    def project_usage(self, path: str, days: float, **more: Any) -> bytes:
        from_ms, to_ms = self.days(days)
        return self._post(f"{PROJECT_USAGE}/{path}", {"from": from_ms, "to": to_ms, **more})

    def org_usage(self, path: str, days: float) -> bytes:
        from_ms, to_ms = self.days(days)
        return self._post(f"{ORG_USAGE}/{path}", {"from": from_ms, "to": to_ms}, org=True)

    def _post(self, path: str, body: Mapping[str, Any], *, org: bool = False) -> bytes:
        sent = json.dumps(body).encode()
        return f"POST {path} HTTP/1.1\r\n{self._head(org=org)}content-length: {len(sent)}\r\n\r\n".encode() + sent

    def _get(self, path: str, parameters: Mapping[str, Any]) -> bytes:
        return f"GET {path}?{urlencode(parameters)} HTTP/1.1\r\n{self._head(org=False)}\r\n".encode()

    def _head(self, *, org: bool) -> str:
        key = f"x-org-api-key: {self._org_key}" if org else f"x-api-key: {self._key}"
        return f"host: bench\r\n{key}\r\ncontent-type: application/json\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One row of the table.

    Args:
        make: returns one whole HTTP request, with other values each time.
        raw: SQL over `tool_executions` that gives the same figures, from a range of ms; None where the answer is read from raw
            rows anyway.
        goal_ms: p95.
        weight: how often it comes in the mixed load; 0: not at all.
    """

    name: str
    make: Callable[[Asker], bytes]
    raw: tuple[float, str] | None = None
    goal_ms: int | None = None
    weight: int = 0


_COUNTS: Final = "count(), countIf(status = 'failed')"
_PERCENTILES: Final = "quantilesExact(0.5, 0.95, 0.99)(duration_ms)"
_DISTINCT: Final = "uniqExactIf(user_id, user_id != ''), uniqExactIf(session_id, session_id != '')"
_ALL: Final = f"{_COUNTS}, {_PERCENTILES}, {_DISTINCT}"
# A session belongs to the range that holds its first call.
_SESSIONS: Final = (
    "SELECT countIf(first >= {from}) FROM (SELECT session_id, min(timestamp) AS first FROM tool_executions"
    " WHERE project_id IN ({projects}) AND session_id != '' AND timestamp < {to} GROUP BY project_id, session_id)"
)
_ROWS: Final = "FROM tool_executions WHERE project_id IN ({projects}) AND timestamp >= {from} AND timestamp < {to}"

QUESTIONS: Final = (
    Question(name="recent failures", goal_ms=30, weight=30, make=lambda ask: ask.newest(("status", "==", "failed"))),
    Question(name="one log by id", goal_ms=15, weight=25, make=lambda ask: ask.detail()),
    Question(
        name="a user's failures",
        goal_ms=30,
        weight=15,
        make=lambda ask: ask.search(("status", "==", "failed"), ("user_id", "==", ask.call().user_id)),
    ),
    Question(name="newest logs", weight=10, make=lambda ask: ask.newest()),
    Question(name="by session", weight=5, make=lambda ask: ask.search(("session_id", "==", ask.call().session_id))),
    Question(name="by request id", weight=5, make=lambda ask: ask.search(("request_id", "==", ask.call().request_id))),
    Question(
        name="tool_slug contains",
        make=lambda ask: ask.search(("tool_slug", "contains", "_update_"), ("tool_slug", "contains", "figma")),
    ),
    Question(name="user_id contains", make=lambda ask: ask.search(("user_id", "contains", ask.call().user_id[3:]))),
    Question(name="100 rows far back", weight=2, make=lambda ask: ask.page_far_back()),
    Question(name="nothing matches, by session", make=lambda ask: ask.search(("session_id", "==", "sess_nowhere"))),
    Question(name="nothing matches, contains", make=lambda ask: ask.search(("user_id", "contains", "nobody@nowhere"))),
    Question(
        name="summary, 7 days",
        goal_ms=50,
        weight=4,
        make=lambda ask: ask.project_usage("summary", 7),
        raw=(7, f"SELECT count(), ({_SESSIONS}) {_ROWS}"),
    ),
    Question(
        name="tool calls by tool, 7 days",
        goal_ms=50,
        weight=4,
        make=lambda ask: ask.project_usage("tool_calls", 7, group_by="tool_slug"),
        raw=(7, f"SELECT tool_slug, count() {_ROWS} GROUP BY 1"),
    ),
    Question(
        name="error rate and percentiles by tool, 7 days",
        goal_ms=50,
        make=lambda ask: ask.usage(7, group_by="tool_slug", metrics="calls,error_rate,p50_ms,p95_ms,p99_ms"),
        raw=(7, f"SELECT tool_slug, {_COUNTS}, {_PERCENTILES} {_ROWS} GROUP BY 1"),
    ),
    Question(
        name="active users, 30 days",
        goal_ms=100,
        make=lambda ask: ask.usage(30, metrics="active_users"),
        raw=(30, f"SELECT uniqExactIf(user_id, user_id != '') {_ROWS}"),
    ),
    Question(
        name="/v1/usage by tool, 7 days",
        make=lambda ask: ask.usage(7, group_by="tool_slug"),
        raw=(7, f"SELECT tool_slug, {_ALL} {_ROWS} GROUP BY 1"),
    ),
    Question(
        name="/v1/usage, 30 days",
        make=lambda ask: ask.usage(30),
        raw=(30, f"SELECT {_ALL}, ({_SESSIONS}) {_ROWS}"),
    ),
    Question(
        name="/v1/usage by minute, 24 h",
        make=lambda ask: ask.usage(1, interval="minute", limit=2000),
        raw=(1, f"SELECT toStartOfMinute(timestamp), {_ALL} {_ROWS} GROUP BY 1"),
    ),
    Question(
        name="/v1/usage by day in Berlin, 30 days",
        make=lambda ask: ask.usage(30, interval="day", timezone="Europe/Berlin"),
        raw=(30, f"SELECT toStartOfDay(timestamp, 'Europe/Berlin'), {_ALL} {_ROWS} GROUP BY 1"),
    ),
    Question(
        name="/v1/usage by user, top 100, 30 days",
        make=lambda ask: ask.usage(30, group_by="user_id", limit=100),
        raw=(30, f"SELECT user_id, {_ALL} {_ROWS} GROUP BY 1 ORDER BY 2 DESC LIMIT 100"),
    ),
    Question(
        name="/v1/usage of a user, 30 days",
        make=lambda ask: ask.usage(30, user_id=ask.call().user_id),
    ),
    Question(
        name="/v1/usage, 90 minutes with ragged ends",
        make=lambda ask: ask.usage(1 / 16),
        raw=(1 / 16, f"SELECT {_ALL} {_ROWS}"),
    ),
    Question(
        name="summary of the organisation, 7 days",
        make=lambda ask: ask.org_usage("summary", 7),
        raw=(7, f"SELECT count(), ({_SESSIONS}) {_ROWS}"),
    ),
    Question(name="/v1/failures, 7 days", make=lambda ask: ask.failures(7)),
)


def raw_sql(question: Question, *, now_ms: int) -> str | None:
    """Return the SQL over raw rows, for the range that ends now."""
    if question.raw is None:
        return None
    days, text = question.raw
    projects = f"'{PROJECT}'" if "organisation" not in question.name else "'acme', 'birch', 'cedar', 'delta'"
    for name, value in (
        ("{from}", f"fromUnixTimestamp64Milli({now_ms - int(days * _DAY_MS)})"),
        ("{to}", f"fromUnixTimestamp64Milli({now_ms})"),
        ("{projects}", projects),
    ):
        text = text.replace(name, value)
    return text


def sample(store: Client, rows: int) -> list[Call]:
    """Pick calls from all of the history."""
    found = store.query(
        "SELECT id, toUnixTimestamp64Milli(timestamp), user_id, session_id, request_id FROM tool_executions"
        f" WHERE project_id = '{PROJECT}' AND session_id != '' AND cityHash64(id) % {max(1, rows // _SAMPLES // 2)} = 0"
    )
    return [
        Call(id=str(row[0]), timestamp_ms=int(row[1]), user_id=str(row[2]), session_id=str(row[3]), request_id=str(row[4]))
        for row in found.result_rows
    ]
