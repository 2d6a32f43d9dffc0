"""From the caller to a server that is slow, refuses or breaks off: nobody waits, nothing is lost unsaid."""

import asyncio
import json
import logging
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.client import AsyncToolLedger, LedgerError, ToolLedger, pauses
from ingest.client import connection as connecting
from ingest.client import sender as sending
from tests.support.answering import Answering, Says
from tests.support.process import eventually
from tests.support.recording import LONG_S, Make, adds_up, call, making, spooled


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as running:
        yield running


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with making(tmp_path / "spool") as made:
        yield made


def test_calls_go_out_in_batches_by_number_size_and_age(server: Answering, make: Make) -> None:
    """A full batch goes at once, a lonely call when its time is over; each once, in order."""
    ledger = make(server, batch_events_max=100, flush_interval_s=0.1)
    ids = call(ledger, 250)
    server.has(250)
    ids += call(ledger, 1)
    server.has(251)
    assert server.ids == ids
    assert max(len(events) for _, events in server.requests) == 100
    big = make(server, batch_bytes_max=20_000, flush_interval_s=LONG_S)
    for _ in range(10):
        big.record("A_TOOL", duration_ms=1, arguments={"text": "x" * 5_000})
    eventually("those of a full batch went", lambda: len(server.accepted) >= 255)
    assert len(server.accepted) < 261
    assert big.flush()
    assert len(server.accepted) == 261
    adds_up(ledger.counts())


def test_bodies_are_compressed_and_name_their_sender(server: Answering, make: Make) -> None:
    """NDJSON, with the key in its header."""
    ledger = make(server)
    call(ledger, 100)
    assert ledger.flush()
    headers = server.headers[0]
    assert headers["content-type"] == "application/x-ndjson"
    assert headers["content-encoding"] in ("zstd", "gzip")
    assert headers["x-api-key"] == "ak_test"
    assert headers["user-agent"].startswith("toolledger-python")
    assert len(server.bodies[0]) < len(json.dumps(server.accepted)) / 4


def test_a_proxy_that_does_not_know_zstd_gets_gzip(server: Answering, make: Make) -> None:
    """415 once, then the compression that everybody knows; nothing is lost."""
    server.script = lambda _: Says(status=415) if server.headers[-1].get("content-encoding") == "zstd" else Says()
    ledger = make(server)
    ids = call(ledger, 100)
    server.has(100)
    assert sorted(server.ids) == sorted(ids)
    assert server.headers[-1]["content-encoding"] == "gzip"


def test_recording_waits_for_nobody(server: Answering, make: Make) -> None:
    """A server that takes half a minute to answer costs a caller nothing."""
    server.script = lambda _: Says(delay_s=LONG_S)
    ledger = make(server)
    began_s = time.monotonic()
    call(ledger, 5_000)
    assert time.monotonic() - began_s < LONG_S / 2
    began_s = time.monotonic()
    assert not ledger.flush(0.1)
    ledger.close(0.1)
    assert time.monotonic() - began_s < LONG_S / 2


def test_what_is_not_taken_is_sent_again_until_it_is(server: Answering, make: Make) -> None:
    """Statuses that pass, connections that break: every call arrives, and is accepted once by its id."""
    answers = iter([Says(status=500), Says(status=429), Says(status=503), Says(status=502)])
    server.script = lambda _: next(answers, Says())
    ledger = make(server)
    ids = call(ledger, 10)
    server.has(10)
    assert sorted(server.ids) == sorted(ids)
    sent = {event["id"] for _, events in server.requests for event in events}
    assert sent == set(ids)


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_names_a_time_is_not_asked_before(server: Answering, make: Make, status: int) -> None:
    """Neither with what it refused nor with anything newer."""
    answers = iter([Says(status=status, headers={"retry-after": "2"})])
    server.script = lambda _: next(answers, Says())
    ledger = make(server)
    call(ledger, 1)
    eventually("it was asked once", lambda: server.requests)
    call(ledger, 5)
    server.has(6)
    assert server.requests[1][0] - server.requests[0][0] >= 2


