"""clickhouse-connect, unmodified, sync and async, against the server."""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import clickhouse_connect
import pytest
import pytest_asyncio
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError
from clickhouse_connect.driver.external import ExternalData

from tests.contract.clickhouse_http import ClickHouse

pytestmark = pytest.mark.real

COMPRESSIONS = [False, "lz4", "zstd", "gzip"]


@pytest.fixture
def connect(clickhouse: ClickHouse, database: str) -> Iterator[Callable[..., Client]]:
    """Makes clients that are closed with the test."""
    clients: list[Client] = []

    def make(**options: Any) -> Client:
        client = clickhouse_connect.get_client(
            host=clickhouse.host,
            port=clickhouse.port,
            username=clickhouse.user,
            password=clickhouse.password,
            database=database,
            **options,
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()


@pytest_asyncio.fixture
async def async_client(clickhouse: ClickHouse, database: str) -> AsyncIterator[AsyncClient]:
    async with await clickhouse_connect.get_async_client(
        host=clickhouse.host,
        port=clickhouse.port,
        username=clickhouse.user,
        password=clickhouse.password,
        database=database,
    ) as made:
        yield made


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_rows_go_in_and_come_back(connect: Callable[..., Client], compress: str | bool) -> None:
    """What a client inserts it reads back, with every compression."""
    client = connect(compress=compress)
    client.command("CREATE TABLE t (a UInt64, b String, c Nullable(Float64)) ENGINE = MergeTree ORDER BY a")
    rows = [(number, f"row {number} " * 20, None if number % 3 else number / 2) for number in range(50_000)]
    summary = client.insert("t", rows, column_names=["a", "b", "c"])
    assert summary.written_rows == 50_000
    assert client.query("SELECT * FROM t ORDER BY a").result_rows == rows
    assert client.query(
        "SELECT rows FROM system.parts WHERE table = 't' AND active AND database = currentDatabase()"
    ).result_rows == [(50_000,)]


def test_types_keep_their_values(client: Client) -> None:
    """Types beyond text and numbers come back as they went in."""
    client.command(
        "CREATE TABLE t (u UUID, d Date, t DateTime64(3, 'UTC'), n Decimal(18, 4), l Array(LowCardinality(String)),"
        " m Map(String, UInt8), p Tuple(UInt8, String), i IPv4, e Enum8('a' = 1, 'b' = 2), o Bool) ENGINE = Memory"
    )
    row = (
        uuid.uuid4(),
        datetime.date(2026, 11, 25),
        datetime.datetime(2026, 11, 25, 1, 2, 3, 456_000),  # noqa: DTZ001  (the client gives UTC without a zone)
        decimal.Decimal("123.4567"),
        ["x", "y"],
        {"k": 7},
        (1, "one"),
        "10.0.0.1",
        "b",
        True,
    )
    client.insert("t", [row])
    found = client.query("SELECT * FROM t").result_rows[0]
    assert [str(value) for value in found] == [str(value) for value in row]


def test_tokens_insert_once(client: Client) -> None:
    """`insert_deduplication_token` works as a setting of one insert."""
    client.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 10")
    for _ in range(3):
        client.insert("t", [[1], [2]], column_names=["a"], settings={"insert_deduplication_token": "once"})
    client.insert("t", [[3]], column_names=["a"])
    assert client.query("SELECT a FROM t ORDER BY a").result_rows == [(1,), (2,), (3,)]


def test_parameters_settings_and_formats(client: Client) -> None:
    """Server-side parameters, settings of one call, and raw formats."""
    result = client.query(
        "SELECT {text:String}, {list:Array(String)}, {at:DateTime}",
        parameters={"text": "it's \\ \t\n ü", "list": ["a'b", "c"], "at": datetime.datetime(2026, 1, 2, 3, 4, 5)},  # noqa: DTZ001
    )
    assert result.result_rows == [("it's \\ \t\n ü", ["a'b", "c"], datetime.datetime(2026, 1, 2, 3, 4, 5))]  # noqa: DTZ001
    assert client.command("SELECT getSetting('max_block_size')", settings={"max_block_size": 1234}) == 1234
    assert client.command("SELECT getSetting('max_block_size')") != 1234
    assert client.raw_query("SELECT 1 AS a", fmt="JSONEachRow") == b'{"a":1}\n'


def test_streams(client: Client) -> None:
    """Streamed results are whole."""
    query = "SELECT number, toString(number) AS s FROM numbers(300000)"
    with client.query_row_block_stream(query) as blocks:
        assert sum(row[0] for block in blocks for row in block) == 300_000 * 299_999 // 2
    with client.query_column_block_stream(query) as blocks:
        assert sum(len(block[0]) for block in blocks) == 300_000
    with client.query_df_stream(query) as frames:
        assert sum(len(frame) for frame in frames) == 300_000
    with client.query_arrow_stream(query) as tables:
        assert sum(table.num_rows for table in tables) == 300_000
    assert client.query_arrow(query).num_rows == 300_000
    assert len(client.query_df(query)) == 300_000


def test_external_data(client: Client) -> None:
    """Files a client sends along are tables of its query."""
    data = ExternalData(file_name="t.csv", data=b"1,one\n2,two\n", fmt="CSV", structure=["a UInt8", "b String"])
    assert client.query("SELECT b FROM t ORDER BY a", external_data=data).result_rows == [("one",), ("two",)]


def test_sessions_share_temporary_tables(connect: Callable[..., Client]) -> None:
    """Two clients with one session id see the same temporary table."""
    session = f"clients-{uuid.uuid4().hex}"
    first, second = connect(session_id=session), connect(session_id=session)
    first.command("CREATE TEMPORARY TABLE t (a UInt8)")
    first.insert("t", [[5]], column_names=["a"], database="")
    assert second.command("SELECT a FROM t") == 5


def test_errors_are_the_clients_own(client: Client) -> None:
    """Errors carry code and name; the client works on after them."""
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT * FROM no_such_table")
    assert caught.value.code == 60
    assert "UNKNOWN_TABLE" in str(caught.value)
    with (
        pytest.raises(StreamFailureError),
        client.query_row_block_stream("SELECT throwIf(number = 3000000) FROM numbers(4000000)") as blocks,
    ):
        for _ in blocks:
            pass
    assert client.command("SELECT 1") == 1


async def test_the_async_client(async_client: AsyncClient) -> None:
    """The async client inserts, reads, streams and fails as the sync one does."""
    await async_client.command("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    rows = [(number, str(number)) for number in range(20_000)]
    await async_client.insert("t", rows, column_names=["a", "b"], settings={"insert_deduplication_token": "x"})
    assert (await async_client.query("SELECT * FROM t ORDER BY a")).result_rows == rows
    async with await async_client.query_row_block_stream("SELECT number FROM numbers(200000)") as blocks:
        assert sum([len(block) async for block in blocks]) == 200_000
    with pytest.raises(DatabaseError) as caught:
        await async_client.query("SELECT * FROM no_such_table")
    assert caught.value.code == 60
