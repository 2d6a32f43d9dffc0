"""The Python client against the whole stack: what it records is found, counted, and proved, through stops and starts."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.client import AsyncToolLedger, LogNotFound, RequestFailed, ServiceUnavailable, ToolLedger
from ingest.contract.errors import ConfigurationError
from tests.support.pipeline import eventually
from tests.support.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(Path(tmp_path_factory.mktemp("stack")))
    made.start()
    made.key = made.create_key("acme")
    yield made
    made.stop()


def client(stack: Stack, spool: Path) -> ToolLedger:
    return ToolLedger(api_key=stack.key, base_url=f"http://127.0.0.1:{stack.port}", spool=spool)


def test_the_documented_example_works_word_for_word(stack: Stack, tmp_path: Path) -> None:
    """Execute, look at the error, fetch its log, search, count."""
    ledger = client(stack, tmp_path)
    session = ledger.session(user_id="user_123")

    def send_email(to: str, subject: str, body: str, api_key: str) -> dict[str, str]:
        if "@" not in to:
            raise ValueError("invalid recipient")
        return {"sent": subject + body, "with": api_key}

    arguments = {"to": "alice", "subject": "Hello", "body": "Test", "api_key": "sk-very-secret"}
    result = session.execute("GMAIL_SEND_EMAIL", arguments=arguments, tool=send_email)
    assert result.error == "invalid recipient"
    with session, ledger.execution("GMAIL_ARCHIVE", arguments={"id": 7}) as execution:
        execution.result = {"archived": True}
    assert ledger.flush()
    eventually("the log can be found", lambda: len(ledger.logs.search(session_id=session.id)) == 2)
    log = ledger.logs.get(result.log_id)
    assert (log.status, log.message) == ("failed", "GMAIL_SEND_EMAIL failed: invalid recipient")
    assert log.metadata["user_id"] == "user_123"
    assert log.data["request"]["payload"] == {**arguments, "api_key": "[redacted]"}
    assert log.source == {"language": "python", "host": "sdk"}
    assert log.complete_until is not None
    found = ledger.logs.search(status="failed", filters=[{"field": "message", "operator": "contains", "value": "recipient"}])
    assert [each.id for each in found] == [result.log_id]
    assert [each.id for each in ledger.logs.all(limit=1, session_id=session.id)] == [execution.log_id, result.log_id]
    eventually("usage counts it", lambda: ledger.usage.summary().tool_calls == 2)
    assert ledger.usage.summary().sessions == 1
    groups = ledger.usage.breakdown("toolkit").groups
    assert [(group.key, group.event_count) for group in groups] == [("gmail", 2)]
    ledger.close()


def test_questions_raise_what_went_wrong(stack: Stack, tmp_path: Path) -> None:
    """Other than recording: a missing log, a wrong question, a wrong key, no key, nobody there."""
    url = f"http://127.0.0.1:{stack.port}"
    ledger = client(stack, tmp_path)
    with pytest.raises(LogNotFound):
        ledger.logs.get("log_that_is_not")
    with pytest.raises(RequestFailed, match="limit") as wrong:
        ledger.logs.search(limit=1000)
    assert (wrong.value.status, bool(wrong.value.request_id)) == (400, True)
    with pytest.raises(RequestFailed, match="401"):
        ToolLedger(api_key="ak_wrong", base_url=url, spool=False).usage.summary()
    with pytest.raises(ConfigurationError, match="TOOLLEDGER_API_KEY"):
        ToolLedger(base_url=url, spool=False).usage.summary()
    with pytest.raises(ServiceUnavailable, match="TOOLLEDGER_URL"):
        ToolLedger(api_key="ak", base_url="http://127.0.0.1:9", spool=False).logs.search()


async def test_an_async_client_records_and_asks(stack: Stack) -> None:
    """The same, awaited."""
    async with AsyncToolLedger(api_key=stack.key, base_url=f"http://127.0.0.1:{stack.port}", spool=False) as ledger:

        @ledger.tool("SLACK_SEND_MESSAGE")
        async def send(text: str) -> str:
            await asyncio.sleep(0)
            return text

        async with ledger.session(user_id="async_user") as session:
            await asyncio.gather(*[send(f"hello {number}") for number in range(20)])
        assert await ledger.flush()
        deadline_s = time.monotonic() + 60
        while len(await ledger.logs.search(session_id=session.id, limit=100)) < 20:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.1)
        assert len([log async for log in ledger.logs.all(session_id=session.id, limit=7)]) == 20
        users = await ledger.usage.breakdown("user")
        assert "async_user" in {group.key for group in users}


def test_a_stack_that_is_away_for_a_while_counts_each_call_once(stack: Stack, tmp_path: Path) -> None:
    """Recorded before, during and after a stop, by a client that lives on and one that ended: all there, once, proved."""
    spool = tmp_path / "spool"
    ledger = client(stack, spool)
    session = ledger.session(user_id="through_the_outage")

    def call(times: int) -> None:
        for _ in range(times):
            session.execute("A_TOOL", tool=lambda: None)

    call(200)
    stack.stop()
    call(300)
    ended = client(stack, spool)
    other = ended.session(user_id="through_the_outage", session_id=session.id)
    for _ in range(100):
        other.execute("A_TOOL", tool=lambda: None)
    ended.close()
    assert ended.counts().spooled == 100
    stack.start()
    call(50)

    def counted() -> int:
        groups = ledger.usage.breakdown("session", filters={"session_id": [session.id]}).groups
        return sum(group.event_count for group in groups)

    eventually("all calls count", lambda: counted() >= 650)
    assert counted() == 650
    assert ledger.counts().dropped == 0
    ledger.close()
    report = stack.proved()
    assert report.proved, report
    assert len(list(client(stack, spool).logs.all(session_id=session.id))) == 650
