"""ClickHouse over HTTP: how a query is asked and how its rows come back."""

from __future__ import annotations

import gzip
import json
import zlib
from urllib.parse import urlencode

import lz4.frame
import pytest
import zstandard

from tests.contract.clickhouse_http import ClickHouse, form

pytestmark = pytest.mark.real


@pytest.mark.parametrize("path", ["/", "/ping", "/replicas_status"])
def test_health_addresses_answer_ok(clickhouse: ClickHouse, path: str) -> None:
    """Health checks need no credentials and get `Ok.` and a line break."""
    answer = clickhouse.request("GET", path, authenticated=False)
    assert (answer.status, answer.body) == (200, b"Ok.\n")


def test_an_unknown_address_is_404(clickhouse: ClickHouse) -> None:
    """Only known paths are served."""
    assert clickhouse.request("GET", "/no_such_handle").status == 404


def test_a_query_in_the_url_is_answered(clickhouse: ClickHouse) -> None:
    """curl with `?query=` works, by GET."""
    assert clickhouse.get("SELECT 1").body == b"1\n"


def test_a_query_in_the_body_is_answered(clickhouse: ClickHouse) -> None:
    """curl with the query in the body works."""
    assert clickhouse.ask("SELECT 1").body == b"1\n"


def test_url_and_body_are_one_text(clickhouse: ClickHouse) -> None:
    """The body continues the query of the URL on a new line."""
    assert clickhouse.ask("SELECT 40", body="+ 2").body == b"42\n"


def test_head_gives_the_head_of_get(clickhouse: ClickHouse) -> None:
    """HEAD has the headers and no body."""
    answer = clickhouse.request("HEAD", "/?" + urlencode({"query": "SELECT 1"}))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["x-clickhouse-format"] == "TabSeparated"


def test_a_query_may_hold_bytes_that_are_not_text(clickhouse: ClickHouse) -> None:
    """Strings are bytes, in queries as in results."""
    assert clickhouse.ask(b"SELECT '\xff\xfe'").body == b"\xff\xfe\n"


def test_a_closing_semicolon_and_comments_are_fine(clickhouse: ClickHouse) -> None:
    """What people type is taken: `;` at the end, comments anywhere."""
    assert clickhouse.ask("-- one\nSELECT /* two; */ 1 # three\n;\n").body == b"1\n"
    assert clickhouse.ask("SELECT 1 -- no line break behind it").body == b"1\n"


def test_two_statements_are_refused(clickhouse: ClickHouse) -> None:
    """One request is one statement; the second one is not run."""
    answer = clickhouse.ask("SELECT 1; SELECT 2")
    assert (answer.status, answer.code) == (400, 62)
    assert "Multi-statements are not allowed" in answer.text


def test_no_statement_is_refused(clickhouse: ClickHouse) -> None:
    """An empty request is a syntax error."""
    assert clickhouse.ask("").code == 62


def test_headers_say_what_the_answer_is(clickhouse: ClickHouse) -> None:
    """Query id, format, time zone, server name, exception tag and summary are there."""
    answer = clickhouse.ask(
        "SELECT number FROM numbers(5) FORMAT JSONEachRow", query_id="the-id-of-this-query", wait_end_of_query=1
    )
    assert answer.headers["x-clickhouse-query-id"] == "the-id-of-this-query"
    assert answer.headers["x-clickhouse-format"] == "JSONEachRow"
    assert answer.headers["x-clickhouse-timezone"]
    assert answer.headers["x-clickhouse-server-display-name"]
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert answer.summary["read_rows"] == 5


def test_a_query_without_id_gets_one(clickhouse: ClickHouse) -> None:
    """Every query has an id."""
    first, second = clickhouse.ask("SELECT 1"), clickhouse.ask("SELECT 1")
    assert first.headers["x-clickhouse-query-id"] != second.headers["x-clickhouse-query-id"]


