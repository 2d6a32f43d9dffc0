"""ClickHouse over HTTP: how rows get in, whole, once, and as one block."""

from __future__ import annotations

import bz2
import gzip
import lzma
import threading
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard

from tests.contract.clickhouse_http import ClickHouse

pytestmark = pytest.mark.real


@pytest.fixture
def table(clickhouse: ClickHouse, database: str) -> str:
    """A MergeTree table with a deduplication window."""
    columns = "(a UInt64, b String) ENGINE = MergeTree ORDER BY a"
    clickhouse.done(f"CREATE TABLE {database}.t {columns} SETTINGS non_replicated_deduplication_window = 1000")
    return f"{database}.t"


def native_rows(clickhouse: ClickHouse, rows: int, block: int = 100_000) -> bytes:
    """Native blocks of (a UInt64, b String)."""
    return clickhouse.done(
        f"SELECT number AS a, toString(number) AS b FROM numbers({rows}) FORMAT Native", max_block_size=block
    ).body


@pytest.mark.parametrize(
    ("head", "data"),
    [
        ("VALUES", b"(1,'x'),(1 + 1, concat('y', ';'))"),
        ("VALUES", b" (1,'x'), (2,'y;');"),
        ("FORMAT Values\n", b"(1,'x'),(2,'y;')"),
        ("FORMAT TSV\n", b"1\tx\n2\ty;\n"),
        ("FORMAT CSV\n", b'1,x\n2,"y;"\n'),
        ("FORMAT CSVWithNames\n", b"b,a\nx,1\ny;,2\n"),
        ("FORMAT JSONEachRow\n", b'{"a":1,"b":"x"}\n{"a":2,"b":"y;"}\n'),
        ("FORMAT JSONCompactEachRow ", b'[1,"x"][2,"y;"]'),
        ("FORMAT RowBinary\n", b"\x01\0\0\0\0\0\0\0\x01x\x02\0\0\0\0\0\0\0\x02y;"),
        ("FORMAT Native\n", b"\x02\x02\x01a\x06UInt64\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01b\x06String\x01x\x02y;"),
    ],
)
@pytest.mark.parametrize("place", ["body", "url"])
def test_rows_in_any_format(clickhouse: ClickHouse, table: str, head: str, data: bytes, place: str) -> None:
    """The statement in the body with its rows, or in the URL with the rows in the body; semicolons in rows are rows."""
    statement = f"INSERT INTO {table} (a, b) {head}"
    if place == "body":
        clickhouse.done(statement.encode() + data)
    else:
        clickhouse.done(statement.rstrip(), body=data)
    assert clickhouse.rows(f"SELECT a, b FROM {table} ORDER BY a") == [["1", "x"], ["2", "y;"]]


def test_rows_behind_a_with_clause(clickhouse: ClickHouse, table: str) -> None:
    """WITH may stand before INSERT."""
    clickhouse.done(f"WITH 1 AS one INSERT INTO {table} (a, b) FORMAT TSV\n5\tfive;\n")
    assert clickhouse.rows(f"SELECT a, b FROM {table}") == [["5", "five;"]]


def test_rows_through_the_input_function(clickhouse: ClickHouse, table: str) -> None:
    """INSERT .. SELECT .. FROM input() transforms rows on their way in."""
    clickhouse.done(
        f"INSERT INTO {table} SELECT x * 2, upper(y) FROM input('x UInt64, y String') WHERE x > 1 FORMAT CSV\n1,a\n2,b;\n"
    )
    assert clickhouse.rows(f"SELECT a, b FROM {table}") == [["4", "B;"]]


def test_insert_select(clickhouse: ClickHouse, table: str) -> None:
    """INSERT .. SELECT needs no rows from outside, and says how many it wrote."""
    answer = clickhouse.done(f"INSERT INTO {table} SELECT number, 'x' FROM numbers(10)", wait_end_of_query=1)
    assert answer.summary["written_rows"] == 10
    assert clickhouse.value(f"SELECT count() FROM {table}") == "10"


def test_no_rows_are_no_error(clickhouse: ClickHouse, table: str) -> None:
    """An empty body inserts nothing."""
    clickhouse.done(f"INSERT INTO {table} FORMAT Native", body=b"")
    clickhouse.done(f"INSERT INTO {table} FORMAT CSV\n")
    assert clickhouse.value(f"SELECT count() FROM {table}") == "0"


