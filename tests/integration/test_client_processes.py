"""Processes that end, die and fork, as programs, servers with workers and pools do: each call counts once."""

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.answering import Answering, Says
from tests.support.process import eventually

ROOT = Path(__file__).parents[2]

Start = Callable[..., subprocess.Popen[bytes]]

# What each program begins with: a client whose calls would wait for a minute if nothing sent them.
_PREAMBLE = """
import atexit, multiprocessing, os, signal, sys, threading, time
from ingest.client import ToolLedger

def make():
    return ToolLedger(api_key="ak_test", base_url=sys.argv[1], spool=sys.argv[2], flush_interval_s=60, close_timeout_s=20)

def say(text):
    os.write(1, text.encode() + b"\\n")

def call(ledger, log_id):
    ledger.record("A_TOOL", duration_ms=1, log_id=log_id)
"""


@pytest.fixture
def server() -> Iterator[Answering]:
    with Answering() as running:
        yield running


@pytest.fixture
def start(server: Answering, tmp_path: Path) -> Iterator[Start]:
    """Start programs, which are killed at the end of the test where they are still there."""
    started: list[subprocess.Popen[bytes]] = []

    def program(body: str, *, url: str | None = None) -> subprocess.Popen[bytes]:
        path = tmp_path / f"program_{len(started)}.py"
        path.write_text(_PREAMBLE + textwrap.dedent(body))
        process = subprocess.Popen(
            [sys.executable, str(path), url or server.url, str(tmp_path / "spool")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield program
    for process in started:
        process.kill()
        process.wait()


def said(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == line + b"\n"


def spooled(folder: Path) -> list[str]:
    lines = [line for path in sorted(folder.glob("*.gz")) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return [json.loads(line)["id"] for line in lines]


def test_a_program_that_ends_sends_what_it_recorded(server: Answering, start: Start, tmp_path: Path) -> None:
    """At its end, by an exception, and by sys.exit; also what exit handlers record that run after ours, by way of the disk."""
    assert start("ledger = make(); call(ledger, 'one'); raise SystemExit(3)").wait(60) == 3
    program = start(
        """
        atexit.register(lambda: call(ledger, "handler before"))
        ledger = make()
        atexit.register(lambda: call(ledger, "handler after"))
        call(ledger, "two")
        """
    )
    assert program.wait(60) == 0
    assert sorted(server.ids) == ["handler after", "one", "two"]
    assert spooled(tmp_path / "spool") == ["handler before"]


def test_a_client_that_first_records_in_an_exit_handler_still_sends(server: Answering, start: Start, tmp_path: Path) -> None:
    """Where no thread can be started any more (Python 3.12), its last moment does the work."""
    program = start("ledger = make(); atexit.register(lambda: call(ledger, 'late'))")
    assert program.wait(60) == 0
    assert server.ids + spooled(tmp_path / "spool") == ["late"]


def test_a_program_without_a_handler_dies_of_sigterm_after_sending(server: Answering, start: Start) -> None:
    """With the status of one that died of it, so that supervisors see what they always saw."""
    program = start("ledger = make(); call(ledger, 'one'); say('ready'); time.sleep(60)")
    said(program, b"ready")
    program.terminate()
    assert program.wait(60) == -signal.SIGTERM
    assert server.ids == ["one"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_programs_own_handler_of_sigterm_stays_its_own(server: Answering, start: Start, when: str) -> None:
    """Set before or after the client was made: it is called, alone, and decides how the program ends."""
    program = start(
        f"""
        def handler(number, frame):
            say("handled")
            raise SystemExit(7)
        if "{when}" == "before":
            signal.signal(signal.SIGTERM, handler)
        ledger = make()
        if "{when}" == "after":
            signal.signal(signal.SIGTERM, handler)
        assert signal.getsignal(signal.SIGTERM) is handler
        call(ledger, "one")
        say("ready")
        time.sleep(60)
        """
    )
    said(program, b"ready")
    program.terminate()
    said(program, b"handled")
    assert program.wait(60) == 7
    assert server.ids == ["one"]


def test_sigterm_in_the_midst_of_recording_loses_nothing(server: Answering, start: Start, tmp_path: Path) -> None:
    """The signal may interrupt any line of ours, within any lock of ours: twenty programs that do nothing but record."""
    programs = [
        start(
            f"""
            ledger = make()
            say("ready")
            number = 0
            while True:
                say(str(number))
                call(ledger, "{which}-" + str(number))
                number += 1
            """
        )
        for which in range(5)
    ]
    began: dict[int, int] = {}
    for which, program in enumerate(programs):
        assert program.stdout is not None
        said(program, b"ready")
        for _ in range(200):
            last = program.stdout.readline()
        program.terminate()
        for line in program.stdout:
            last = line
        assert program.wait(60) == -signal.SIGTERM
        began[which] = int(last)
    arrived = set(server.ids) | set(spooled(tmp_path / "spool"))
    for which, last_begun in began.items():
        # All that was recorded before the last one, which the signal may have come before.
        assert {f"{which}-{number}" for number in range(last_begun)} <= arrived


@pytest.mark.parametrize("busy", ["ledger.counts()", "ledger.flush(1)"])
def test_sigterm_ends_a_program_whatever_of_ours_it_is_in(server: Answering, start: Start, busy: str) -> None:
    """No lock that the interrupted line holds keeps the signal's work from its end."""
    for _ in range(3):
        program = start(
            f"""
            ledger = ToolLedger("ak_test", sys.argv[1], spool=sys.argv[2], flush_interval_s=0, close_timeout_s=5)
            def record():
                while True:
                    ledger.record("A_TOOL", duration_ms=1)
                    time.sleep(0.001)
            threading.Thread(target=record, daemon=True).start()
            say("ready")
            while True:
                {busy}
            """
        )
        said(program, b"ready")
        server.has(len(server.ids) + 20)
        program.terminate()
        assert program.wait(60) == -signal.SIGTERM


def test_a_killed_program_leaves_what_it_had_put_to_disk(server: Answering, start: Start) -> None:
    """While the server is away every call is on disk within moments; the next program sends what a kill -9 left, once."""
    away = start(
        """
        ledger = ToolLedger(api_key="ak_test", base_url=sys.argv[1], spool=sys.argv[2], flush_interval_s=0.05)
        for number in range(1000):
            call(ledger, str(number))
        while ledger.counts().spooled < 1000:
            time.sleep(0.01)
        say("ready")
        time.sleep(60)
        """,
        url="http://127.0.0.1:9",
    )
    said(away, b"ready")
    away.kill()
    away.wait()
    following = start("ledger = make(); call(ledger, 'next'); ledger.flush(); say('sent'); time.sleep(60)")
    said(following, b"sent")
    server.has(1001)
    assert sorted(server.ids) == sorted(["next", *map(str, range(1000))])


def test_a_killed_sender_of_a_file_is_followed_by_another(server: Answering, start: Start, tmp_path: Path) -> None:
    """The lock ends with its process; what had been sent already counts once by its id."""
    away = start(
        "ledger = make()\nfor number in range(50): call(ledger, str(number))\nledger.close()", url="http://127.0.0.1:9"
    )
    assert away.wait(60) == 0
    server.script = lambda _: Says(delay_s=20)
    stuck = start("ledger = make(); call(ledger, 'a'); ledger.flush(0.1); time.sleep(60)")
    eventually("it is sending the file", lambda: any(len(events) == 50 for _, events in server.requests))
    stuck.kill()
    stuck.wait()
    server.script = lambda _: Says()
    start("ledger = make(); call(ledger, 'b'); ledger.flush(); time.sleep(60)")
    eventually("all of the file came", lambda: {*map(str, range(50)), "b"} <= set(server.ids))
    eventually("the file is gone", lambda: not list((tmp_path / "spool").iterdir()))


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os._exit(0)", "ledger.close(); os._exit(0)"])
def test_a_forked_child_records_for_itself(server: Answering, start: Start, ending: str) -> None:
    """What waited in the parent is the parent's; ids never repeat; a child that breaks off loses its own last moment."""
    program = start(
        f"""
        ledger = make()
        call(ledger, "parent before")
        child = os.fork()
        if not child:
            ids = [ledger.record("A_TOOL", duration_ms=1) for _ in range(100)]
            call(ledger, "child")
            {ending}
        os.waitpid(child, 0)
        ids = [ledger.record("A_TOOL", duration_ms=1) for _ in range(100)]
        call(ledger, "parent after")
        """
    )
    assert program.wait(60) == 0
    named = [each for each in server.ids if not each.startswith("log_")]
    random = [each for each in server.ids if each.startswith("log_")]
    lost = ending == "os._exit(0)"
    assert sorted(named) == ["parent after", "parent before"] if lost else ["child", "parent after", "parent before"]
    assert len(set(random)) == len(random) == (100 if lost else 200)


def test_a_fork_while_other_threads_record_does_not_hang(server: Answering, start: Start) -> None:
    """Locks that others held at the fork are not the child's."""
    program = start(
        """
        ledger = make()
        stopping = False
        def busy():
            while not stopping:
                ledger.record("A_TOOL", duration_ms=1)
        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        children = []
        for number in range(20):
            child = os.fork()
            if not child:
                call(ledger, f"child {number}")
                ledger.close()
                os._exit(0)
            children.append(child)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
        stopping = True
        for thread in threads:
            thread.join()
        """
    )
    assert program.wait(120) == 0
    assert {f"child {number}" for number in range(20)} <= set(server.ids)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_send_at_their_end(server: Answering, start: Start, method: str) -> None:
    """They end without the interpreter's exit handlers; a client may also be passed to them."""
    program = start(
        f"""
        def work(ledger, number):
            call(ledger, f"child {{number}}")

        if __name__ == "__main__":
            ledger = make()
            call(ledger, "parent")
            context = multiprocessing.get_context("{method}")
            children = [context.Process(target=work, args=(ledger, number)) for number in range(3)]
            for child in children:
                child.start()
            for child in children:
                child.join()
                assert child.exitcode == 0
        """
    )
    assert program.wait(60) == 0
    assert sorted(server.ids) == ["child 0", "child 1", "child 2", "parent"]


def test_a_pool_that_is_closed_loses_nothing(server: Answering, start: Start) -> None:
    """Its workers come to their end."""
    program = start(
        """
        ledger = make()

        def work(number):
            call(ledger, str(number))

        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(3) as pool:
                pool.map(work, range(50))
                pool.close()
                pool.join()
        """
    )
    assert program.wait(60) == 0
    assert sorted(server.ids) == sorted(map(str, range(50)))


def test_a_pool_that_is_terminated_is_not_held_up(start: Start) -> None:
    """`with Pool()` ends its workers by SIGTERM and waits for them without end: the signal takes its usual course in them."""
    program = start(
        """
        ledger = make()

        def work(number):
            call(ledger, str(number))
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

        if __name__ == "__main__":
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
            with multiprocessing.get_context("fork").Pool(3) as pool:
                pool.map(work, range(50))
        """
    )
    assert program.wait(60) == 0


def test_a_forked_child_without_a_handler_dies_of_sigterm_after_sending(server: Answering, start: Start) -> None:
    """One that is nobody's pool worker is a program like any other."""
    program = start(
        """
        ledger = make()
        child = os.fork()
        if not child:
            call(ledger, "child")
            say("ready")
            time.sleep(60)
        assert os.waitpid(child, 0)[1] == signal.SIGTERM
        """.replace("        assert", "        time.sleep(1); os.kill(child, signal.SIGTERM)\n        assert")
    )
    said(program, b"ready")
    assert program.wait(60) == 0
    assert server.ids == ["child"]


def test_a_client_in_a_subprocess_of_a_subprocess_is_its_own(server: Answering, start: Start, tmp_path: Path) -> None:
    """Files of the spool are not inherited by programs that are started: their locks would outlive us."""
    program = start(
        """
        import subprocess
        ledger = ToolLedger(api_key="ak_test", base_url="http://127.0.0.1:9", spool=sys.argv[2], flush_interval_s=0.01)
        call(ledger, "one")
        while not ledger.counts().spooled:
            time.sleep(0.01)
        sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
        say(str(sleeper.pid))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert program.stdout is not None
    sleeper = int(program.stdout.readline())
    program.wait()
    try:
        start("ledger = make(); call(ledger, 'two'); ledger.flush(); time.sleep(60)")
        server.has(2)
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_nothing_of_the_client_keeps_a_program_alive_or_speaks(start: Start) -> None:
    """A program that made one and recorded nothing ends at once and in silence."""
    program = start("ledger = make()")
    assert program.wait(60) == 0
    assert program.stdout is not None
    assert program.stdout.read() == b""
