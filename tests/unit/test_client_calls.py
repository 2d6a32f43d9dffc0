"""What the client records of a call, whatever kind of function makes it, and that the caller notices nothing."""

import asyncio
import functools
import inspect
import json
import pickle
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy
import pytest

from ingest.client import AsyncToolLedger, ToolLedger
from ingest.contract.event import Event, decode_event

Events = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def ledger() -> Iterator[ToolLedger]:
    made = ToolLedger(api_key="ak_test", base_url="http://127.0.0.1:9", spool=False, close_timeout_s=0)
    yield made
    made.close()


@pytest.fixture
def events(ledger: ToolLedger, monkeypatch: pytest.MonkeyPatch) -> Events:
    return taken(ledger, monkeypatch)


def taken(ledger: Any, monkeypatch: pytest.MonkeyPatch) -> Events:
    """Take what is recorded where it would be handed to the sending threads; each is one that ingest accepts."""
    raws: list[bytes] = []
    monkeypatch.setattr(ledger.recorder._delivery, "put", raws.append)

    def read() -> list[dict[str, Any]]:
        for raw in raws:
            assert isinstance(decode_event(raw), Event)
        found = [json.loads(raw) for raw in raws]
        raws.clear()
        return found

    return read


def request_of(event: dict[str, Any]) -> Any:
    return event["data"]["request"]["payload"]


def response_of(event: dict[str, Any]) -> Any:
    return event["data"]["response"]["body"]


class Moody:
    """Neither true nor false."""

    def __bool__(self) -> bool:
        raise RuntimeError


class Refused(Exception):
    status_code = 401


def test_a_function_is_recorded_with_what_it_took_and_gave(ledger: ToolLedger, events: Events) -> None:
    """Arguments go by the names the function gives them, defaults and all that is passed on by position included."""

    @ledger.tool("GMAIL_SEND_EMAIL", user_id="user_123", metadata={"attempt": 2})
    def send(to: str, *rest: str, subject: str = "none", **more: Any) -> dict[str, Any]:
        """Send."""
        return {"sent": to, "more": [*rest, subject], **more}

    assert send("alice", "bob", subject="hi", urgent=True) == {"sent": "alice", "more": ["bob", "hi"], "urgent": True}
    (event,) = events()
    assert event["tool_slug"] == "GMAIL_SEND_EMAIL"
    assert event["status"] == "success"
    assert event["user_id"] == "user_123"
    assert event["metadata"] == {"attempt": 2}
    assert event["source"] == {"language": "python", "host": "sdk"}
    assert request_of(event) == {"to": "alice", "rest": ["bob"], "subject": "hi", "urgent": True}
    assert response_of(event) == {"sent": "alice", "more": ["bob", "hi"], "urgent": True}
    assert event["id"].startswith("log_")
    assert len(event["id"]) == 16
    assert send.__name__ == "send"
    assert send.__doc__ == "Send."


def test_what_a_function_raises_is_recorded_and_goes_on(ledger: ToolLedger, events: Events) -> None:
    """The very exception reaches the caller; the record has its text, type and status."""
    error = Refused("token expired")

    @ledger.tool("A_TOOL")
    def fails() -> None:
        raise error

    with pytest.raises(Refused) as caught:
        fails()
    assert caught.value is error
    (event,) = events()
    assert event["status"] == "failed"
    assert event["error"] == {"message": "token expired", "type": "Refused", "code": "401"}


def test_a_wrong_call_raises_what_it_always_raised(ledger: ToolLedger, events: Events) -> None:
    """Arguments that a function does not take are its caller's mistake, and are recorded as a failed call."""

    @ledger.tool("A_TOOL")
    def tool(a: int) -> int:
        return a

    with pytest.raises(TypeError, match="unexpected keyword"):
        tool(a=1, b=2)  # type: ignore[call-arg]
    assert events()[0]["error"]["type"] == "TypeError"


async def test_an_async_function_is_recorded_when_it_is_done(ledger: ToolLedger, events: Events) -> None:
    """Its result, what it raises, and a cancellation, each goes on."""

    @ledger.tool("A_TOOL")
    async def tool(wait_s: float) -> str:
        await asyncio.sleep(wait_s)
        if not wait_s:
            raise Refused
        return "done"

    assert inspect.iscoroutinefunction(tool)
    assert await tool(0.001) == "done"
    with pytest.raises(Refused):
        await tool(0)
    task = asyncio.create_task(tool(60))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    done, failed, cancelled = events()
    assert (done["status"], response_of(done)) == ("success", "done")
    assert failed["error"] == {"message": "Refused", "type": "Refused", "code": "401"}
    assert (cancelled["status"], cancelled["error"]["type"]) == ("failed", "CancelledError")


