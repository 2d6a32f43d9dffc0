"""Real parts for tests that kill and stop them, of their own, and one stack for those that do not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.outages import Outages
from tests.support.pipeline import Pipeline
from tests.support.stack import Stack


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """Kafka and ClickHouse of one test, without workers."""
    made = Pipeline(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def outages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outages]:
    """A pipeline at work whose ClickHouse can be broken in every way, shared by a file."""
    made = Outages(Path(tmp_path_factory.mktemp("outages")))
    try:
        made.start()
        made.send("first")
        assert made.pipeline.settled().findings == ()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="package")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A whole stack for files that only use it: each has a project of its own, and stops and kills nothing.

    It ends with this suite: an idle one takes an eighth of a core from those that come after it.
    """
    made = Stack(Path(tmp_path_factory.mktemp("shared")))
    made.start()
    try:
        yield made
    finally:
        made.stop()
