"""Commands that ask Kafka and ClickHouse themselves, of servers that are away, wrong or broken: one line, and what to do."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy import topics as topic_admin
from deploy.cli.main import main
from deploy.verify.store import Store
from ingest.contract import store
from ingest.contract.errors import StoreUnavailable
from ingest.contract.topics import topics
from tests.support import rows
from tests.support.faulty_clickhouse import Fault, FaultyClickHouse

pytestmark = pytest.mark.real

CUT = Fault(how="cut_answer", only="selects")


@pytest.fixture(scope="module")
def kafka(kafka_address: str) -> str:
    topic_admin.apply(kafka_address, topics())
    return kafka_address


@pytest.fixture(scope="module")
def database(clickhouse_url: str) -> Iterator[str]:
    with rows.fresh_database(clickhouse_url) as url:
        yield url


@pytest.fixture
def faulty(database: str) -> Iterator[FaultyClickHouse]:
    parts = urlsplit(database)
    made = FaultyClickHouse(parts.port or 8123, host=parts.hostname or "")
    made.start()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def _no_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kafka: str) -> None:
    monkeypatch.setenv("TOOLLEDGER_DATA", str(tmp_path))
    monkeypatch.setenv("TOOLLEDGER_KAFKA", kafka)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail as promised, and return its one line."""
    assert main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("toolledger: ")
    assert said.err.count("\n") == 1
    return said.err


def wrong(database: str, what: str) -> str:
    """Return an address that is wrong in one way."""
    parts = urlsplit(database)
    match what:
        case "port":
            return "http://127.0.0.1:1/t"
        case "form":
            return "http://default:hush@127.0.0.1:99999"
        case "password":
            return parts._replace(netloc=f"default:hush@{parts.netloc}").geturl()
        case _:
            return parts._replace(path="/not_there").geturl()


@pytest.mark.parametrize("verb", [["verify"], ["dead-letters", "list"], ["migrate", "--dry-run"]], ids=" ".join)
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("form", "the address of ClickHouse is none"),
        ("port", "no ClickHouse answers at 127.0.0.1:1: start it, or name its address in TOOLLEDGER_CLICKHOUSE"),
        ("password", "Authentication failed"),
        ("database", "not_there"),
    ],
)
def test_what_is_wrong_with_clickhouse_is_one_line(
    database: str, capsys: pytest.CaptureFixture[str], verb: list[str], what: str, says: str
) -> None:
    """A server that is away and one that refuses are told apart, and no password is shown."""
    if what == "database" and verb[0] == "migrate":
        return  # it makes that database
    line = refused(capsys, *verb, "--clickhouse", wrong(database, what))
    assert says in line
    assert "TOOLLEDGER_CLICKHOUSE" in line
    assert "hush" not in line


def test_verify_says_in_one_line_that_clickhouse_broke_off(
    faulty: FaultyClickHouse, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that dies while it answers is no finding, and no traceback."""
    with (
        Store(faulty.url + urlsplit(database).path) as checked,
        faulty.broken(CUT),
        pytest.raises(StoreUnavailable, match="broke off"),
    ):
        checked.rows("SELECT number FROM numbers(1000)")
    with faulty.broken(CUT):
        assert "broke off" in refused(capsys, "verify", "--clickhouse", faulty.url)


def test_dead_letters_without_tables_say_what_makes_them(clickhouse_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A database that nobody migrated answers, and has none of what is asked for."""
    name = f"bare_{uuid.uuid4().hex[:12]}"
    with contextlib.closing(store.client(clickhouse_url)) as client:
        client.command(f"CREATE DATABASE {name}")
        bare = urlsplit(clickhouse_url)._replace(path=f"/{name}").geturl()
        assert "run toolledger migrate" in refused(capsys, "dead-letters", "list", "--clickhouse", bare)
        client.command(f"DROP DATABASE {name}")


def test_verify_asks_as_a_user_who_may_change_no_settings(
    faulty: FaultyClickHouse, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of profile readonly = 1: the checks are made within the server's own limits, and that nothing is kept is said."""
    with faulty.broken(Fault(how="read_only")):
        assert main(["verify", "--clickhouse", faulty.url + urlsplit(database).path]) in (0, 1)
    said = capsys.readouterr()
    assert "receipts over" in said.out
    assert said.err.startswith("toolledger: the page will not show this outcome")
    assert said.err.count("\n") == 1
