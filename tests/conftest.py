"""Fixtures of every suite: the real Kafka and ClickHouse of this run."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.support import parts

_BROWSER = "tests/browser/"
# Nothing is judged by how long it takes: a busy machine must not fail a test.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")
# Brokers live for seconds here, so that code made fast is never worth its making: a third less CPU for each.
os.environ.setdefault("TOOLLEDGER_KAFKA_JVM_FLAGS", "-XX:TieredStopAtLevel=1")


def pytest_report_header() -> str:
    """Say which parts this run uses."""
    return parts.header()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where files are spread over processes, keep those of the browser in one: they look at one running stack."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - only where the plugin is

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _BROWSER if nodeid.startswith(_BROWSER) else super()._split_scope(nodeid)

    return Together(config, log)


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Kafka's address, host:port; shared, so a test names its own topics, projects and keys."""
    with parts.kafka(tmp_path_factory.mktemp("kafka")) as address:
        yield address


@pytest.fixture(scope="session")
def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """ClickHouse's HTTP address without a database; shared, so a test makes a database of its own."""
    with parts.clickhouse(tmp_path_factory.mktemp("clickhouse")) as url:
        yield url
