"""Topics and tables on the real servers: made, made again, made by two processes at once."""

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import migrate
from deploy import topics as topic_admin
from ingest.contract import store
from ingest.contract.errors import BrokerUnavailable, ConfigurationError, StoreUnavailable
from ingest.contract.tables import OWN, OWN_FAILED_USER, OWN_ID, PURGE_TOTALS, PURGES, own_value
from ingest.contract.topics import CONTROL, TOOL_EXECUTIONS, Topic, topics
from query_api.failures import groups as failures
from query_api.filters import Filter
from query_api.logs import SHOWN, Search, detail_statement, search_statement
from query_api.tenant import Tenant
from query_api.usage import question as usage
from query_api.usage.sql import statement as usage_statement
from tests.support.parts import popen
from tests.support.process import eventually

pytestmark = pytest.mark.real

_OWN_PARTS = "active AND database = currentDatabase() AND table = 'tool_executions'"


@pytest.fixture
def database_url(clickhouse_url: str) -> Iterator[str]:
    """The address of a database that is not there yet."""
    name = f"migrations_{uuid.uuid4().hex[:12]}"
    yield f"{clickhouse_url.rstrip('/')}/{name}"
    client = store.client(clickhouse_url)
    client.command(f"DROP DATABASE IF EXISTS {name}")
    client.close()


def _tables(url: str) -> set[str]:
    client = store.client(url)
    try:
        return {str(row[0]) for row in client.query("SHOW TABLES").result_rows}
    finally:
        client.close()


def test_migrations_make_the_database_once_and_a_dry_run_makes_nothing(database_url: str) -> None:
    everything = [each.label for each in migrate.read()]
    assert [each.label for each in migrate.apply(database_url, dry_run=True)] == everything
    assert [each.label for each in migrate.apply(database_url)] == everything
    assert _tables(database_url) >= {"tool_executions", "usage_windows", "dead_letters", "progress", "schema_migrations"}
    assert migrate.apply(database_url, dry_run=True) == migrate.apply(database_url) == []