def test_an_event_that_is_refused_does_not_lose_its_neighbours_and_is_not_sent_again(
    server: Answering, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted, and the log says why."""
    caplog.set_level(logging.INFO, "toolledger")
    refused = {"accepted": 9, "rejected": [{"index": 3, "id": "log_x", "code": "event_too_large", "message": "secret words"}]}
    server.script = lambda _: Says(body=refused)
    ledger = make(server)
    call(ledger, 10)
    assert ledger.flush()
    counts = ledger.counts()
    assert (counts.accepted, counts.rejected) == (9, 1)
    assert len(server.requests) == 1
    assert "event_too_large" in caplog.text
    assert "secret words" not in caplog.text


def test_an_answer_that_was_cut_off_is_asked_for_again(server: Answering, make: Make) -> None:
    """Also one whose length was told, of which the library gives the half without a word."""
    cut = Says(status=200, body=b'{"logs":[', headers={"content-length": "30", "connection": "close"})
    answers = [cut, Says(status=200, body={"logs": [], "next_cursor": None})]
    server.script = lambda _: answers.pop(0)
    assert list(make(server).logs.search()) == []
    assert not answers


def test_an_answer_too_long_to_be_one_of_ours_is_not_asked_for_again(
    server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is whole, and only its beginning was read: what answers there is something else."""
    monkeypatch.setattr(connecting, "_ANSWER_BYTES_MAX", 8)
    answers = [Says(status=200, body=b"<html>and so on</html>")]
    server.script = lambda _: answers.pop(0)
    with pytest.raises(LedgerError, match="something else"):
        list(make(server).logs.search())


def test_a_request_that_can_never_succeed_is_given_up(server: Answering, make: Make) -> None:
    """Counted as refused, and what comes after it is sent."""
    answers = iter([Says(status=422, body=b"no")])
    server.script = lambda _: next(answers, Says())
    ledger = make(server)
    call(ledger, 3)
    assert ledger.flush()
    call(ledger, 2)
    assert ledger.flush()
    counts = ledger.counts()
    assert (counts.rejected, counts.accepted, len(server.requests)) == (3, 2, 2)


def test_a_batch_that_is_too_large_is_halved_until_it_fits(server: Answering, make: Make) -> None:
    """From memory and from disk; one event that is too large for itself is refused alone."""

    def at_most_ten(events: list[dict[str, Any]]) -> Says:
        return Says(status=413) if len(events) > 10 or "huge" in json.dumps(events) else Says()

    down = make()
    ids = call(down, 95)
    down.close(0)
    server.script = at_most_ten
    ledger = make(server)
    ids += call(ledger, 95)
    ledger.record("A_TOOL", duration_ms=1, arguments="huge")
    server.has(190)
    assert sorted(server.ids) == sorted(ids)
    eventually("the huge one is refused", lambda: ledger.counts().rejected == 1)


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_a_key_that_is_not_known_yet_loses_nothing(
    server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Calls wait on disk, without hurry, until it is."""
    monkeypatch.setattr(sending, "_UNWELCOME_S", 0.1)
    server.script = lambda _: Says(status=status, body=b"who are you")
    ledger = make(server)
    ids = call(ledger, 10)
    eventually("it was refused", lambda: len(server.requests) > 2)
    assert ledger.counts().dropped == 0
    server.script = lambda _: Says()
    server.has(10)
    assert sorted(server.ids) == sorted(ids)


def test_closing_does_not_wait_for_a_server_that_is_away(make: Make, tmp_path: Path) -> None:
    """What there is goes to disk at once; a command that runs without a server must not hang at its end."""
    ledger = make(close_timeout_s=LONG_S)
    ids = call(ledger, 10)
    began_s = time.monotonic()
    ledger.close()
    assert time.monotonic() - began_s < LONG_S / 2
    assert sorted(spooled(tmp_path / "spool")) == sorted(ids)


def test_closing_waits_for_a_server_that_asks_to(server: Answering, make: Make) -> None:
    """A short Retry-After is worth waiting for: the disk of a container may end with it."""
    answers = iter([Says(status=503, headers={"retry-after": "1"})])
    server.script = lambda _: next(answers, Says())
    ledger = make(server)
    ids = call(ledger, 10)
    ledger.close(LONG_S)
    assert sorted(server.ids) == sorted(ids)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_a_server_answers_every_call_is_accepted_or_refused_by_it(
    server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random answers, clients that come and go on one folder: none is lost, and what each says it did adds up."""
    monkeypatch.setattr(pauses, "_FIRST_S", 0.01)
    monkeypatch.setattr(sending, "_UNWELCOME_S", 0.05)
    chance = random.Random(seed)
    refused: set[str] = set()
    troubled = True

    def anything(events: list[dict[str, Any]]) -> Says:
        status = chance.choice([202, 202, 400, 401, 413, 429, 500, 503, 302, 200]) if troubled else 202
        if status == 400 or (status == 413 and len(events) == 1):
            # One call that is too large alone is refused; several are tried in halves.
            refused.update(event["id"] for event in events)
            return Says(status=status, body=b"never")
        if status == 202 and troubled:
            some = [event["id"] for event in events if chance.random() < 0.1]
            refused.update(some)
            return Says(body={"accepted": len(events) - len(some), "rejected": [{"id": each, "code": "x"} for each in some]})
        return Says(status=status, body=b"<html>" if status == 200 else None)

    server.script = anything
    ids: list[str] = []
    ledgers = []
    for _ in range(4):
        ledgers = [make(server, batch_events_max=20, spool_bytes_max=1 << 20) for _ in range(2)]
        for _ in range(5):
            for ledger in ledgers:
                ids += call(ledger, chance.randrange(60))
                ledger.flush(0.05)
        for ledger in ledgers:
            ledger.close(chance.choice([0, 0.2]))
            adds_up(ledger.counts())
            assert ledger.counts().dropped == 0
    troubled = False
    last = make(server)
    ids += call(last, 1)
    eventually("each was answered for", lambda: set(ids) <= set(server.ids) | refused)


def test_a_fault_of_ours_costs_at_most_the_batch_it_is_about(
    server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again, given up after a while, told of with its traceback, and others go on."""
    monkeypatch.setattr(pauses, "_FIRST_S", 0.01)
    ledger = make(server)
    exchange = ledger.recorder._delivery._sender._exchange
    send = exchange.send

    def faulty(ndjson: bytes, events: int) -> Any:
        if b"poison" in ndjson:
            raise AssertionError("a fault")
        return send(ndjson, events)

    monkeypatch.setattr(exchange, "send", faulty)
    ledger.record("A_TOOL", duration_ms=1, arguments="poison")
    ledger.flush(5)
    call(ledger, 10)
    server.has(10)
    counts = ledger.counts()
    assert counts.dropped_by_reason == {"internal": 1}
    adds_up(counts)
    assert "Traceback" in caplog.text


def test_thousands_of_threads_record_each_call_once(server: Answering, make: Make) -> None:
    """Two thousand threads, each with calls of its own."""
    ledger = make(server)
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.extend(call(ledger, 5))) for _ in range(2_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.flush(60)
    assert len(set(ids)) == 10_000
    assert sorted(server.ids) == sorted(ids)
    adds_up(ledger.counts())


def test_a_client_that_nobody_holds_any_more_sends_what_it_has_and_ends(server: Answering) -> None:
    """One that is made for each request of a server, say, and never closed: no threads are left."""
    before = threading.active_count()
    for _ in range(5):
        ledger = ToolLedger(api_key="ak_test", base_url=server.url, spool=False, flush_interval_s=LONG_S)
        call(ledger, 3)
        del ledger
    server.has(15)
    eventually("their threads have ended", lambda: threading.active_count() <= before + 5)


async def test_an_async_client_holds_no_loop_up(server: Answering) -> None:
    """Recording, flushing and closing leave the loop to others; it works in a loop and made before one."""
    server.script = lambda _: Says(delay_s=0.3)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with AsyncToolLedger(api_key="ak_test", base_url=server.url, spool=False) as ledger:
        for _ in range(100):
            async with ledger.execution("A_TOOL") as execution:
                execution.result = "done"
        assert await ledger.flush()
    assert ticks > 10
    ticking.cancel()
    assert len(server.ids) == 100