def test_a_generator_is_recorded_when_its_last_piece_was_taken(ledger: ToolLedger, events: Events) -> None:
    """What is sent and thrown in reaches it, what it returns comes back, and stopping early is no failure."""

    @ledger.tool("A_TOOL")
    def counts(up_to: int) -> Any:
        asked = []
        try:
            for number in range(up_to):
                asked.append((yield number))
        except KeyError:
            yield "caught"
        return asked

    assert inspect.isgeneratorfunction(counts)
    assert list(counts(3)) == [0, 1, 2]
    talking = counts(2)
    assert next(talking) == 0
    assert talking.send("a") == 1
    with pytest.raises(StopIteration) as stop:
        talking.send("b")
    assert stop.value.value == ["a", "b"]
    thrown = counts(5)
    next(thrown)
    assert thrown.throw(KeyError("k")) == "caught"
    thrown.close()
    for _ in counts(100):
        break
    never = counts(1)
    del never
    whole, talked, caught, early = events()
    assert response_of(whole) == {"pieces": [0, 1, 2], "returned": [None, None, None]}
    assert response_of(talked) == {"pieces": [0, 1], "returned": ["a", "b"]}
    assert response_of(caught) == [0, "caught"]
    assert response_of(early) == [0]
    assert {event["status"] for event in (whole, talked, caught, early)} == {"success"}


def test_a_generator_that_raises_is_recorded_with_what_it_gave_before(ledger: ToolLedger, events: Events) -> None:
    """The pieces before the failure are kept, and the failure goes on to who iterates."""

    @ledger.tool("A_TOOL")
    def fails() -> Iterator[int]:
        yield 1
        raise Refused("no more")

    with pytest.raises(Refused):
        list(fails())
    (event,) = events()
    assert event["status"] == "failed"
    assert response_of(event) == [1]


async def test_an_async_generator_is_recorded_when_its_last_piece_was_taken(ledger: ToolLedger, events: Events) -> None:
    """As a generator: sent and thrown values reach it, an early end is no failure, and what it raises goes on."""

    @ledger.tool("A_TOOL")
    async def counts(up_to: int) -> AsyncIterator[Any]:
        try:
            for number in range(up_to):
                got = yield number
                if got:
                    yield got
        except KeyError:
            yield "caught"
        if up_to == 2:
            raise Refused

    assert inspect.isasyncgenfunction(counts)
    assert [piece async for piece in counts(3)] == [0, 1, 2]
    talking: Any = counts(1)
    assert await anext(talking) == 0
    assert await talking.asend("x") == "x"
    await talking.aclose()
    thrown: Any = counts(5)
    await anext(thrown)
    assert await thrown.athrow(KeyError("k")) == "caught"
    await thrown.aclose()
    with pytest.raises(Refused):
        _ = [piece async for piece in counts(2)]
    whole, talked, caught, failed = events()
    assert [response_of(event) for event in (whole, talked, caught)] == [[0, 1, 2], [0, "x"], [0, "caught"]]
    assert [event["status"] for event in (whole, talked, caught, failed)] == ["success"] * 3 + ["failed"]


async def test_what_has_yet_to_be_awaited_or_iterated_is_recorded_when_it_was(ledger: ToolLedger, events: Events) -> None:
    """A plain function may return a coroutine or a generator: the call lasts as long as that."""

    async def later() -> str:
        await asyncio.sleep(0)
        return "later"

    coroutine = ledger.tool("A_TOOL")(functools.partial(lambda make: make(), later))()
    assert events() == []
    assert await coroutine == "later"
    pieces = ledger.tool("A_TOOL")(lambda: (each for each in "ab"))()
    assert response_of(events()[0]) == "later"
    assert list(pieces) == ["a", "b"]
    assert response_of(events()[0]) == ["a", "b"]


def test_a_stream_keeps_as_many_pieces_as_a_payload_holds(ledger: ToolLedger, events: Events) -> None:
    """A stream without end costs no memory without end; the record says how many more there were."""

    @ledger.tool("A_TOOL")
    def many() -> Iterator[str]:
        for _ in range(2_000):
            yield "x" * 1_000

    assert sum(1 for _ in many()) == 2_000
    pieces = response_of(events()[0])
    assert 300 < len(pieces) < 500
    assert pieces[-1] == f"<{2_000 - len(pieces) + 1} more pieces>"


