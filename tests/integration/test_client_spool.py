"""Calls on disk while no server takes them: they survive the process, count once, and their bounds hold."""

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.client import sender as sending
from ingest.client import spool as spooling
from ingest.client.frames import pack
from tests.support.answering import Answering, Says
from tests.support.ports import free_port
from tests.support.process import eventually
from tests.support.recording import Make, adds_up, call, making, spooled


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as running:
        yield running


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with making(tmp_path / "spool") as made:
        yield made


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


def test_calls_of_a_closed_client_go_to_disk(server: Answering, make: Make, tmp_path: Path) -> None:
    """Exit handlers that run later than ours may record, too."""
    ledger = make(server)
    call(ledger, 1)
    ledger.close()
    ids = call(ledger, 3)
    assert sorted(spooled(tmp_path / "spool")) == sorted(ids)
    adds_up(ledger.counts())


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
