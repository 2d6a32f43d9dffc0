"""From the caller to a server that is slow, refuses, breaks off or is away: nobody waits, nothing is lost unsaid."""

import asyncio
import gzip
import json
import logging
import os
import random
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ingest.client import AsyncToolLedger, ConfigurationError, Counts, LedgerError, ToolLedger, pauses
from ingest.client import connection as connecting
from ingest.client import sender as sending
from ingest.client import spool as spooling
from ingest.client.frames import pack
from tests.support.answering import Answering, Says
from tests.support.ports import free_port
from tests.support.process import eventually

# Longer than any test is to take: what must not wait for it would be seen to.
LONG_S = 30.0


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as running:
        yield running


Make = Callable[..., ToolLedger]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make clients that are closed at the end of the test; without a server's address one that nobody listens at."""
    made: list[ToolLedger] = []

    def client(server: Answering | str | None = None, **options: Any) -> ToolLedger:
        url = server.url if isinstance(server, Answering) else server or f"http://127.0.0.1:{free_port()}"
        options = {"spool": tmp_path / "spool", "flush_interval_s": 0.02, "close_timeout_s": 1, **options}
        made.append(ToolLedger(api_key="ak_test", base_url=url, **options))
        return made[-1]

    yield client
    for each in made:
        each.close(0)


def call(ledger: ToolLedger, count: int = 1, **labels: Any) -> list[str]:
    """Record calls, and return their ids."""
    return [ledger.record("A_TOOL", duration_ms=1, arguments={"n": number}, **labels) for number in range(count)]


def adds_up(counts: Counts) -> None:
    """Each call is in one place."""
    own = counts.dropped - counts.dropped_by_reason.get("damaged", 0)
    assert counts.recorded == counts.accepted + counts.rejected + counts.spooled + own + counts.waiting, counts


