"""`toolledger mcp` between a client and a stdio server: as if it were not there, but for what it enters into the ledger."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.mcp.endings import server_exited
from ingest.mcp.frames import Frame, Kind, encode, now
from ingest.mcp.setup import Setup
from tests.support.mcp import SERVER, Ledger, Wrapped
from tests.support.process import eventually
from tests.support.recording import spooled

pytestmark = pytest.mark.real
ON_DISK = b"200 calls wait on disk for the ledger; the next run sends them\n"


@pytest.fixture(scope="module")
def ledger(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with Ledger.start(kafka_address, tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest.fixture(scope="module")
def mirror() -> Iterator[Wrapped]:
    """A server that says what it hears, behind a ledger that does not exist."""
    with Wrapped(
        None,
        ["cat"],
        env={"TOOLLEDGER_URL": "http://127.0.0.1:9", "TOOLLEDGER_API_KEY": "k", "TOOLLEDGER_SPOOL": "no"},
        bufsize=0,
    ) as running:
        yield running


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.binary(min_size=1, max_size=300) | st.just(b'{"jsonrpc":"2.0","id":1,'), min_size=1, max_size=8))
def test_what_goes_in_comes_out(mirror: Wrapped, pieces: list[bytes]) -> None:
    """Any bytes, without a line end even, come through at once and unchanged."""
    assert mirror.process.stdout is not None
    for piece in pieces:
        mirror.write(piece)
        back = b""
        while len(back) < len(piece):
            back += mirror.process.stdout.read(len(piece) - len(back))
        assert back == piece


def test_tens_of_megabytes_in_one_line_come_through(mirror: Wrapped) -> None:
    data = os.urandom(1 << 20).replace(b"\n", b" ") * 40 + b"\n"
    writer = threading.Thread(target=mirror.process.stdin.write, args=(data,))  # type: ignore[union-attr]
    writer.start()
    assert mirror.process.stdout is not None
    back = bytearray()
    while len(back) < len(data):
        back += mirror.process.stdout.read(1 << 20)
    writer.join()
    assert bytes(back) == data


def test_every_kind_of_answer_is_recorded(ledger: Ledger) -> None:
    """Results, tool errors, JSON-RPC errors, cancellations, bytes that are no text, and a call that the client left behind."""
    with Wrapped(ledger, SERVER, "--user", "user_1") as wrapped:
        wrapped.send(id=0, method="initialize", params={"clientInfo": {"name": "test", "version": "1"}})
        wrapped.line()
        answers = [wrapped.call(tool, a=1) for tool in ("echo", "fail", "refuse")]
        assert wrapped.call("echo", api_key="s3cr3t")["result"]["structuredContent"] == {"api_key": "s3cr3t"}
        hanging = wrapped.ask("hang")
        wrapped.send(method="notifications/cancelled", params={"requestId": hanging, "reason": "too slow"})
        wrapped.ask("not_utf8")
        assert b"caf\xe9" in wrapped.line()
        wrapped.ask("chatter")
        assert [wrapped.line() for _ in range(4)][:3] == [b"Listening on stdio\n", b"\xff\xfe\n", b"\n"]
        wrapped.ask("hang")
        code, out, error = wrapped.leave()
    assert (code, out, error) == (0, b"", b"")
    events = ledger.await_events(wrapped.session, 8)
    assert events.pop(3)["data"]["request"] == {"api_key": "[redacted]"}
    assert [event["tool_slug"] for event in events] == [
        *("ODD_ECHO", "ODD_FAIL", "ODD_REFUSE", "ODD_HANG", "ODD_NOT_UTF8", "ODD_CHATTER", "ODD_HANG")
    ]
    assert [event["status"] for event in events] == ["success", "failed", "failed", "failed", "success", "success", "failed"]
    assert [event["error"] for event in events if "error" in event] == [
        {"message": "invalid recipient", "type": "tool_error"},
        {"message": "Unknown tool: refuse", "code": -32602},
        {"message": "cancelled by the client: too slow", "type": "cancelled"},
        {"message": "connection closed: the client left before an answer came", "type": "client_gone"},
    ]
    assert events[0]["data"] == {"request": {"a": 1}, "response": answers[0]["result"]}
    assert {event["user_id"] for event in events} == {"user_1"}
    assert {event["metadata"]["mcp.client.name"] for event in events} == {"test"}


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "says"),
    [
        ("exit", {"code": 7}, 7, "exited with code 7"),
        ("abort", {}, 128 + signal.SIGKILL, "was ended by signal 9"),
        ("half_a_line", {}, 3, "exited with code 3"),
    ],
)
def test_a_server_that_dies_under_a_call(ledger: Ledger, tool: str, arguments: dict[str, int], code: int, says: str) -> None:
    """The client sees the end of output and the exit code; the call is a failure that says what happened."""
    with Wrapped(ledger, SERVER) as wrapped:
        wrapped.ask(tool, **arguments)
        # The client still holds our standard input open.
        assert wrapped.process.stdout is not None
        out = wrapped.process.stdout.read()
        assert wrapped.process.wait(60) == code
    assert out == (b'{"jsonrpc":"2.0","id":1,"result":{"con' if tool == "half_a_line" else b"")
    (event,) = ledger.await_events(wrapped.session, 1)
    assert event["error"] == {"message": f"connection closed: the server {says} before it answered", "type": "server_exited"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_server_as_it_would_without_us(ledger: Ledger, number: signal.Signals) -> None:
    with Wrapped(ledger, SERVER) as wrapped:
        wrapped.call("echo")
        wrapped.hold()
        wrapped.process.send_signal(number)
        # Python ends with 1 where it was interrupted by the keyboard and dies of the same signal.
        assert wrapped.process.wait(60) == 128 + number
    events = ledger.await_events(wrapped.session, 2)
    assert [event.get("error", {}).get("type") for event in events] == [None, "interrupted"]


def test_a_server_that_has_its_own_way_to_stop_keeps_it(ledger: Ledger) -> None:
    """It outlives the end of its input, as without us, and its own handler of SIGTERM gives the exit code."""
    with Wrapped(ledger, [*SERVER, "--ignore-end"]) as wrapped:
        wrapped.call("echo")
        assert wrapped.process.stdin is not None
        wrapped.process.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            wrapped.process.wait(0.5)
        wrapped.process.terminate()
        assert wrapped.process.wait(60) == 41


def test_killed_itself_it_leaves_no_server_and_no_call_behind(ledger: Ledger) -> None:
    """SIGKILL to us ends the server too; the recorder still enters what had happened, and that the open call was cut off."""
    with Wrapped(ledger, [*SERVER, "--ignore-end"]) as wrapped:
        wrapped.call("echo")
        wrapped.hold()
        children = psutil.Process(wrapped.process.pid).children(recursive=True)
        assert len(children) == 2
        wrapped.process.kill()
        events = ledger.await_events(wrapped.session, 2)
        assert [event.get("error", {}).get("type") for event in events] == [None, "killed"]
        _, alive = psutil.wait_procs(children, timeout=60)
        assert alive == []


def test_the_servers_standard_error_is_its_own(ledger: Ledger) -> None:
    with Wrapped(ledger, SERVER) as wrapped:
        wrapped.call("say", text="a warning")
        assert wrapped.leave() == (0, b"", b"a warning\n")


def test_a_client_that_stops_reading_is_felt_by_the_server(ledger: Ledger) -> None:
    """Our standard output closed: the server's next word finds nobody, as it would without us."""
    with Wrapped(ledger, SERVER) as wrapped:
        wrapped.call("echo")
        assert wrapped.process.stdout is not None
        wrapped.process.stdout.close()
        wrapped.ask("echo")
        eventually("the server has met a broken pipe", lambda: _asked_again(wrapped))
    assert wrapped.process.returncode not in (0, None)


