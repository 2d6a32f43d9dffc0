"""Pieces of the supervisor: ports, log lines, log files, folders, locks."""

import json
import os
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Final

import pytest

from deploy.embedded import stack_ports, stack_process
from deploy.embedded.process import FolderLock, cache_folder, ensure_folder, free_port, require_free_port
from deploy.embedded.stack_parts import Part, ingest_part, query_part, reachable, worker_part
from deploy.embedded.stack_process import BoundedLog, PartProcess, answers, important_line
from ingest.contract.errors import ConfigurationError


def test_inner_ports_are_remembered(tmp_path: Path) -> None:
    public = free_port()
    first = stack_ports.choose(tmp_path, public, 2)
    assert len({public, first.kafka, first.clickhouse, first.query, *first.workers}) == 6
    assert stack_ports.choose(tmp_path, free_port(), 2) == first


def test_a_remembered_port_that_another_program_took_is_replaced(tmp_path: Path) -> None:
    public = free_port()
    first = stack_ports.choose(tmp_path, public, 1)
    with socket.create_server(("127.0.0.1", first.kafka)):
        second = stack_ports.choose(tmp_path, public, 1)
    assert second.kafka != first.kafka
    assert (second.clickhouse, second.query) == (first.clickhouse, first.query)


@pytest.mark.parametrize("content", ["", "nonsense", "[]", '{"kafka":"x"}'])
def test_a_broken_memory_of_ports_is_no_obstacle(tmp_path: Path, content: str) -> None:
    (tmp_path / "ports.json").write_text(content)
    assert stack_ports.choose(tmp_path, free_port(), 1).kafka > 0


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"event":"ready","level":"info"}', ""),
        ('{"event":"kafka_lost","level":"warning","error":"gone"}', "kafka_lost error=gone"),
        ('{"event":"broke","level":"error"}', "broke"),
        ('{"event":', None),
        ("fetching Kafka: 8 of 46 files", "fetching Kafka: 8 of 46 files"),
        ("Kafka 4.3.1 ready at 127.0.0.1:9092", ""),
    ],
)
def test_people_see_warnings_errors_and_progress_of_a_part_and_nothing_else(line: str, shown: str | None) -> None:
    assert important_line(line) == shown


def test_a_log_never_takes_more_than_twice_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_process, "LOG_BYTES_MAX", 100)
    log = BoundedLog(tmp_path / "part.log")
    for number in range(50):
        log.write(b"%09d\n" % number)
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.log", "part.log.1"]
    text = (tmp_path / "part.log.1").read_bytes() + (tmp_path / "part.log").read_bytes()
    assert len(text) <= 200 + 10
    assert text.endswith(b"000000049\n")


def test_a_full_disk_leaves_lines_out_of_a_log_and_stops_nothing(tmp_path: Path) -> None:
    """The part goes on being read and watched; when there is room again its log goes on."""
    (tmp_path / "part.log").symlink_to("/dev/full")
    log = BoundedLog(tmp_path / "part.log")
    for _ in range(3):
        log.write(b"x" * 100_000)
    log.close()


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


async def test_whoever_answers_at_a_parts_port_is_not_taken_for_the_part(tmp_path: Path) -> None:
    """Two stacks that start at once may choose the same port; of the slower one's, requests would go to the other."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        part = query_part(other.server_port, {})
        assert await answers(part)
        process = PartProcess(part, logs=tmp_path, say=print)
        process.start()
        with pytest.raises(ConfigurationError, match=rf"query: another program took port {other.server_port}.*start again"):
            await process.wait_ready()
        await process.stop()
        other.shutdown()


# Run as root; everything is loaded before it becomes somebody else, who may not be let in here.
_AS_NOBODY: Final = """
import os, sys
from pathlib import Path
from deploy.embedded import stack_ports
from deploy.embedded.process import FolderLock, free_port
from deploy.embedded.stack_process import BoundedLog
from ingest.contract.errors import ConfigurationError
path = Path(sys.argv[1])
tries = {
    "stack.lock": lambda: FolderLock(path, owner="us"),
    "ports.json": lambda: stack_ports.choose(path.parent, free_port(), 1),
    "part.log": lambda: BoundedLog(path),
}
os.setuid(65534)
try:
    tries[path.name]()
except ConfigurationError as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root has files that another user cannot write, and can be that user")
@pytest.mark.parametrize("name", ["stack.lock", "ports.json", "part.log"])
def test_a_file_of_another_user_is_one_line_that_names_him(name: str) -> None:
    """A folder that may be written, with a file in it that may not, as a start as root leaves it behind."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        path = Path(folder) / name
        path.touch(0o644)
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, str(path)], capture_output=True, text=True, timeout=60, check=False
        )
    said = f"{path} belongs to user root and cannot be written: start as that user, or choose another folder with --data\n"
    assert done.stdout == said, done.stderr


def test_a_folder_has_one_owner_and_the_next_one_is_told_who(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "lock", owner="toolledger up")
    with pytest.raises(ConfigurationError, match=rf"is in use by toolledger up \(pid {os.getpid()}\).*--data") as caught:
        FolderLock(tmp_path / "lock", owner="another")
    assert "\n" not in str(caught.value)
    lock.release()
    FolderLock(tmp_path / "lock", owner="another").release()


def test_a_port_in_use_is_one_line_that_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 is in use.*--port"):
            require_free_port("127.0.0.1", port)


def test_a_host_that_is_not_of_this_machine_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--host"):
        require_free_port("192.0.2.1", 0)


def test_a_folder_that_is_a_file_or_below_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError, match="--data"):
            ensure_folder(path)


def test_a_disk_without_room_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.embedded.process.FREE_BYTES_MIN", 1 << 62)
    with pytest.raises(ConfigurationError, match="free some disk space"):
        ensure_folder(tmp_path)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TOOLLEDGER_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/toolledger"),
        ({"HOME": "/h"}, "/h/.cache/toolledger"),
    ],
)
def test_downloads_are_kept_where_the_user_or_the_system_says(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name in ("TOOLLEDGER_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


def test_an_empty_home_does_not_put_downloads_into_the_root_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TOOLLEDGER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    assert cache_folder() != Path("/.cache/toolledger")


def test_a_lone_worker_has_no_number_and_several_have() -> None:
    assert worker_part(1, 1, 9, {}).name == "worker"
    assert [worker_part(number, 2, 9, {}).name for number in (1, 2)] == ["worker-1", "worker-2"]
    assert worker_part(2, 2, 9, {}).kind == "worker"


def test_a_stack_that_listens_everywhere_is_reached_at_this_machine() -> None:
    assert ingest_part("0.0.0.0", 8600, 8601, {}).address == "http://127.0.0.1:8600"
    assert reachable("::") == "[::1]"
    assert reachable("10.0.0.1") == "10.0.0.1"


def test_commands_of_parts_carry_no_secret() -> None:
    part = worker_part(1, 1, 9, {"TOOLLEDGER_CLICKHOUSE": "http://user:hush@h:1"})
    assert isinstance(part, Part)
    assert "hush" not in json.dumps(part.command)