def test_methods_are_recorded_without_their_object(ledger: ToolLedger, events: Events) -> None:
    """`self` and `cls` are no arguments of a tool; static methods have neither."""

    class Mail:
        @ledger.tool("MAIL_SEND")
        def send(self, to: str) -> str:
            return to

        @classmethod
        @ledger.tool("MAIL_MAKE")
        def make(cls, to: str) -> str:
            return to

        @staticmethod
        @ledger.tool("MAIL_CHECK")
        def check(to: str) -> str:
            return to

    assert (Mail().send("a"), Mail.make("b"), Mail.check(to="c")) == ("a", "b", "c")
    assert [request_of(event) for event in events()] == [{"to": "a"}, {"to": "b"}, {"to": "c"}]
    with pytest.raises(TypeError, match="put the decorator beneath it"):
        ledger.tool("MAIL")(classmethod(lambda cls: cls))  # type: ignore[type-var]


def test_execute_gives_data_or_an_error_and_the_id_of_the_log(ledger: ToolLedger, events: Events) -> None:
    """A tool that raises is a result with an error, never an exception; the log is found by the id."""
    session = ledger.session(user_id="user_123")

    def send(to: str) -> dict[str, str]:
        if "@" not in to:
            raise ValueError("invalid recipient")
        return {"sent": to}

    good = session.execute("GMAIL_SEND_EMAIL", {"to": "a@b"}, tool=send)
    bad = session.execute("GMAIL_SEND_EMAIL", arguments={"to": "alice"}, tool=send)
    wrong = session.execute("GMAIL_SEND_EMAIL", arguments={"for": "alice"}, tool=send)
    assert (good.data, good.error, good.successful) == ({"sent": "a@b"}, None, True)
    assert (bad.data, bad.error, bad.successful) == (None, "invalid recipient", False)
    assert isinstance(bad.exception, ValueError)
    assert wrong.error is not None
    assert "unexpected keyword" in wrong.error
    recorded = events()
    assert [event["id"] for event in recorded] == [good.log_id, bad.log_id, wrong.log_id]
    assert {event["session_id"] for event in recorded} == {session.id}
    assert {event["user_id"] for event in recorded} == {"user_123"}
    assert recorded[1]["error"] == {"message": "invalid recipient", "type": "ValueError"}
    assert request_of(recorded[1]) == {"to": "alice"}


def test_execute_finds_the_function_that_was_decorated_and_records_once(ledger: ToolLedger, events: Events) -> None:
    """By slug or given, a decorated function makes one log; a slug without one is an error that says so."""

    @ledger.tool("A_TOOL")
    def tool(a: int) -> int:
        return a

    session = ledger.session()
    assert session.execute("A_TOOL", {"a": 1}).data == 1
    assert session.execute("A_TOOL", {"a": 2}, tool=tool).data == 2
    missing = session.execute("NO_TOOL")
    assert missing.error is not None
    assert missing.error.startswith("Tool not found: NO_TOOL")
    assert len(events()) == 3


def test_what_ends_a_program_is_recorded_and_goes_on(ledger: ToolLedger, events: Events) -> None:
    """`execute` keeps a tool's errors, but no Ctrl-C and no exit."""

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.session().execute("A_TOOL", tool=stop)
    assert events()[0]["error"]["type"] == "KeyboardInterrupt"


async def test_execute_of_a_sync_client_runs_a_coroutine_where_no_loop_runs(ledger: ToolLedger, events: Events) -> None:
    """Where one does it cannot, and says what to use instead; nothing is recorded, since nothing was called."""

    async def tool(a: int) -> int:
        await asyncio.sleep(0)
        return a

    with pytest.raises(TypeError, match="AsyncToolLedger"):
        ledger.session().execute("A_TOOL", {"a": 1}, tool=tool)
    assert events() == []
    result = await asyncio.to_thread(ledger.session().execute, "A_TOOL", {"a": 1}, tool=tool)
    assert result.data == 1
    assert response_of(events()[0]) == 1