def test_the_summary_counts_written_rows(clickhouse: ClickHouse, table: str) -> None:
    """Clients learn from the summary how much was written."""
    answer = clickhouse.done(f"INSERT INTO {table} FORMAT Native", body=native_rows(clickhouse, 1234))
    assert answer.summary["written_rows"] == 1234
    assert answer.summary["written_bytes"] > 1234 * 8


def test_defaults_fill_what_the_rows_lack(clickhouse: ClickHouse, database: str) -> None:
    """Columns that are not given take their DEFAULT."""
    clickhouse.done(f"CREATE TABLE {database}.d (a UInt8, b String DEFAULT concat('b', toString(a))) ENGINE = Memory")
    clickhouse.done(f"INSERT INTO {database}.d (a) FORMAT Native", body=b"\x01\x01\x01a\x05UInt8\x07")
    clickhouse.done(f"INSERT INTO {database}.d FORMAT JSONEachRow\n" + '{"a":8}')
    assert clickhouse.rows(f"SELECT a, b FROM {database}.d ORDER BY a") == [["7", "b7"], ["8", "b8"]]


_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}


@pytest.mark.parametrize("encoding", sorted(_ENCODERS))
@pytest.mark.parametrize("place", ["body", "url"])
def test_compressed_bodies_of_many_frames(clickhouse: ClickHouse, table: str, encoding: str, place: str) -> None:
    """Every frame of a compressed body counts: decoding the first alone would lose rows in silence."""
    frames = 5
    blocks = [native_rows(clickhouse, 1000) for _ in range(frames)]
    encode = _ENCODERS[encoding]
    statement = f"INSERT INTO {table} FORMAT Native"
    if place == "body":
        body = b"".join(encode(part) for part in [statement.encode() + b"\n" + blocks[0], *blocks[1:]])
        clickhouse.done(body, headers={"Content-Encoding": encoding})
    else:
        clickhouse.done(statement, body=b"".join(map(encode, blocks)), headers={"Content-Encoding": encoding})
    assert clickhouse.rows(f"SELECT count(), sum(a) FROM {table}") == [[str(1000 * frames), str(499_500 * frames)]]


@pytest.mark.parametrize("place", ["body", "url"])
def test_a_body_cut_off_inside_a_frame_inserts_nothing(clickhouse: ClickHouse, table: str, place: str) -> None:
    """Half a compressed body is an error, not half the rows."""
    statement = f"INSERT INTO {table} FORMAT TSV"
    rows = b"".join(b"%d\tx\n" % number for number in range(100_000))
    text = statement.encode() + b"\n" + rows if place == "body" else rows
    packed = lz4.frame.compress(text)[:-50_000]
    headers = {"Content-Encoding": "lz4"}
    answer = clickhouse.ask(packed, headers=headers) if place == "body" else clickhouse.ask(statement, packed, headers)
    assert answer.status >= 400
    assert clickhouse.value(f"SELECT count() FROM {table}") == "0"


def test_an_unknown_encoding_is_an_error(clickhouse: ClickHouse, table: str) -> None:
    """A body in an encoding nobody knows is refused."""
    answer = clickhouse.ask(f"INSERT INTO {table} FORMAT TSV", body=b"1\tx\n", headers={"Content-Encoding": "no-such-encoding"})
    assert answer.status >= 400
    assert clickhouse.value(f"SELECT count() FROM {table}") == "0"


def test_rows_that_do_not_fit_are_an_error_and_none_is_kept(clickhouse: ClickHouse, table: str) -> None:
    """One broken row refuses the request; its message says which."""
    answer = clickhouse.ask(f"INSERT INTO {table} FORMAT CSV\n1,x\nnot a number,y\n")
    assert (answer.status, answer.code) == (400, 27)
    assert "row 2" in answer.text
    assert clickhouse.value(f"SELECT count() FROM {table}") == "0"


def test_one_request_is_one_block(clickhouse: ClickHouse, table: str) -> None:
    """Native blocks of one request land as one part, however many the request holds: one token stands for all."""
    clickhouse.done(f"INSERT INTO {table} FORMAT Native", body=native_rows(clickhouse, 60_000, block=5_000))
    parts = clickhouse.rows(f"SELECT rows FROM system.parts WHERE concat(database, '.', table) = '{table}' AND active")
    assert parts == [["60000"]]