def test_a_statement_without_rows_names_no_format(clickhouse: ClickHouse, database: str) -> None:
    """Clients tell `no result` from `no rows` by the format header."""
    assert "x-clickhouse-format" not in clickhouse.done("CREATE TABLE t (a Int8) ENGINE = Memory", database=database).headers
    empty = clickhouse.done("SELECT * FROM t", database=database)
    assert (empty.body, empty.headers["x-clickhouse-format"]) == (b"", "TabSeparated")


@pytest.mark.parametrize(
    ("output_format", "expected"),
    [
        ("TabSeparated", b"0\tzero\n1\tone\n"),
        ("TSVWithNames", b"a\tb\n0\tzero\n1\tone\n"),
        ("CSV", b'0,"zero"\n1,"one"\n'),
        ("CSVWithNamesAndTypes", b'"a","b"\n"UInt8","String"\n0,"zero"\n1,"one"\n'),
        ("JSONEachRow", b'{"a":0,"b":"zero"}\n{"a":1,"b":"one"}\n'),
        ("JSONCompactEachRow", b'[0, "zero"]\n[1, "one"]\n'),
        ("Values", b"(0,'zero'),(1,'one')"),
        ("RowBinary", b"\x00\x04zero\x01\x03one"),
        ("Native", b"\x02\x02\x01a\x05UInt8\x00\x01\x01b\x06String\x04zero\x03one"),
        ("Markdown", b"| a | b |\n|-:|:-|\n| 0 | zero |\n| 1 | one |\n"),
        ("Null", b""),
    ],
)
def test_output_formats(clickhouse: ClickHouse, output_format: str, expected: bytes) -> None:
    """Formats are the engine's own, byte for byte, by FORMAT clause and by `default_format`."""
    query = "SELECT toUInt8(number) AS a, ['zero', 'one'][number + 1] AS b FROM numbers(2)"
    assert clickhouse.done(f"{query} FORMAT {output_format}").body == expected
    assert clickhouse.done(query, default_format=output_format).body == expected
    assert clickhouse.done(query, headers={"X-ClickHouse-Format": output_format}).body == expected


@pytest.mark.parametrize("output_format", ["JSON", "JSONCompact", "JSONStrings"])
def test_json_results_are_one_document(clickhouse: ClickHouse, output_format: str) -> None:
    """A result of many blocks is one document with one head and one foot."""
    answer = clickhouse.done(f"SELECT number FROM numbers(300000) FORMAT {output_format}", max_block_size=10000)
    document = json.loads(answer.body)
    assert document["rows"] == 300_000
    assert document["meta"] == [{"name": "number", "type": "UInt64"}]


def test_binary_files_come_whole(clickhouse: ClickHouse) -> None:
    """Parquet and Arrow, which have one foot for the whole, are one file each however long the result."""
    parquet = clickhouse.done("SELECT number FROM numbers(300000) FORMAT Parquet", max_block_size=10000).body
    assert (parquet[:4], parquet[-4:], parquet.count(b"PAR1")) == (b"PAR1", b"PAR1", 2)
    arrow = clickhouse.done("SELECT number FROM numbers(300000) FORMAT Arrow", max_block_size=10000).body
    assert (arrow[:6], arrow[-6:]) == (b"ARROW1", b"ARROW1")


def test_totals_stand_behind_the_rows(clickhouse: ClickHouse) -> None:
    """WITH TOTALS works through every path."""
    answer = clickhouse.done(
        "SELECT number % 2 AS k, count() AS c FROM numbers(4) GROUP BY k WITH TOTALS ORDER BY k FORMAT JSON"
    )
    assert json.loads(answer.body)["totals"] == {"k": 0, "c": 4}


