"""Which ClickHouse the contract is held against: the address in TOOLLEDGER_TEST_CLICKHOUSE, else an embedded server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.contract.clickhouse_http import ClickHouse

ADDRESS = "TOOLLEDGER_TEST_CLICKHOUSE"


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
