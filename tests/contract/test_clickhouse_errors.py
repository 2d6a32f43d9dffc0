"""ClickHouse over HTTP: errors, limits, access, and queries that are stopped."""

from __future__ import annotations

import base64
import re
import threading
import time
import uuid
from collections.abc import Callable

import pytest

from tests.contract.clickhouse_http import Answer, ClickHouse

pytestmark = pytest.mark.real

FOREVER = "SELECT count() FROM numbers(100000000000000) WHERE sipHash64(number) = 1"


def eventually(condition: Callable[[], bool], seconds: float = 60) -> bool:
    """Whether `condition` comes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.02)
    return True


def is_running(clickhouse: ClickHouse, query_id: str) -> bool:
    return clickhouse.value(f"SELECT count() FROM system.processes WHERE query_id = '{query_id}'") == "1"


class Running:
    """A query in a thread of its own."""

    def __init__(self, clickhouse: ClickHouse, query: str, **members: str | int) -> None:
        self.query_id = f"running-{uuid.uuid4().hex}"
        self.answer: Answer | None = None
        self._thread = threading.Thread(target=self._run, args=(clickhouse, query, members))
        self._thread.start()
        assert eventually(lambda: is_running(clickhouse, self.query_id))

    def _run(self, clickhouse: ClickHouse, query: str, members: dict[str, str | int]) -> None:
        self.answer = clickhouse.ask(query, query_id=self.query_id, **members)

    def ended(self) -> Answer:
        self._thread.join(30)
        assert self.answer is not None
        return self.answer


@pytest.mark.parametrize(
    ("query", "status", "code", "name"),
    [
        ("SELEC 1", 400, 62, "SYNTAX_ERROR"),
        ("SELECT * FROM no_such_table", 404, 60, "UNKNOWN_TABLE"),
        ("SELECT no_such_column FROM system.one", 404, 47, "UNKNOWN_IDENTIFIER"),
        ("SELECT noSuchFunction(1)", 404, 46, "UNKNOWN_FUNCTION"),
        ("SELECT 1 FORMAT NoSuchFormat", 404, 73, "UNKNOWN_FORMAT"),
        ("SELECT toUInt8('x')", 400, 6, "CANNOT_PARSE_TEXT"),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
    ],
)
def test_errors_carry_status_code_and_name(clickhouse: ClickHouse, query: str, status: int, code: int, name: str) -> None:
    """An error is told by HTTP status, header and text, as a ClickHouse server tells it."""
    answer = clickhouse.ask(query)
    assert (answer.status, answer.code) == (status, code), answer.text
    assert re.fullmatch(rf"Code: {code}\. DB::Exception: .*\({name}\) \(version [\d.]+ .*\)\s*", answer.text, re.DOTALL)


def test_wait_end_of_query_gives_late_errors_their_status(clickhouse: ClickHouse) -> None:
    """With `wait_end_of_query=1` an error behind megabytes of rows is still a clean error."""
    query = "SELECT number, throwIf(number = 3000000) FROM numbers(4000000)"
    answer = clickhouse.ask(query, wait_end_of_query=1)
    assert (answer.status, answer.code) == (500, 395)
    assert answer.text.startswith("Code: 395.")


@pytest.mark.parametrize("output_format", ["TSV", "JSONEachRow", "Native"])
def test_an_error_behind_rows_is_marked_in_the_body(clickhouse: ClickHouse, output_format: str) -> None:
    """Rows that are on their way end in a block between `__exception__` markers that carry the tag of the head."""
    answer = clickhouse.ask(f"SELECT number, throwIf(number = 3000000) FROM numbers(4000000) FORMAT {output_format}")
    assert answer.status == 200
    tag = answer.headers["x-clickhouse-exception-tag"].encode()
    block = re.search(rb"__exception__\r\n%b\r\n(.*?)(\d+) %b\r\n__exception__\r\n\Z" % (tag, tag), answer.body, re.DOTALL)
    assert block is not None
    assert block[1].startswith(b"Code: 395.")
    assert len(block[1]) == int(block[2])


def test_slow_rows_do_not_hide_an_error(clickhouse: ClickHouse) -> None:
    """A query that gives rows slowly sends them before it fails."""
    query = "SELECT sleepEachRow(0.02), throwIf(number = 30) FROM numbers(100) SETTINGS max_block_size = 1 FORMAT Native"
    answer = clickhouse.ask(query)
    assert answer.status == 200
    assert b"__exception__" in answer.body


def test_max_execution_time(clickhouse: ClickHouse) -> None:
    """A query that takes too long is stopped with code 159."""
    started = time.monotonic()
    answer = clickhouse.ask(FOREVER, max_execution_time=1)
    assert (answer.status, answer.code) == (408, 159)
    assert time.monotonic() - started < 15


def test_max_memory_usage(clickhouse: ClickHouse) -> None:
    """A query that takes too much memory is stopped with code 241, and the server goes on."""
    assert clickhouse.ask("SELECT groupArray(number) FROM numbers(100000000)", max_memory_usage=20_000_000).code == 241
    assert clickhouse.value("SELECT 1") == "1"


def test_max_result_rows(clickhouse: ClickHouse) -> None:
    """Limits on results hold."""
    assert clickhouse.ask("SELECT number FROM numbers(100)", max_result_rows=10).code == 396


def test_running_queries_are_shown_with_their_ids(clickhouse: ClickHouse) -> None:
    """`system.processes` carries the ids that clients gave."""
    running = Running(clickhouse, FOREVER)
    query = f"SELECT p.query_id, p.user, p.query FROM system.processes AS p WHERE p.query_id = '{running.query_id}'"
    assert clickhouse.rows(query) == [[running.query_id, clickhouse.user, FOREVER]]
    clickhouse.done(f"KILL QUERY WHERE query_id = '{running.query_id}'")
    running.ended()


@pytest.mark.parametrize("mode", ["SYNC", "ASYNC", ""])
@pytest.mark.parametrize("output_format", ["Native", "TSV"])
def test_kill_query(clickhouse: ClickHouse, mode: str, output_format: str) -> None:
    """KILL QUERY stops the query with that id, and no other; its client gets code 394."""
    victim = Running(clickhouse, f"{FOREVER} FORMAT {output_format}")
    other = Running(clickhouse, FOREVER)
    killed = clickhouse.rows(f"KILL QUERY WHERE query_id = '{victim.query_id}' {mode}")
    assert [row[1] for row in killed] == [victim.query_id]
    assert victim.ended().code == 394
    assert is_running(clickhouse, other.query_id)
    clickhouse.done(f"KILL QUERY WHERE query_id = '{other.query_id}' SYNC FORMAT JSON")
    assert other.ended().code == 394


def test_kill_query_that_meets_nothing(clickhouse: ClickHouse) -> None:
    """Nothing to kill is not an error."""
    assert clickhouse.rows("KILL QUERY WHERE query_id = 'no-such-query' SYNC") == []


@pytest.mark.parametrize("output_format", ["Native", "TSV"])
def test_a_dropped_connection_stops_its_query(clickhouse: ClickHouse, output_format: str) -> None:
    """A query whose client is gone does not go on for nobody."""
    query_id = f"dropped-{uuid.uuid4().hex}"
    with clickhouse.connection() as connection:
        headers = {"X-ClickHouse-User": clickhouse.user, "X-ClickHouse-Key": clickhouse.password}
        path = f"/?query_id={query_id}&cancel_http_readonly_queries_on_client_close=1"
        connection.request("POST", path, f"{FOREVER} FORMAT {output_format}", headers)
        assert eventually(lambda: is_running(clickhouse, query_id))
    assert eventually(lambda: not is_running(clickhouse, query_id))


def test_a_client_that_leaves_a_large_result_stops_its_query(clickhouse: ClickHouse) -> None:
    """A client may read the head of a large result and go."""
    query_id = f"left-{uuid.uuid4().hex}"
    with clickhouse.connection() as connection:
        headers = {"X-ClickHouse-User": clickhouse.user, "X-ClickHouse-Key": clickhouse.password}
        path = f"/?query_id={query_id}&cancel_http_readonly_queries_on_client_close=1"
        connection.request("POST", path, "SELECT number FROM numbers(100000000000) FORMAT TSV", headers)
        assert len(connection.getresponse().read(1000)) == 1000
    assert eventually(lambda: not is_running(clickhouse, query_id))


def test_an_id_that_runs_already_is_refused(clickhouse: ClickHouse) -> None:
    """Two queries cannot run under one id."""
    running = Running(clickhouse, FOREVER)
    assert clickhouse.ask("SELECT 1", query_id=running.query_id).code == 216
    clickhouse.done(f"KILL QUERY WHERE query_id = '{running.query_id}'")
    running.ended()
    assert clickhouse.ask("SELECT 1", query_id=running.query_id).status == 200


def test_get_is_read_only(clickhouse: ClickHouse, database: str) -> None:
    """GET changes nothing: not tables, not rows."""
    clickhouse.done(f"CREATE TABLE {database}.t (a UInt8) ENGINE = Memory")
    for query in (
        f"INSERT INTO {database}.t VALUES (1)",
        f"DROP TABLE {database}.t",
        f"CREATE TABLE {database}.u (a Int8) ENGINE = Memory",
    ):
        answer = clickhouse.get(query)
        assert (answer.status, answer.code) == (500, 164), query
    assert clickhouse.value(f"SELECT count() FROM {database}.t") == "0"
    assert clickhouse.get(f"SELECT count() FROM {database}.t", max_threads=1).body == b"0\n"


def test_readonly_1_refuses_writes_and_settings(clickhouse: ClickHouse, database: str) -> None:
    """`readonly=1` allows reading only."""
    assert clickhouse.ask(f"CREATE TABLE {database}.t (a Int8) ENGINE = Memory", readonly=1).code == 164
    assert clickhouse.ask("SELECT 1 SETTINGS max_threads = 1", readonly=1).code == 164
    assert clickhouse.value("SELECT 1", readonly=1) == "1"


def test_readonly_2_refuses_writes_and_allows_settings(clickhouse: ClickHouse, database: str) -> None:
    """`readonly=2` allows settings, but not to lift itself."""
    assert clickhouse.ask(f"CREATE TABLE {database}.t (a Int8) ENGINE = Memory", readonly=2).code == 164
    assert clickhouse.value("SELECT 1 SETTINGS max_threads = 1", readonly=2) == "1"
    assert clickhouse.ask("SELECT 1 SETTINGS readonly = 0", readonly=2).code == 164


def test_the_three_ways_to_authenticate(clickhouse: ClickHouse) -> None:
    """Basic, headers of ClickHouse's own, and URL members all work."""
    basic = base64.b64encode(f"{clickhouse.user}:{clickhouse.password}".encode()).decode()
    own = {"X-ClickHouse-User": clickhouse.user, "X-ClickHouse-Key": clickhouse.password}
    url = f"/?user={clickhouse.user}&password={clickhouse.password}"
    for path, headers in (("/", {"Authorization": f"Basic {basic}"}), ("/", own), (url, {})):
        assert clickhouse.request("POST", path, b"SELECT 1", headers, authenticated=False).body == b"1\n"


@pytest.mark.parametrize("user", ["default", "nobody", ""])
def test_a_wrong_password_is_refused(clickhouse: ClickHouse, user: str) -> None:
    """Nobody gets in with a wrong name or password, and the answer does not say which it was."""
    basic = base64.b64encode(f"{user}:wrong-password".encode()).decode()
    ways: list[tuple[str, dict[str, str]]] = [
        ("/", {"Authorization": f"Basic {basic}"}),
        ("/", {"X-ClickHouse-User": user, "X-ClickHouse-Key": "wrong-password"}),
        (f"/?user={user}&password=wrong-password", {}),
    ]
    for path, headers in ways:
        answer = clickhouse.request("POST", path, b"SELECT 1", headers, authenticated=False)
        assert answer.status in (401, 403)
        assert answer.code == 516


def test_a_role_nobody_has_is_refused(clickhouse: ClickHouse) -> None:
    """A role that cannot be honoured is an error, never ignored."""
    answer = clickhouse.ask("SELECT 1", role="no_such_role")
    assert answer.status >= 400
    assert answer.code == 511