async def test_execute_of_an_async_client_takes_every_kind_of_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Coroutines are awaited, plain functions called in a thread that does not hold the loop up, streams passed on."""
    async with AsyncToolLedger(api_key="ak_test", base_url="http://127.0.0.1:9", spool=False, close_timeout_s=0) as ledger:
        events = taken(ledger, monkeypatch)
        where: list[str] = []

        def plain(a: int) -> int:
            where.append(threading.current_thread().name)
            return a

        async def coroutine(a: int) -> int:
            return a + 1

        async def pieces(a: int) -> AsyncIterator[int]:
            yield a

        class Tool:
            async def __call__(self, a: int) -> int:
                return a + 2

        session = ledger.session(user_id="u")
        results = [await session.execute("A_TOOL", {"a": 1}, tool=tool) for tool in (plain, coroutine, Tool())]
        assert [result.data for result in results] == [1, 2, 3]
        assert where != [threading.current_thread().name]
        result = await session.execute("A_TOOL", {"a": 7}, tool=pieces)
        assert [piece async for piece in result.data] == [7]
        failed = await session.execute("A_TOOL", tool=plain)
        assert failed.error is not None
        assert [event["status"] for event in events()] == ["success"] * 4 + ["failed"]


def test_a_block_is_recorded_with_what_is_set_in_it(ledger: ToolLedger, events: Events) -> None:
    """Result, failure without an exception, and labels that are known late; what is raised goes on."""
    with ledger.execution("A_TOOL", user_id="u", arguments={"a": 1}, trace_id="t1") as execution:
        execution.result = {"b": 2}
        execution.label(session_id="s1", metadata={"c": 3})
    with ledger.execution("A_TOOL") as failing:
        failing.fail("upstream said no")
        failing.message = "A line for people"
    with pytest.raises(Refused), ledger.execution("A_TOOL"):
        raise Refused
    good, failed, raised = events()
    assert good["id"] == execution.log_id
    assert (good["user_id"], good["session_id"], good["metadata"]) == ("u", "s1", {"c": 3})
    assert good["context"] == {"trace_id": "t1"}
    assert good["data"] == {"request": {"payload": {"a": 1}}, "response": {"body": {"b": 2}}}
    assert (failed["status"], failed["error"], failed["message"]) == (
        "failed",
        {"message": "upstream said no"},
        "A line for people",
    )
    assert raised["error"]["type"] == "Refused"


def test_calls_within_a_call_name_it_as_their_parent(ledger: ToolLedger, events: Events) -> None:
    """However they are recorded; a call after it does not."""

    @ledger.tool("INNER")
    def inner() -> None: ...

    @ledger.tool("STREAM")
    def stream() -> Iterator[None]:
        inner()
        yield
        inner()

    with ledger.execution("OUTER") as outer:
        inner()
        ledger.session().execute("MIDDLE", tool=inner)
    inner()
    list(stream())
    first, middle, whole, after, one, two, streamed = events()
    assert first["parent"] == middle["parent"] == {"log_id": outer.log_id, "tool_slug": "OUTER"}
    assert one["parent"] == two["parent"] == {"log_id": streamed["id"], "tool_slug": "STREAM"}
    assert all("parent" not in event for event in (whole, after, streamed))


async def test_tasks_and_threads_do_not_mix_up_sessions(ledger: ToolLedger, events: Events) -> None:
    """Within its block each has its own; what a session's own functions record is that session's anywhere."""

    @ledger.tool("A_TOOL")
    def tool(who: str) -> None: ...

    async def one(who: str) -> None:
        async with ledger.session(user_id=who):
            for _ in range(5):
                tool(who)
                await asyncio.sleep(0)

    await asyncio.gather(*[one(f"user_{number}") for number in range(10)])
    tool("nobody")
    recorded = events()
    assert len(recorded) == 51
    assert all(event.get("user_id", "nobody") == request_of(event)["who"] for event in recorded)
    session = ledger.session(user_id="threaded")
    bound = session.tool("A_TOOL")(lambda: None)
    threads = [threading.Thread(target=bound) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event["session_id"] for event in events()] == [session.id] * 3


def test_a_session_that_several_are_in_at_once_gives_each_back_its_own(ledger: ToolLedger, events: Events) -> None:
    """Whoever leaves it goes on in the session that they came from, in whatever order they leave."""

    @ledger.tool("A_TOOL")
    def tool() -> None: ...

    shared, own = ledger.session(), ledger.session()
    entered, left = threading.Event(), threading.Event()

    def elsewhere() -> None:
        with shared:
            entered.set()
            left.wait(60)
        tool()

    thread = threading.Thread(target=elsewhere)
    with own:
        with shared:
            thread.start()
            assert entered.wait(60)
        tool()
        left.set()
        thread.join()
    tool()
    here, there, after = events()
    assert here["session_id"] == own.id
    assert not {"session_id"} & (there.keys() | after.keys())


def test_a_call_measured_elsewhere_is_recorded_as_told(ledger: ToolLedger, events: Events) -> None:
    """With its own id, time and duration; without a time it began so long ago."""
    log_id = ledger.record(
        "A_TOOL", duration_ms=1500, started_ms=1_776_421_500_000, error="timeout", log_id="mine-1", result=[1]
    )
    (event,) = events()
    assert log_id == event["id"] == "mine-1"
    assert (event["timestamp"], event["duration_ms"], event["status"]) == (1_776_421_500_000, 1500.0, "failed")
    assert response_of(event) == [1]


@pytest.mark.parametrize("duration_ms", [float("nan"), float("inf"), -1, 1e300, "soon", None, object()])
def test_times_that_are_none_do_not_lose_the_call(ledger: ToolLedger, events: Events, duration_ms: Any) -> None:
    """It counts, with what is known of its time."""
    ledger.record("A_TOOL", duration_ms=duration_ms, started_ms=duration_ms, log_id='a "quoted" id')
    assert [event["id"] for event in events()] == ['a "quoted" id']


def test_an_async_generator_left_at_the_end_of_the_loop_did_not_fail(ledger: ToolLedger, events: Events) -> None:
    """The loop cancels what is to close it, so that it sees a cancellation instead of an end."""

    @ledger.tool("STREAM")
    async def stream() -> AsyncIterator[int]:
        yield 1
        yield 2

    async def first() -> int:
        async for piece in stream():
            return piece
        return 0

    assert asyncio.run(first()) == 1
    (event,) = events()
    assert (event["status"], response_of(event)) == ("success", [1])


def test_a_block_in_a_generator_that_is_left_early_did_not_fail(ledger: ToolLedger, events: Events) -> None:
    """The consumer had enough."""

    def pieces() -> Iterator[int]:
        with ledger.execution("A_TOOL"):
            yield 1
            yield 2

    for _ in pieces():
        break
    assert events()[0]["status"] == "success"


def test_without_a_key_nothing_is_recorded_and_everything_works(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once in the log; ids are given all the same."""
    monkeypatch.delenv("TOOLLEDGER_API_KEY", raising=False)
    ledger = ToolLedger()
    result = ledger.session().execute("A_TOOL", {"a": 1}, tool=lambda a: a)
    assert (result.data, result.log_id[:4]) == (1, "log_")
    assert ledger.flush()
    assert ledger.counts().recorded == 0
    ledger.close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_payloads_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments, results, pieces and metadata are not even looked at; that and how it was called stays."""
    monkeypatch.setenv("TOOLLEDGER_PAYLOADS", "no")
    ledger = ToolLedger(api_key="ak", base_url="http://127.0.0.1:9", spool=False, close_timeout_s=0)
    events = taken(ledger, monkeypatch)

    class Untouchable:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("it was looked at")

    ledger.tool("A_TOOL", user_id="u", metadata={"a": 1})(lambda each: each)(Untouchable())
    (event,) = events()
    assert event["user_id"] == "u"
    assert "data" not in event
    assert "metadata" not in event


def test_labels_that_no_event_has_are_told_of_and_left_out(
    ledger: ToolLedger, events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelt label must not end the program that calls a tool."""
    with ledger.execution("A_TOOL", usr_id="u"):  # type: ignore[call-arg]
        pass
    assert "usr_id" in caplog.text
    assert "usr_id" not in events()[0]


@pytest.mark.parametrize(
    ("labels", "slug"),
    [
        ({"user_id": 7}, "A_TOOL"),
        ({"user_id": "u" * 999}, "T" * 999),
        ({"metadata": "text"}, ""),
        ({"user_id": "\ud800"}, None),
        ({"user_id": numpy.arange(3), "trace_id": Moody(), "metadata": Moody()}, "A_TOOL"),
    ],
)
def test_labels_of_any_kind_become_what_ingest_takes(ledger: ToolLedger, events: Events, labels: Any, slug: Any) -> None:
    """Numbers become texts, texts too long are cut, an empty slug gets a name: the call counts all the same."""
    with ledger.execution(slug, **labels):
        pass
    assert len(events()) == 1


def test_a_client_is_made_again_in_a_process_that_is_spawned() -> None:
    """It can be pickled with its settings, and shows its key to nobody."""
    ledger = ToolLedger(api_key="ak_secret", spool=False)
    again = pickle.loads(pickle.dumps(ledger))
    assert again.options == ledger.options
    assert "ak_secret" not in repr(again) + repr(again.options) + repr(again.session())