def spooled(folder: Path) -> list[str]:
    """Ids in the files of a folder."""
    lines = [line for path in sorted(folder.glob("*.gz")) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [json.loads(line)["id"] for line in lines]


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


def test_what_waits_behind_a_slow_answer_is_put_to_disk(
    server: Answering, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill may take what is in memory: an answer that takes long must not let it grow."""
    monkeypatch.setattr(sending, "_SLOW_S", 0.05)
    server.script = lambda _: Says(delay_s=3)
    ledger = make(server)
    call(ledger, 10)
    eventually("a request is under way", lambda: server.requests)
    eventually("more calls went to disk", lambda: call(ledger) and ledger.counts().spooled > 0)
    assert spooled(tmp_path / "spool")
    server.script = lambda _: Says()
    total = ledger.counts().recorded
    server.has(total)
    adds_up(ledger.counts())


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


def left_behind(tmp_path: Path) -> Path:
    """A call that a process of years ago put to disk."""
    folder = tmp_path / "spool"
    folder.mkdir()
    old = folder / "0000000000001-1-aa.ndjson.gz"
    old.write_bytes(pack(b'{"id":"old"}', 1).body)
    os.utime(old, (1, 1))
    return old


def test_what_a_server_refuses_for_a_day_is_dropped_and_counted(
    server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is tried for ever, but for all of that time."""
    old = left_behind(tmp_path)
    monkeypatch.setattr(sending, "_UNWELCOME_S", 0.1)
    monkeypatch.setattr(sending, "_REFUSED_S_MAX", 1.0)
    server.script = lambda _: Says(status=401, body=b"no")
    began = time.monotonic()
    ledger = make(server)
    call(ledger)
    # The client's own call is as old as that soon after.
    eventually("it was given up", lambda: ledger.counts().dropped_by_reason.get("refused_for_too_long", 0) >= 1)
    assert time.monotonic() - began > 1.0
    assert len(server.requests) > 2
    assert not old.exists()


def test_an_old_call_is_not_dropped_for_refusals_of_a_moment(
    server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After a weekend without a network a proxy answers first, or a server that does not know its keys yet; again and again."""
    left_behind(tmp_path)
    monkeypatch.setattr(sending, "_UNWELCOME_S", 0.1)
    monkeypatch.setattr(sending, "_BACKOFF_S_MAX", 0.1)
    monkeypatch.setattr(sending, "_REFUSED_S_MAX", 1.0)
    settled_s = time.monotonic() + 3
    server.script = lambda _: Says(status=202 if time.monotonic() > settled_s else (401, 503)[len(server.requests) % 2])
    ledger = make(server)
    ids = call(ledger)
    eventually("both were taken", lambda: sorted(server.ids) == sorted(["old", *ids]))
    assert ledger.counts().dropped == 0


def test_calls_survive_the_process_and_are_sent_by_the_next(server: Answering, make: Make, tmp_path: Path) -> None:
    """Away: to disk, readable by nobody else, and by any gzip; back: sent, each once, and the files are gone."""
    first = make()
    ids = call(first, 500)
    eventually("they are on disk", lambda: first.counts().spooled == 500)
    first.close()
    folder = tmp_path / "spool"
    assert sorted(spooled(folder)) == sorted(ids)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    second = make(server)
    ids += call(second, 1)
    server.has(501)
    eventually("the files are gone", lambda: not list(folder.iterdir()))
    assert sorted(server.ids) == sorted(ids)
    counts = second.counts()
    assert (counts.recorded, counts.accepted, counts.recovered) == (1, 1, 500)


def test_a_client_sends_its_own_file_when_the_server_comes_back(make: Make, tmp_path: Path) -> None:
    """Without a restart of anything, and without an end of calls."""
    port = free_port()
    ledger = make(f"http://127.0.0.1:{port}")
    ids = call(ledger, 300)
    eventually("they are on disk", lambda: ledger.counts().spooled == 300)
    with Answering(port=port) as server:
        ids += call(ledger, 50)
        server.has(350)
        assert sorted(set(server.ids)) == sorted(ids)
        eventually("the files are gone", lambda: not list((tmp_path / "spool").iterdir()))
        adds_up(ledger.counts())
        ledger.close()


def test_torn_and_damaged_files_cost_what_is_damaged_and_no_more(server: Answering, make: Make, tmp_path: Path) -> None:
    """A file cut within a batch, one of zeros, an empty one, one that is no file of ours: the rest is sent."""
    folder = tmp_path / "spool"
    folder.mkdir()
    good = [pack(json.dumps({"id": f"log_{number}"}).encode(), 1).body for number in range(3)]
    (folder / "0000000000001-1-aa.ndjson.gz").write_bytes(b"".join(good)[:-7])
    (folder / "0000000000002-1-bb.ndjson.gz").write_bytes(bytes(4096) + good[2])
    (folder / "0000000000003-1-cc.ndjson.gz").write_bytes(b"")
    (folder / "0000000000004-1-dd.ndjson.gz").write_bytes(b"hello")
    (folder / "notes.txt").write_bytes(b"a neighbour")
    (folder / "0000000000005-1-ee.ndjson.gz").mkdir()
    ledger = make(server)
    call(ledger)
    server.has(4)
    assert {"log_0", "log_1", "log_2"} < set(server.ids)
    eventually("the files are gone", lambda: len(list(folder.iterdir())) == 2)
    assert (folder / "notes.txt").exists()
    assert ledger.counts().dropped_by_reason == {"damaged": 1}


def test_a_file_that_a_living_process_holds_is_left_alone(server: Answering, make: Make, tmp_path: Path) -> None:
    """Its own process sends it; once it ends, whoever comes does."""
    script = (
        "import sys, time\n"
        "from ingest.client import ToolLedger\n"
        f"ledger = ToolLedger(api_key='ak_test', base_url='http://127.0.0.1:{free_port()}', spool=sys.argv[1])\n"
        "ledger.record('A_TOOL', duration_ms=1, log_id='theirs')\n"
        "while not ledger.counts().spooled: time.sleep(0.01)\n"
        "print('ready', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "spool")], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        ledger = make(server)
        call(ledger)
        server.has(1)
        eventually("it has looked at the folder", lambda: not ledger.recorder._delivery._sender._spool_due)
        assert "theirs" not in server.ids
    finally:
        other.kill()
        other.wait()
    last = make(server)
    call(last)
    eventually("it was sent", lambda: "theirs" in server.ids)


def test_many_clients_share_a_folder(server: Answering, make: Make) -> None:
    """All of it is sent, whoever gets at what."""
    away = [make() for _ in range(4)]
    ids = [each for ledger in away for each in call(ledger, 100)]
    for ledger in away:
        ledger.close(0)
    threads = [threading.Thread(target=call, args=(make(server),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    server.has(404)
    assert set(ids) <= set(server.ids)


def test_memory_and_disk_are_bounded_and_what_is_beyond_is_counted(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The folder keeps to its size, memory to its own; then calls are dropped, with a line in the log, and nobody waits."""
    ledger = make(spool_bytes_max=20_000, memory_bytes_max=200_000, batch_events_max=20)
    for _ in range(3_000):
        ledger.record("A_TOOL", duration_ms=1, arguments={"noise": os.urandom(300).hex()})
    eventually("the drops are told of", lambda: "memory is full" in caplog.text)
    counts = ledger.counts()
    assert counts.dropped_by_reason["memory_full"] > 0
    assert counts.spooled > 0
    assert ledger.recorder._delivery._inbox.held_bytes <= 200_000
    assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) <= 20_000
    adds_up(counts)
    ledger.close(0)
    closed = ledger.counts()
    assert closed.waiting == 0
    assert closed.dropped_by_reason["closed"] > 0
    adds_up(closed)


@pytest.mark.parametrize("broken", ["a file where the folder should be", "no right", "full"])
def test_a_disk_that_takes_nothing_is_told_of_and_memory_goes_on(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Never an exception to the caller; when the server comes back all of it is sent from memory."""
    folder = tmp_path / "spool"
    if broken == "a file where the folder should be":
        folder.write_text("")
    elif broken == "no right":
        folder = Path("/proc/no/such/place")
    else:

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        folder.mkdir()
        monkeypatch.setattr(spooling.os, "write", full)
    port = free_port()
    ledger = make(f"http://127.0.0.1:{port}", spool=folder)
    ids = call(ledger, 20)
    eventually("the log says so", lambda: "cannot be kept on disk" in caplog.text)
    with Answering(port=port) as server:
        server.has(20)
        assert sorted(server.ids) == sorted(ids)
        ledger.close()


def test_a_disk_that_fills_up_within_a_batch_leaves_whole_batches(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a batch is taken back."""
    folder = tmp_path / "spool"
    write, left = os.write, [1_500]

    def filling(descriptor: int, data: bytes) -> int:
        if not left[0]:
            raise OSError(28, "No space left on device")
        written = write(descriptor, data[: left[0]])
        left[0] -= written
        return written

    monkeypatch.setattr(spooling.os, "write", filling)
    ledger = make(batch_events_max=5)
    for _ in range(40):
        ledger.record("A_TOOL", duration_ms=1, arguments={"noise": os.urandom(40).hex()})
    eventually("the disk is full", lambda: not left[0])
    ledger.close(0)
    assert len(spooled(folder)) == ledger.counts().spooled > 0


def test_without_a_folder_calls_wait_in_memory(make: Make) -> None:
    """And are dropped, counted and told of, only when the client ends."""
    ledger = make(spool=False)
    call(ledger, 10)
    assert not ledger.flush(0.2)
    assert ledger.counts().waiting == 10
    ledger.close(0)
    assert ledger.counts().dropped_by_reason == {"closed": 10}


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


def test_calls_of_a_closed_client_go_to_disk(server: Answering, make: Make, tmp_path: Path) -> None:
    """Exit handlers that run later than ours may record, too."""
    ledger = make(server)
    call(ledger, 1)
    ledger.close()
    ids = call(ledger, 3)
    assert sorted(spooled(tmp_path / "spool")) == sorted(ids)
    adds_up(ledger.counts())


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


def test_a_file_claimed_at_the_moment_of_closing_is_let_go(
    server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was closed while its thread looked at the folder keeps nothing from those that come after it."""
    server.script = lambda _: Says(status=503)
    first = make(server, batch_events_max=1)
    ids = call(first, 3)
    first.close(0)
    claimed, closed = threading.Event(), threading.Event()
    claim = spooling.Spool.claim

    def slowly(spool: spooling.Spool) -> spooling.Segment | None:
        found = claim(spool)
        if found is not None:
            claimed.set()
            assert closed.wait(60)
        return found

    monkeypatch.setattr(spooling.Spool, "claim", slowly)
    second = make(server)
    ids += call(second, 1)
    assert claimed.wait(60)
    second.close(0)
    closed.set()
    server.script = lambda _: Says()
    last = make(server)
    ids += call(last, 1)
    eventually("each was accepted", lambda: set(ids) <= set(server.ids))


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


def test_secrets_leave_neither_by_wire_nor_by_disk_nor_by_log(
    server: Answering, make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name and by look, in arguments, results and errors; payloads are in the log only where asked for."""
    monkeypatch.setenv("TOOLLEDGER_LOG_PAYLOADS", "yes")
    caplog.set_level(logging.DEBUG, "toolledger")
    away = make(spool=tmp_path / "away")
    for ledger in (make(server), away):
        with ledger.execution("A_TOOL", arguments={"password": "hunter2-secret"}) as execution:
            execution.result = {"headers": {"Authorization": "Bearer hunter2-secret"}}
            execution.fail(RuntimeError("refused: Bearer hunter2-secret"))
        ledger.flush(1)
    away.close(0)
    everything = json.dumps(server.accepted) + caplog.text
    everything += "".join(gzip.decompress(path.read_bytes()).decode() for path in (tmp_path / "away").iterdir())
    assert "A_TOOL" in caplog.text
    assert everything.count("[redacted]") >= 6
    assert "hunter2" not in everything
    assert "ak_test" not in caplog.text


def test_own_names_and_patterns_are_redacted_too(server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """By argument or setting; one that cannot be used is told of when the client is made."""
    monkeypatch.setenv("TOOLLEDGER_REDACT_NAMES", "colour")
    ledger = make(server, redact_patterns=["staff-[0-9]+"])
    ledger.record("A_TOOL", duration_ms=1, arguments={"colour": "red", "text": "ask staff-123"}, user_id="staff-9")
    assert ledger.flush()
    (event,) = server.accepted
    assert event["data"]["request"]["payload"] == {"colour": "[redacted]", "text": "ask [redacted]"}
    # What names a call and places it is no payload.
    assert event["user_id"] == "staff-9"
    with pytest.raises(ConfigurationError, match="pattern 1"):
        make(server, redact_patterns=["("])


def test_calls_that_cannot_be_looked_through_go_without_what_may_be_secret(
    server: Answering, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in redaction costs the payload, not the count."""
    ledger = make(server)

    def fails(event: bytes) -> bytes:
        if b"odd" in event:
            raise RuntimeError
        return event

    monkeypatch.setattr(ledger.recorder._delivery, "_redact", fails)
    ledger.record("A_TOOL", duration_ms=1, arguments="odd", error="odd", metadata={"a": "odd"}, user_id="u")
    call(ledger)
    assert ledger.flush()
    odd, even = server.accepted
    assert (odd["status"], odd["user_id"], "data" in odd, "metadata" in odd) == ("failed", "u", False, False)
    assert "data" in even
