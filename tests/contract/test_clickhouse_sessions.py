"""ClickHouse over HTTP: sessions."""

from __future__ import annotations

import threading
import uuid

import pytest

from tests.contract.clickhouse_http import ClickHouse
from tests.contract.test_clickhouse_errors import FOREVER, eventually, is_running

pytestmark = pytest.mark.real


@pytest.fixture
def session() -> str:
    return f"session-{uuid.uuid4().hex}"


def test_temporary_tables_live_in_their_session(clickhouse: ClickHouse, session: str) -> None:
    """What one request makes the next one of the session finds, and nobody else."""
    clickhouse.done("CREATE TEMPORARY TABLE t (a UInt8)", session_id=session)
    clickhouse.done("INSERT INTO t VALUES (1), (2)", session_id=session)
    assert clickhouse.value("SELECT sum(a) FROM t", session_id=session) == "3"
    assert clickhouse.ask("SELECT * FROM t").code == 60
    assert clickhouse.ask("SELECT * FROM t", session_id=session + "x").code == 60


def test_set_lasts_as_long_as_the_session(clickhouse: ClickHouse, session: str) -> None:
    """SET in a session holds for its later requests only."""
    clickhouse.done("SET max_result_rows = 77, log_comment = 'it''s'", session_id=session)
    query = "SELECT getSetting('max_result_rows'), getSetting('log_comment')"
    assert clickhouse.rows(query, session_id=session) == [["77", "it\\'s"]]
    assert clickhouse.rows(query) == [["0", ""]]


@pytest.mark.parametrize(
    "query", ["SELECT getSetting('max_result_rows')", "SELECT getSetting('max_result_rows') SETTINGS max_threads = 1"]
)
def test_settings_of_one_request_do_not_stay_in_the_session(clickhouse: ClickHouse, session: str, query: str) -> None:
    """A setting in the URL holds for one request; then what the session had SET is in force again."""
    assert clickhouse.value(query, session_id=session, max_result_rows=5) == "5"
    assert clickhouse.value(query, session_id=session) == "0"
    clickhouse.done("SET max_result_rows = 77", session_id=session)
    assert clickhouse.value(query, session_id=session, max_result_rows=5) == "5"
    assert clickhouse.value(query, session_id=session) == "77"


def test_settings_of_a_failed_request_do_not_stay_either(clickhouse: ClickHouse, session: str) -> None:
    """An error does not leave settings behind."""
    assert clickhouse.ask("DROP TABLE no_such_table", session_id=session, max_result_rows=5).code == 60
    assert clickhouse.value("SELECT getSetting('max_result_rows')", session_id=session) == "0"


def test_use_lasts_and_the_database_member_does_not(clickhouse: ClickHouse, session: str, database: str) -> None:
    """USE moves the session; `database` moves one request."""
    query = "SELECT currentDatabase()"
    assert clickhouse.value(query, session_id=session, database=database) == database
    assert clickhouse.value(query, session_id=session) == "default"
    clickhouse.done(f"USE {database}", session_id=session)
    assert clickhouse.value(query, session_id=session) == database
    assert clickhouse.value(query, session_id=session, database="system") == "system"
    assert clickhouse.value(query, session_id=session) == database


def test_session_check_wants_an_existing_session(clickhouse: ClickHouse, session: str) -> None:
    """`session_check=1` finds out whether the session is still there."""
    assert clickhouse.ask("SELECT 1", session_id=session, session_check=1).code == 372
    clickhouse.done("SELECT 1", session_id=session)
    assert clickhouse.ask("SELECT 1", session_id=session, session_check=1).status == 200


def test_a_session_ends_when_idle_for_its_timeout(clickhouse: ClickHouse, session: str) -> None:
    """`session_timeout` is in seconds; with it temporary tables are gone."""
    clickhouse.done("CREATE TEMPORARY TABLE t (a UInt8)", session_id=session, session_timeout=1)
    assert eventually(lambda: clickhouse.ask("SELECT 1", session_id=session + "x").status == 200, seconds=5)
    probe = {"session_id": session, "session_check": 1, "session_timeout": 1}

    def gone() -> bool:
        threading.Event().wait(1.5)  # every request to it would keep it alive
        return clickhouse.ask("SELECT 1", **probe).code == 372

    assert eventually(gone)


def test_close_session_ends_it(clickhouse: ClickHouse, session: str) -> None:
    """`close_session=1` ends the session with the request."""
    clickhouse.done("CREATE TEMPORARY TABLE t (a UInt8)", session_id=session)
    clickhouse.done("SELECT 1", session_id=session, close_session=1)
    assert clickhouse.ask("SELECT 1", session_id=session, session_check=1).code == 372


@pytest.mark.parametrize("timeout", ["3601", "soon", "-1"])
def test_an_impossible_timeout_is_refused(clickhouse: ClickHouse, session: str, timeout: str) -> None:
    """Timeouts beyond an hour, or that are no number, are errors."""
    assert clickhouse.ask("SELECT 1", session_id=session, session_timeout=timeout).code == 374


def test_a_session_runs_one_query_at_a_time(clickhouse: ClickHouse, session: str) -> None:
    """A second query in a busy session is told so; it does not wait."""
    query_id = f"busy-{session}"
    thread = threading.Thread(target=lambda: clickhouse.ask(FOREVER, session_id=session, query_id=query_id))
    thread.start()
    assert eventually(lambda: is_running(clickhouse, query_id))
    answer = clickhouse.ask("SELECT 1", session_id=session)
    clickhouse.done(f"KILL QUERY WHERE query_id = '{query_id}' SYNC")
    thread.join()
    assert answer.code == 373
    assert eventually(lambda: clickhouse.ask("SELECT 1", session_id=session).status == 200)


def test_get_in_a_session_is_read_only_and_leaves_the_session_writable(
    clickhouse: ClickHouse, session: str, database: str
) -> None:
    """GET may not write in a session, and POST may after it."""
    assert clickhouse.get("SELECT 1", session_id=session).body == b"1\n"
    assert clickhouse.get(f"CREATE TABLE {database}.t (a Int8) ENGINE = Memory", session_id=session).code == 164
    assert clickhouse.get(f"INSERT INTO {database}.t VALUES (1)", session_id=session).code == 164
    clickhouse.done(f"CREATE TABLE {database}.t (a Int8) ENGINE = Memory", session_id=session)


@pytest.mark.parametrize("output_format", ["Native", "TSV"])
def test_a_session_is_free_as_soon_as_its_answer_is_there(clickhouse: ClickHouse, session: str, output_format: str) -> None:
    """A client may send the next query of a session the moment it has read the last answer."""
    with clickhouse.connection() as first, clickhouse.connection() as second:
        headers = {"X-ClickHouse-User": clickhouse.user, "X-ClickHouse-Key": clickhouse.password}
        for number in range(200):
            connection = (first, second)[number % 2]
            connection.request("POST", f"/?session_id={session}&default_format={output_format}", "SELECT 1", headers)
            response = connection.getresponse()
            assert response.read(), number
            assert response.status == 200, number
