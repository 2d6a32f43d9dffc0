"""Which ClickHouse the contract is held against: the address in TOOLLEDGER_TEST_CLICKHOUSE, else an embedded server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.contract.clickhouse_http import ClickHouse
from tests.contract.clickhouse_process import EmbeddedServer

ADDRESS = "TOOLLEDGER_TEST_CLICKHOUSE"


@pytest.fixture(scope="session")
def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An address such as `http://default:@127.0.0.1:8123`."""
    given = os.environ.get(ADDRESS)
    if given:
        yield given
        return
    with EmbeddedServer(tmp_path_factory.mktemp("clickhouse") / "data") as server:
        yield f"http://default:@{server.ready['host']}:{server.ready['port']}"
        assert server.stop() == 0


@pytest.fixture(scope="session")
def clickhouse(clickhouse_url: str) -> ClickHouse:
    """The server under test."""
    return ClickHouse.at(clickhouse_url)


@pytest.fixture
def database(clickhouse: ClickHouse) -> Iterator[str]:
    """A database of the test's own."""
    name = f"contract_{uuid.uuid4().hex[:12]}"
    clickhouse.done(f"CREATE DATABASE {name}")
    yield name
    clickhouse.done(f"DROP DATABASE {name}")