def test_two_processes_may_migrate_at_once(database_url: str) -> None:
    both = [popen(["migrate", "--clickhouse", database_url]) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert migrate.apply(database_url) == []


def test_a_dry_run_of_the_command_exits_1_while_something_is_missing(database_url: str) -> None:
    def dry_run() -> "subprocess.CompletedProcess[str]":
        process = popen(["migrate", "--dry-run", "--clickhouse", database_url])
        said, _ = process.communicate(timeout=120)
        return subprocess.CompletedProcess([], process.returncode, said)

    assert dry_run().returncode == 1
    migrate.apply(database_url)
    assert dry_run().returncode == 0


def test_a_file_that_was_changed_after_it_was_applied_stops_the_next_run(database_url: str, tmp_path) -> None:
    file = tmp_path / "0001_one.sql"
    file.write_text("CREATE TABLE IF NOT EXISTS one (a Int8) ENGINE = MergeTree ORDER BY a")
    migrate.apply(database_url, folder=tmp_path)
    file.write_text("CREATE TABLE IF NOT EXISTS one (a Int16) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(ConfigurationError, match=r"0001_one\.sql was changed"):
        migrate.apply(database_url, folder=tmp_path)


def test_a_migration_that_broke_off_is_taken_up_again(database_url: str, tmp_path) -> None:
    file = tmp_path / "0001_two.sql"
    good = "CREATE TABLE IF NOT EXISTS one (a Int8) ENGINE = MergeTree ORDER BY a;"
    file.write_text(good + "CREATE TABLE IF NOT EXISTS two (a Nonsense) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(StoreUnavailable, match="refused"):
        migrate.apply(database_url, folder=tmp_path)
    assert "one" in _tables(database_url)
    file.write_text(good + "CREATE TABLE IF NOT EXISTS two (a Int8) ENGINE = MergeTree ORDER BY a")
    assert [each.label for each in migrate.apply(database_url, folder=tmp_path)] == ["0001_two"]
    assert _tables(database_url) >= {"one", "two"}


def test_a_setting_that_the_engine_does_not_know_is_done_without_and_every_other_refusal_stops(
    database_url: str, tmp_path: Path
) -> None:
    """An older engine is taken as it is; a value that a known setting cannot have, or an unknown column, is a fault."""
    table = "CREATE TABLE IF NOT EXISTS t ( a UInt8 ) ENGINE = MergeTree ORDER BY a;\n"
    (tmp_path / "0001_one.sql").write_text(f"{table}ALTER TABLE t MODIFY SETTING made_up_by_a_newer_engine = 1;\n")
    assert [each.label for each in migrate.apply(database_url, folder=tmp_path)] == ["0001_one"]
    for wrong in ("MODIFY SETTING merge_max_block_size = 'many'", "MODIFY COLUMN b UInt16"):
        (tmp_path / "0002_two.sql").write_text(f"ALTER TABLE t {wrong};\n")
        with pytest.raises(StoreUnavailable, match="refused"):
            migrate.apply(database_url, folder=tmp_path)


def test_rows_of_older_tables_are_in_the_new_indexes_and_columns_once_it_returns(database_url: str, tmp_path: Path) -> None:
    """Tables as they were before version 12, with rows in several parts: values are found by index, rows shown as they are."""
    for file in sorted(migrate.FOLDER.glob("*.sql"))[:11]:
        shutil.copy(file, tmp_path)
    migrate.apply(database_url, folder=tmp_path)
    client = store.client(database_url)
    for part in range(4):
        client.command(
            "INSERT INTO tool_executions"
            " (batch_month, project_id, timestamp, id, status, user_id, session_id, trace_id, request_id)"
            " SELECT 202611, 'p', fromUnixTimestamp64Milli(toInt64(number), 'UTC'), concat('log_', toString(number)),"
            " if(number % 50 = 0, 'failed', 'success'),"
            " concat('u', toString(number % 999)), concat('s', toString(number % 9999)),"
            " concat('t', toString(intDiv(number, 3))), concat('r', toString(number))"
            f" FROM numbers({part * 50_000}, 50_000)"
        )
    assert migrate.apply(database_url)[0].version == 12
    parts = (
        "SELECT countDistinct(name) FROM system.{} WHERE database = currentDatabase() AND active AND table = 'tool_executions'"
    )
    with_column = parts.format("parts_columns") + " AND column = 'shown'"
    assert client.query(with_column).result_rows == client.query(parts.format("parts")).result_rows
    others = f"SELECT count() FROM tool_executions WHERE shown != toJSONString(tuple({', '.join(SHOWN)}))"
    assert client.query(others).result_rows == [(0,)]
    given = {"user_id": "u7", "session_id": "s77", "trace_id": "t40000", "request_id": "r0"}
    values = {OWN[column]: own_value("p", value) for column, value in given.items()}
    names = {OWN[column]: f"rows_of_own_{column.removesuffix('_id')}" for column in given}
    values[OWN_FAILED_USER], names[OWN_FAILED_USER] = own_value("p", "u7"), "rows_of_own_failed_user"
    values[OWN_ID], names[OWN_ID] = own_value("p", "log_123456"), "rows_of_own_id"
    filled = client.query(
        "SELECT name FROM system.data_skipping_indices WHERE database = currentDatabase() AND table = 'tool_executions'"
        " AND data_compressed_bytes > 0"
    ).result_rows
    assert {(name,) for name in names.values()} <= set(filled)
    for column, value in values.items():
        asked = f"FROM tool_executions WHERE project_id = 'p' AND {column} = '{value}'"
        both = ({"use_skip_indexes": 0}, {"use_skip_indexes": 1, "use_query_condition_cache": 0})
        found = [client.query(f"SELECT arraySort(groupArray(id)) {asked}", settings=each).result_rows for each in both]
        assert found[0] == found[1]
        assert found[0][0][0]
        plan = "\n".join(row[0] for row in client.query(f"EXPLAIN indexes = 1 SELECT id {asked}").result_rows)
        assert f"Name: {names[column]}\n" in plan
    # Both questions about a user's failures are led by the index of these, and both about a log by that of ids.
    tenant = Tenant(projects=("p",), key_hash="")
    search = Search(
        limit=20,
        filters=[Filter(field="status", operator="==", value="failed"), Filter(field="user_id", operator="==", value="u7")],
    )
    question = failures.Question(from_ms=0, to_ms=10**9, limit=20, filters={"user_id": ("u7", "u8")})
    by_session = usage.Question(
        from_ms=0,
        to_ms=86_400_000,
        metrics=frozenset(["calls"]),
        order=usage.Order(by="calls", descending=True),
        limit=1,
        group_by=("session_id",),
    )
    of_users = replace(by_session, filters={"user_id": ("u7", "u8")})
    by_id = Search(limit=20, filters=[Filter(field="log_id", operator="==", value="log_7")])
    for name, statement in (
        ("rows_of_own_failed_user", search_statement(tenant, search)),
        ("rows_of_own_failed_user", failures.statement(tenant, question)),
        # Every call has a session, so none is read.
        ("least_session", usage_statement(tenant, by_session)),
        ("rows_of_own_user", usage_statement(tenant, of_users)),
        ("rows_of_own_id", search_statement(tenant, by_id)),
        ("rows_of_own_id", detail_statement(Tenant(projects=("p", "q"), key_hash=""), "log_7")),
    ):
        plan = "\n".join(
            row[0] for row in client.query(f"EXPLAIN indexes = 1 {statement.text}", statement.parameters()).result_rows
        )
        assert f"Name: {name}\n" in plan
    client.close()


def test_former_notes_of_purges_become_totals_once(database_url: str, tmp_path: Path) -> None:
    """Each told what it took itself; the largest now tells of all, also where a run was cut off and begins again."""
    for file in sorted(migrate.FOLDER.glob("*.sql"))[:19]:
        shutil.copy(file, tmp_path)
    migrate.apply(database_url, folder=tmp_path)
    client = store.client(database_url)
    notes = [
        ("p", "logs", 10, 7, 0),
        ("p", "logs", 10, 7, 1),
        ("p", "logs", 20, 0, 1),
        ("p", "logs", 30, 5, 0),
        ("q", "logs", 20, 3, 1),
    ]
    for note in [*notes, ("p", "payloads", 40, 9, 1)]:
        client.insert(PURGES, [note], column_names=["project_id", "kind", "until", "calls", "done"])
    totals = (
        "SELECT project_id, toUnixTimestamp(until), max(calls), max(done)"
        f" FROM {PURGES} WHERE kind = '{PURGE_TOTALS}' GROUP BY project_id, until ORDER BY ALL"
    )
    (made,) = (each for each in migrate.apply(database_url) if each.version == 20)
    for _ in range(2):
        assert client.query(totals).result_rows == [("p", 10, 7, 1), ("p", 20, 7, 1), ("p", 30, 12, 0), ("q", 20, 3, 1)]
        client.command(made.statements[0])
    client.close()


def test_a_month_that_is_over_becomes_one_part_and_one_that_goes_on_does_not(database_url: str) -> None:
    """A large and a small part, which the engine leaves side by side by itself, of a month nothing was added to for a while."""
    migrate.apply(database_url)
    client = store.client(database_url)

    def parts(month: int) -> int:
        (count,) = client.query(f"SELECT count() FROM system.parts WHERE {_OWN_PARTS} AND partition = '{month}'").result_rows[0]
        return int(count)

    for rows in (300_000, 1):
        for month in (202609, 202610):
            client.command(
                "INSERT INTO tool_executions (batch_month, project_id, timestamp, id)"
                f" SELECT {month}, 'p', fromUnixTimestamp64Milli(toInt64(number), 'UTC'), concat('log_', toString(number))"
                f" FROM numbers({rows})"
            )
    assert (parts(202609), parts(202610)) == (2, 2)
    # A day of a test's own: one of the two months is left alone for longer than that.
    client.command("ALTER TABLE tool_executions MODIFY SETTING min_age_to_force_merge_seconds = 5")

    def merged() -> bool:
        client.command(f"INSERT INTO tool_executions (batch_month, project_id, id) VALUES (202610, 'p', '{uuid.uuid4()}')")
        return parts(202609) == 1

    eventually("the month that is over is one part", merged)
    assert parts(202610) > 1
    client.close()


def test_an_address_where_nobody_listens_is_one_line() -> None:
    with pytest.raises(StoreUnavailable, match=r"no ClickHouse answers at 127\.0\.0\.1:1"):
        migrate.apply("http://127.0.0.1:1/t")
    with pytest.raises(BrokerUnavailable, match=r"no Kafka answers at 127\.0\.0\.1:1"):
        topic_admin.apply("127.0.0.1:1", topics())


def test_topics_are_made_with_their_settings_also_by_two_processes_at_once(kafka_address: str) -> None:
    both = [popen(["topics", "--kafka", kafka_address]) for _ in range(2)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert [change for change in topic_admin.apply(kafka_address, topics()) if change.kind != "differs"] == []


def test_a_dry_run_makes_no_topic(kafka_address: str) -> None:
    topic = Topic(name=f"dry-{uuid.uuid4().hex[:8]}", partitions=1)
    assert [change.kind for change in topic_admin.apply(kafka_address, [topic], dry_run=True)] == ["create"]
    assert [change.kind for change in topic_admin.apply(kafka_address, [topic], dry_run=True)] == ["create"]


def test_a_mended_setting_leaves_the_operators_own_in_force(kafka_address: str) -> None:
    name = f"mend-{uuid.uuid4().hex[:8]}"
    as_made = Topic(name=name, partitions=1, config={"message.timestamp.type": "CreateTime", "retention.ms": "12345"})
    wanted = Topic(name=name, partitions=1, config={"message.timestamp.type": "LogAppendTime", "retention.ms": "99999"})
    topic_admin.apply(kafka_address, [as_made])
    assert [change.kind for change in topic_admin.apply(kafka_address, [wanted])] == ["mend", "differs"]
    (left,) = topic_admin.apply(kafka_address, [wanted])
    assert left.kind == "differs"
    assert "retention.ms=12345" in left.text


def test_the_names_the_services_rely_on_are_among_the_topics() -> None:
    assert {TOOL_EXECUTIONS, CONTROL} <= {topic.name for topic in topics()}