def _asked_again(wrapped: Wrapped) -> bool:
    try:
        wrapped.ask("echo")
    except BrokenPipeError:
        return wrapped.process.poll() is not None
    return wrapped.process.poll() is not None


def test_a_server_that_leaves_a_process_behind_still_ends(ledger: Ledger) -> None:
    """That process holds the server's output open, and is not waited for."""
    with Wrapped(ledger, SERVER) as wrapped:
        left = int(wrapped.call("leave_a_child")["result"]["content"][0]["text"])
        try:
            assert wrapped.process.wait(60) == 0
        finally:
            os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("kind", ["refuses", "is silent", "says no"])
def test_a_ledger_that_is_away_is_not_felt(kind: str, tmp_path: Path) -> None:
    """Refused, accepted and never answered, or answered with a refusal.

    Calls go on, the end does not wait long for it, and every call comes to lie on disk.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        refusing = threading.Thread(target=_refuse, args=(listening,), daemon=True)
        if kind == "says no":
            refusing.start()
        elif kind == "refuses":
            listening.close()
        port = 9 if kind == "refuses" else listening.getsockname()[1]
        env = {"TOOLLEDGER_URL": f"http://127.0.0.1:{port}", "TOOLLEDGER_API_KEY": "k", "TOOLLEDGER_SPOOL": str(tmp_path)}
        with Wrapped(None, SERVER, env=env) as wrapped:
            for number in range(200):
                assert wrapped.call("echo", n=number)["result"]["structuredContent"] == {"n": number}
            code, _, error = wrapped.leave()
        assert code == 0
        # What is not known within the short wait at the end stays unsaid.
        assert error in (b"", b"toolledger mcp: " + ON_DISK)
        eventually("all calls are on disk", lambda: len(spooled(tmp_path)) == 200)
        if kind == "says no":
            # Ends the wait for the next connection: closed alone, the socket's number could become another one's meanwhile.
            listening.shutdown(socket.SHUT_RDWR)
            refusing.join()


def test_the_recorder_says_what_waits_on_disk(tmp_path: Path) -> None:
    setup = Setup(url="http://127.0.0.1:9", api_key="k", transport="stdio", fallback="x", run_id="run")
    asked = b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"t"}}\n'
    said = b'{"jsonrpc":"2.0","id":%d,"result":{}}\n'
    told = [(Kind.SETUP, msgspec.json.encode(setup))]
    for number in range(200):
        told += [(Kind.CLIENT, asked % number), (Kind.SERVER, said % number)]
    told.append((Kind.END, msgspec.json.encode(server_exited(0))))
    done = subprocess.run(
        [sys.executable, "-m", "ingest.mcp.recorder"],
        input=b"".join(encode(Frame(kind, 0, now(), payload)) for kind, payload in told),
        env={**os.environ, "TOOLLEDGER_SPOOL": str(tmp_path)},
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    )
    assert done.stdout == ON_DISK
    assert len(spooled(tmp_path)) == 200


def _refuse(listening: socket.socket) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


def test_a_recorder_that_dies_is_not_felt(ledger: Ledger) -> None:
    """The traffic goes on, and standard error says that it is not recorded any more."""
    with Wrapped(ledger, SERVER) as wrapped:
        wrapped.call("echo")
        (recorder,) = (
            child for child in psutil.Process(wrapped.process.pid).children() if "ingest.mcp.recorder" in child.cmdline()
        )
        recorder.kill()
        for _ in range(3):
            assert "result" in wrapped.call("large", characters=1_000_000)
        code, _, error = wrapped.leave()
    assert code == 0
    assert b"toolledger mcp: recording has stopped; the traffic goes on without it" in error


def test_a_recorder_that_hangs_costs_records_and_nothing_else(ledger: Ledger) -> None:
    """More than is kept for it passes by while it stands still; how many calls that were is said in the end."""
    with Wrapped(ledger, SERVER) as wrapped:
        wrapped.call("echo")
        (recorder,) = (
            child for child in psutil.Process(wrapped.process.pid).children() if "ingest.mcp.recorder" in child.cmdline()
        )
        recorder.suspend()
        for _ in range(150):
            assert "result" in wrapped.call("large", characters=1_000_000)
        wrapped.ask("hang")
        recorder.resume()
        events = ledger.await_events(wrapped.session, 100)
        code, _, error = wrapped.leave()
    assert code == 0
    assert re.fullmatch(rb"toolledger mcp: at least \d+ calls were not recorded: .*\n", error)
    assert {event["status"] for event in events} == {"success"}


def test_a_client_that_never_reads_does_not_keep_us(ledger: Ledger) -> None:
    """The server is gone, its last words are stuck: a signal ends us."""
    with Wrapped(ledger, SERVER) as wrapped:
        wrapped.call("echo")
        # More than all pipes on the way hold.
        wrapped.ask("large", characters=1_000_000)
        server = next(child for child in psutil.Process(wrapped.process.pid).children() if SERVER[1] in child.cmdline())
        server.kill()
        eventually("the server is gone", lambda: not psutil.pid_exists(server.pid))
        wrapped.process.terminate()
        # By the server's end, or by the signal itself where it had just seen that.
        assert wrapped.process.wait(60) in (128 + signal.SIGKILL, -signal.SIGTERM)


def test_modules_of_the_users_folder_are_not_ours(ledger: Ledger, tmp_path: Path) -> None:
    """A server is started in a project's folder, which may hold a module of any name."""
    for name in ("secrets.py", "msgspec.py"):
        (tmp_path / name).write_text("raise SystemExit('shadowed')")
    command = [sys.executable, "-P", "-m", "deploy.cli.main", "mcp", "--session", "shadowed", "--", "cat"]
    env = {**os.environ, "TOOLLEDGER_URL": ledger.url, "TOOLLEDGER_API_KEY": ledger.key}
    request = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}\n'
    done = subprocess.run(command, cwd=tmp_path, env=env, input=request, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, request, b"")
    assert len(ledger.await_events("shadowed", 1)) == 1


def test_wrong_use_is_said_before_anything_is_started(ledger: Ledger) -> None:
    with Wrapped(ledger, ["no-such-command"]) as wrapped:
        code, out, error = wrapped.leave()
    assert (code, out) == (2, b"")
    assert error == (b"toolledger: cannot start 'no-such-command': No such file or directory; check the server's command\n")