def test_large_results_stream(clickhouse: ClickHouse) -> None:
    """The first rows are there long before the last ones: nothing waits for the whole."""
    with clickhouse.connection() as connection:
        query = "SELECT number, sleepEachRow(0.01) FROM numbers(1000) SETTINGS max_block_size = 1 FORMAT Native"
        connection.request("POST", "/", query, {"X-ClickHouse-User": clickhouse.user, "X-ClickHouse-Key": clickhouse.password})
        response = connection.getresponse()
        assert response.status == 200
        assert len(response.read(100)) == 100  # of a query that takes ten seconds; the connection is then dropped


@pytest.mark.parametrize("wait_end_of_query", [0, 1])
def test_a_result_of_many_megabytes_is_complete(clickhouse: ClickHouse, wait_end_of_query: int) -> None:
    """No row is lost between the engine and the socket."""
    answer = clickhouse.done("SELECT number FROM numbers(5000000)", wait_end_of_query=wait_end_of_query)
    lines = answer.body.split(b"\n")
    assert (len(lines), lines[0], lines[-2]) == (5_000_001, b"0", b"4999999")


_DECODERS = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": lambda content: zstandard.ZstdDecompressor().decompressobj().decompress(content),
    "lz4": lz4.frame.decompress,
}


@pytest.mark.parametrize("encoding", sorted(_DECODERS))
@pytest.mark.parametrize("output_format", ["Native", "TSV"])
def test_results_are_compressed_on_request(clickhouse: ClickHouse, encoding: str, output_format: str) -> None:
    """`enable_http_compression=1` and Accept-Encoding compress the result; without the setting they do not."""
    query = f"SELECT number FROM numbers(200000) FORMAT {output_format}"
    plain = clickhouse.done(query, headers={"Accept-Encoding": encoding})
    packed = clickhouse.done(query, headers={"Accept-Encoding": encoding}, enable_http_compression=1)
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == encoding
    assert _DECODERS[encoding](packed.body) == plain.body


def test_parameters_are_bound(clickhouse: ClickHouse) -> None:
    """`param_x` fills `{x:Type}`, escaped as in TabSeparated, so that no value can become SQL."""
    query = "SELECT {text:String}, {list:Array(UInt8)}, {none:Nullable(String)}, {table:Identifier}.dummy FROM system.one"
    members = {"param_text": "it's\\ta \\\\ \\n", "param_list": "[1,2]", "param_none": "\\N", "param_table": "one"}
    assert clickhouse.rows(query, **members) == [["it\\'s\\ta \\\\ \\n", "[1,2]", "\\N", "0"]]


def test_a_missing_parameter_is_an_error(clickhouse: ClickHouse) -> None:
    """A placeholder without value does not become an empty one."""
    assert clickhouse.ask("SELECT {x:UInt8}").code == 456


def test_query_and_parameters_may_come_as_form_fields(clickhouse: ClickHouse) -> None:
    """A multipart body may carry what the URL could."""
    body = form("b0undary", {"query": "SELECT {x:String} FORMAT CSV", "param_x": "a;b"}, {})
    answer = clickhouse.request("POST", "/", body, {"Content-Type": "multipart/form-data; boundary=b0undary"})
    assert (answer.status, answer.body) == (200, b'"a;b"\n')


def test_external_data_becomes_a_table_of_the_query(clickhouse: ClickHouse) -> None:
    """Files of a multipart body are temporary tables, by structure or by types, in any format."""
    body = form("b0undary", {}, {"left": b"1\tone\n2\ttwo\n", "right": b"2,zwei\n3,drei\n"})
    members = {
        "query": "SELECT left.b, right._2 FROM left JOIN right ON left.a = right._1",
        "left_structure": "a UInt8, b String",
        "right_types": "UInt8,String",
        "right_format": "CSV",
    }
    answer = clickhouse.request(
        "POST", "/?" + urlencode(members), body, {"Content-Type": "multipart/form-data; boundary=b0undary"}
    )
    assert (answer.status, answer.body) == (200, b"two\tzwei\n"), answer.text
    assert clickhouse.ask("SELECT * FROM left").code == 60