def test_one_request_is_one_block_per_table_partition(clickhouse: ClickHouse, database: str) -> None:
    """With a partition key there is one part for each partition."""
    clickhouse.done(f"CREATE TABLE {database}.p (a UInt64, b String) ENGINE = MergeTree ORDER BY a PARTITION BY a % 3")
    clickhouse.done(f"INSERT INTO {database}.p FORMAT Native", body=native_rows(clickhouse, 60_000, block=5_000))
    parts = clickhouse.rows(f"SELECT rows FROM system.parts WHERE database = '{database}' AND table = 'p' AND active")
    assert parts == [["20000"]] * 3


def test_thirty_megabytes_are_one_block(clickhouse: ClickHouse, table: str) -> None:
    """A batch as large as the worker makes them is still one part."""
    rows = clickhouse.done(
        "SELECT number AS a, repeat(toString(number), 100) AS b FROM numbers(60000) FORMAT Native", max_block_size=4000
    ).body
    assert len(rows) > 28_000_000
    clickhouse.done(f"INSERT INTO {table} FORMAT Native", body=rows, insert_deduplication_token="large")
    clickhouse.done(f"INSERT INTO {table} FORMAT Native", body=rows, insert_deduplication_token="large")
    parts = clickhouse.rows(f"SELECT rows FROM system.parts WHERE concat(database, '.', table) = '{table}' AND active")
    assert parts == [["60000"]]


def test_a_token_inserts_once(clickhouse: ClickHouse, table: str) -> None:
    """The same token twice is one insert, whatever the rows; another token is another insert."""
    statement = f"INSERT INTO {table} FORMAT Native"
    for token, rows in (("one", 10), ("one", 10), ("one", 500), ("two", 10)):
        clickhouse.done(statement, body=native_rows(clickhouse, rows), insert_deduplication_token=token)
    assert clickhouse.value(f"SELECT count() FROM {table}") == "20"


def test_a_token_inserts_once_from_many_writers_at_once(clickhouse: ClickHouse, table: str) -> None:
    """Writers that race with one token write it once."""
    rows = native_rows(clickhouse, 5000)
    statuses: list[int] = []

    def write() -> None:
        statuses.append(
            clickhouse.ask(f"INSERT INTO {table} FORMAT Native", body=rows, insert_deduplication_token="raced").status
        )

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert clickhouse.value(f"SELECT count() FROM {table}") == "5000"
    assert statuses.count(200) >= 1


def test_readers_and_writers_at_once(clickhouse: ClickHouse, table: str) -> None:
    """Readers see whole inserts only, while several writers write."""
    rows = native_rows(clickhouse, 1000)
    seen: set[int] = set()
    failures: list[str] = []

    def write(writer: int) -> None:
        for number in range(10):
            answer = clickhouse.ask(
                f"INSERT INTO {table} FORMAT Native", body=rows, insert_deduplication_token=f"{writer}:{number}"
            )
            if answer.status != 200:
                failures.append(answer.text)

    def read() -> None:
        for _ in range(30):
            seen.add(int(clickhouse.value(f"SELECT count() FROM {table}")))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)] + [
        threading.Thread(target=read) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert all(count % 1000 == 0 for count in seen)
    assert clickhouse.value(f"SELECT count() FROM {table}") == "40000"


def test_a_body_that_never_ends_inserts_nothing(clickhouse: ClickHouse, table: str) -> None:
    """A client that dies in the middle of its body leaves no rows behind."""
    with clickhouse.connection() as connection:
        connection.putrequest("POST", f"/?query=INSERT+INTO+{table}+FORMAT+TSV")
        connection.putheader("X-ClickHouse-User", clickhouse.user)
        connection.putheader("X-ClickHouse-Key", clickhouse.password)
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"1\tx\n2\ty\n")
    assert clickhouse.value(f"SELECT count() FROM {table}") == "0"


def test_chunked_bodies(clickhouse: ClickHouse, table: str) -> None:
    """A body without a known length is taken as well."""
    pieces = [f"INSERT INTO {table} FORMAT TSV\n".encode(), b"1\t", b"x\n", b"2\ty\n"]
    answer = clickhouse.request("POST", "/", iter(pieces))
    assert answer.status == 200, answer.text
    assert clickhouse.value(f"SELECT count() FROM {table}") == "2"


def test_settings_clause_of_the_statement_works_beside_the_url(clickhouse: ClickHouse, table: str) -> None:
    """A statement's own SETTINGS and those of the URL are both in force."""
    statement = f"INSERT INTO {table} SETTINGS insert_deduplication_token = 'own' FORMAT TSV"
    for _ in range(2):
        clickhouse.done(statement, body=b"1\tx\n", max_insert_threads=1)
    assert clickhouse.value(f"SELECT count() FROM {table}") == "1"
