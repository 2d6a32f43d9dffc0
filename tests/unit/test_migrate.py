"""The numbered SQL files: how they are read, split, told apart from what is applied, and rendered for a cluster."""

import re
from pathlib import Path

import pytest

from deploy.cluster_sql import render
from deploy.migrate import Migration, pending, read
from deploy.sql_text import statements
from ingest.contract.errors import ConfigurationError
from ingest.contract.tables import SCHEMA_VERSION


def _one(version: int, text: str = "CREATE TABLE IF NOT EXISTS t (a Int8) ENGINE = MergeTree ORDER BY a") -> Migration:
    return Migration(version=version, name=f"n{version}", statements=tuple(statements(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1", "SELECT 2"]),
        ("SELECT 1;\n\n;  ;", ["SELECT 1"]),
        ("SELECT ';' -- no; end\n, 2", ["SELECT ';' , 2"]),
        (r"SELECT 'it\'s; ''quoted'';'; SELECT 2", [r"SELECT 'it\'s; ''quoted'';'", "SELECT 2"]),
        ('SELECT `a;b`, "c;d"', ['SELECT `a;b`, "c;d"']),
        ("SELECT/* ; */1 # ; \n+ 1", ["SELECT 1 + 1"]),
        ("SELECT $x$ ; -- '$x$; SELECT 2", ["SELECT $x$ ; -- '$x$", "SELECT 2"]),
        ("SELECT 'a  b\n c'", ["SELECT 'a  b\n c'"]),
        ("-- only a comment\n", []),
    ],
)
def test_a_file_is_split_at_semicolons_that_are_no_part_of_a_quote_or_comment(text: str, expected: list[str]) -> None:
    assert statements(text) == expected


def test_comments_and_layout_do_not_change_a_checksum_but_a_word_does() -> None:
    plain = _one(1, "CREATE TABLE IF NOT EXISTS t (a Int8)")
    assert _one(1, "-- why\nCREATE TABLE  IF NOT EXISTS t\n  (a Int8);").checksum == plain.checksum
    assert _one(1, "CREATE TABLE IF NOT EXISTS t (a Int16)").checksum != plain.checksum


def test_only_what_is_not_recorded_is_pending_in_order() -> None:
    files = [_one(1), _one(2), _one(3)]
    assert pending(files, [(2, files[1].checksum), (9, "of a newer program")]) == [files[0], files[2]]
    assert pending(files, [(each.version, each.checksum) for each in files] * 2) == []


def test_a_file_that_was_changed_after_it_was_applied_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match=r"0002_n2\.sql was changed"):
        pending([_one(1), _one(2)], [(2, "another")])


def test_a_file_that_says_what_it_was_before_counts_as_applied_where_it_was_that(tmp_path: Path) -> None:
    """A change for tables that are yet to be made asks nothing of those that were."""
    before = _one(1).checksum
    (tmp_path / "0001_n1.sql").write_text(f"-- former checksum: {before}\nCREATE TABLE IF NOT EXISTS t (a Int16)")
    (changed,) = read(tmp_path)
    assert pending([changed], [(1, before)]) == pending([changed], [(1, changed.checksum)]) == []
    assert pending([changed], []) == [changed]
    with pytest.raises(ConfigurationError, match="was changed"):
        pending([changed], [(1, "another")])


@pytest.mark.parametrize("names", [["1_a.sql"], ["0001_a.sql", "0001_b.sql"], ["0001-a.sql"]])
def test_a_misnamed_or_doubled_file_is_refused(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("SELECT 1")
    with pytest.raises(ConfigurationError):
        read(tmp_path)


def test_our_files_count_up_without_gaps_and_every_statement_can_be_repeated() -> None:
    files = read()
    assert [each.version for each in files] == list(range(1, len(files) + 1))
    for statement in (text for each in files for text in each.statements):
        # What fills tables either has a token that refuses it the second time, or says what may be said twice.
        said_once = r"\binsert_deduplication_token\b|'(user|session)_day'|'totals'"
        assert re.search(rf"\bIF (NOT )?EXISTS\b|\bMODIFY\b|\bMATERIALIZE (INDEX|COLUMN)\b|{said_once}", statement), statement


def test_services_know_the_newest_of_our_files() -> None:
    """A service that answers from older tables than it was made for would answer wrongly, so the number must keep up."""
    assert read()[-1].version == SCHEMA_VERSION


def test_every_statement_of_ours_has_a_form_on_a_cluster() -> None:
    for statement in (text for each in read() for text in each.statements):
        rendered = render(statement, "main")
        assert all("ON CLUSTER 'main'" in text for text in rendered) or (rendered == [statement] and "INSERT" in statement)


def test_a_table_becomes_a_replicated_and_a_distributed_one() -> None:
    statement = (
        "CREATE TABLE IF NOT EXISTS rows ( kafka_partition UInt32, a SimpleAggregateFunction(sum, UInt64) ) "
        "ENGINE = AggregatingMergeTree PARTITION BY a ORDER BY (a) SETTINGS non_replicated_deduplication_window = 7, b = 'c'"
    )
    assert render(statement, "main") == [
        "CREATE TABLE IF NOT EXISTS rows_local ON CLUSTER 'main' "
        "( kafka_partition UInt32, a SimpleAggregateFunction(sum, UInt64) ) "
        "ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}') "
        "PARTITION BY a ORDER BY (a) "
        "SETTINGS replicated_deduplication_window = 7, replicated_deduplication_window_seconds = 604800, b = 'c'",
        "CREATE TABLE IF NOT EXISTS rows ON CLUSTER 'main' AS rows_local "
        "ENGINE = Distributed('main', currentDatabase(), rows_local, kafka_partition)",
    ]


def test_a_view_is_made_on_every_server_and_reads_the_distributed_table() -> None:
    (view,) = [text for each in read() if each.name == "usage_corrections" for text in each.statements if " VIEW " in text]
    (rendered,) = render(view, "main")
    assert rendered.startswith("CREATE VIEW IF NOT EXISTS usage_corrections ON CLUSTER 'main' AS SELECT project_id, ")
    assert rendered.endswith(" FROM usage_windows WHERE kind = 'correction'")


def test_an_engine_keeps_its_arguments_on_a_cluster() -> None:
    local, _ = render("CREATE TABLE IF NOT EXISTS p (v UInt8) ENGINE = ReplacingMergeTree(v) ORDER BY v", "main")
    assert "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', v) ORDER BY v" in local


def test_a_column_change_goes_to_both_tables_and_a_storage_change_to_the_local_one() -> None:
    assert render("ALTER TABLE t ADD COLUMN IF NOT EXISTS c Int8", "m") == [
        "ALTER TABLE t_local ON CLUSTER 'm' ADD COLUMN IF NOT EXISTS c Int8",
        "ALTER TABLE t ON CLUSTER 'm' ADD COLUMN IF NOT EXISTS c Int8",
    ]
    assert render("ALTER TABLE t ADD INDEX IF NOT EXISTS i c TYPE minmax", "m") == [
        "ALTER TABLE t_local ON CLUSTER 'm' ADD INDEX IF NOT EXISTS i c TYPE minmax"
    ]


def test_a_statement_without_a_form_on_a_cluster_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no form for a cluster"):
        render("OPTIMIZE TABLE t FINAL", "main")