def test_settings_hold_for_one_request(clickhouse: ClickHouse) -> None:
    """A setting in the URL is in force for its request and for no other."""
    assert clickhouse.value("SELECT getSetting('max_result_rows')", max_result_rows=7) == "7"
    assert clickhouse.value("SELECT getSetting('max_result_rows')") == "0"


def test_set_without_session_leaves_nothing_behind(clickhouse: ClickHouse) -> None:
    """SET in a request of its own changes nothing for anyone."""
    clickhouse.done("SET max_result_rows = 7")
    assert {clickhouse.value("SELECT getSetting('max_result_rows')") for _ in range(20)} == {"0"}


def test_setting_values_with_odd_characters(clickhouse: ClickHouse) -> None:
    """Values are taken literally, whatever characters they hold."""
    value = "a&b='c' \\ ü ? #"
    assert clickhouse.done("SELECT getSetting('log_comment') FORMAT RawBLOB", log_comment=value).text == value


def test_an_unknown_setting_is_an_error(clickhouse: ClickHouse) -> None:
    """A misspelt setting is named, not ignored."""
    answer = clickhouse.ask("SELECT 1", no_such_setting=1)
    assert (answer.status, answer.code) == (404, 115)
    assert "no_such_setting" in answer.text


def test_the_database_member_chooses_the_database(clickhouse: ClickHouse, database: str) -> None:
    """Unqualified names resolve in the database the request names, by URL or header."""
    assert clickhouse.value("SELECT currentDatabase()", database=database) == database
    assert clickhouse.ask("SELECT currentDatabase()", headers={"X-ClickHouse-Database": database}).text.strip() == database
    assert clickhouse.value("SELECT currentDatabase()") == "default"
    assert clickhouse.ask("SELECT 1 FROM t", database="no_such_database").status == 404


def test_result_files_of_the_server_are_out_of_reach(clickhouse: ClickHouse, database: str) -> None:
    """INTO OUTFILE and FROM INFILE belong to the command line client."""
    assert clickhouse.ask("SELECT 1 INTO OUTFILE '/tmp/x'").status >= 400
    clickhouse.done("CREATE TABLE t (a String) ENGINE = Memory", database=database)
    assert clickhouse.ask("INSERT INTO t FROM INFILE '/etc/hostname' FORMAT LineAsString", database=database).status >= 400
    assert clickhouse.value("SELECT count() FROM t", database=database) == "0"


@pytest.mark.parametrize("rows", [0, 3, 500_000])
def test_native_compression_both_ways(clickhouse: ClickHouse, database: str, rows: int) -> None:
    """`compress=1` sends ClickHouse's own compressed blocks, and `decompress=1` takes them as they came."""
    clickhouse.done("CREATE TABLE t (number UInt64) ENGINE = Memory", database=database)
    packed = clickhouse.done(f"SELECT number FROM numbers({rows})", default_format="Native", compress=1).body
    clickhouse.done("INSERT INTO t FORMAT Native", packed, database=database, decompress=1)
    assert clickhouse.rows("SELECT count(), sum(number) FROM t", database=database) == [
        [str(rows), str(rows * (rows - 1) // 2)]
    ]


def test_a_native_block_with_a_wrong_checksum_is_refused(clickhouse: ClickHouse, database: str) -> None:
    """Bytes that changed on their way are found, and nothing is inserted."""
    clickhouse.done("CREATE TABLE t (number UInt64) ENGINE = Memory", database=database)
    packed = clickhouse.done("SELECT number FROM numbers(100)", default_format="Native", compress=1).body
    broken = packed[:40] + bytes([packed[40] ^ 1]) + packed[41:]
    assert clickhouse.ask("INSERT INTO t FORMAT Native", broken, database=database, decompress=1).code == 40
    assert clickhouse.value("SELECT count() FROM t", database=database) == "0"
