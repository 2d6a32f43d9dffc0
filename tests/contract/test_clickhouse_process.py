"""The embedded ClickHouse server as a process: start, stop, kill, and what survives."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from pathlib import Path

import psutil
import pytest

from tests.contract.clickhouse_http import ClickHouse
from tests.contract.clickhouse_process import EmbeddedServer, may_set_priorities, start_command
from tests.contract.test_clickhouse_errors import FOREVER, Running, eventually, is_running

pytestmark = pytest.mark.real

CREATE = (
    "CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100000"
)


def refused(data: Path, *arguments: str) -> str:
    """The one line a server that cannot start leaves on stderr."""
    ended = subprocess.run(start_command(data, *arguments), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, ended.stderr
    return lines[0]


def rows_of(clickhouse: ClickHouse, first: int, count: int) -> bytes:
    """Native rows (first + i, its text)."""
    return clickhouse.done(f"SELECT {first} + number AS a, toString(a) AS b FROM numbers({count}) FORMAT Native").body


def test_acknowledged_rows_survive_kill_and_tokens_hold_across_it(tmp_path: Path) -> None:
    """Every insert that was answered is there after kill -9, whole, and its token still refuses a second copy."""
    data = tmp_path / "data"
    acknowledged: list[int] = []
    with EmbeddedServer(data) as server:
        clickhouse = server.clickhouse
        clickhouse.done(CREATE)
        blocks = {number: rows_of(clickhouse, number * 1000, 1000) for number in range(400)}
        enough = threading.Event()

        def write() -> None:
            for number, block in blocks.items():
                try:
                    answer = clickhouse.ask("INSERT INTO t FORMAT Native", block, insert_deduplication_token=f"token-{number}")
                except OSError:
                    return
                if answer.status != 200:
                    return
                acknowledged.append(number)
                if len(acknowledged) >= 40:
                    enough.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(60)
        server.kill()
        writer.join()

    with EmbeddedServer(data) as server:
        clickhouse = server.clickhouse
        found = {int(row[0]): int(row[1]) for row in clickhouse.rows("SELECT intDiv(a, 1000), count() FROM t GROUP BY 1")}
        assert set(acknowledged) <= set(found)
        assert set(found) <= {*acknowledged, max(acknowledged) + 1}  # the one under way may have landed, whole
        assert set(found.values()) == {1000}
        for number in found:
            clickhouse.done("INSERT INTO t FORMAT Native", blocks[number], insert_deduplication_token=f"token-{number}")
        assert clickhouse.value("SELECT count() FROM t") == str(1000 * len(found))
        assert server.stop() == 0


def test_a_stop_and_a_start_keep_tables_and_tokens(tmp_path: Path) -> None:
    """SIGTERM ends with 0; the next start has the tables, the rows and the tokens of the last one."""
    data = tmp_path / "data"
    for start in range(3):
        with EmbeddedServer(data) as server:
            clickhouse = server.clickhouse
            if start == 0:
                clickhouse.done(CREATE)
            clickhouse.done("INSERT INTO t FORMAT Native", rows_of(clickhouse, 0, 10), insert_deduplication_token="the same")
            clickhouse.done("INSERT INTO t FORMAT Native", rows_of(clickhouse, 100 * start, 10))
            assert clickhouse.value("SELECT count() FROM t") == str(10 + 10 * (start + 1))
            assert server.stop(signal.SIGTERM if start else signal.SIGINT) == 0


def test_a_stop_lets_short_queries_end(tmp_path: Path) -> None:
    """A query that runs when SIGTERM comes is answered."""
    with EmbeddedServer(tmp_path / "data") as server:
        clickhouse = server.clickhouse
        bodies: list[bytes] = []
        thread = threading.Thread(target=lambda: bodies.append(clickhouse.ask("SELECT sleep(2), 7", query_id="short").body))
        thread.start()
        assert eventually(lambda: is_running(clickhouse, "short"))
        assert server.stop() == 0
        thread.join()
        assert bodies == [b"0\t7\n"]


def test_a_stop_cancels_long_queries(tmp_path: Path) -> None:
    """A query that does not end within the grace is cancelled and told so; the stop does not wait for it."""
    with EmbeddedServer(tmp_path / "data", "--stop-grace-seconds", "0.5") as server:
        clickhouse = server.clickhouse
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(clickhouse.ask(FOREVER, query_id="long").code))
        thread.start()
        assert eventually(lambda: is_running(clickhouse, "long"))
        assert server.stop() == 0
        thread.join()
        assert codes == [394]


def test_an_idle_connection_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """Clients keep connections open; a stop closes them."""
    with EmbeddedServer(tmp_path / "data") as server, server.clickhouse.connection() as connection:
        connection.request("GET", "/ping")
        connection.getresponse().read()
        assert server.stop() == 0


def test_one_folder_has_one_owner(tmp_path: Path) -> None:
    """A second server on the same folder is refused with the process to look for."""
    with EmbeddedServer(tmp_path / "data") as server:
        line = refused(tmp_path / "data")
        assert "in use by process" in line
        assert str(server.process.pid) in line


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """A port that is taken is one line, and the folder is left alone."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(tmp_path / "data", "--port", str(port))
    assert f"port {port} of 127.0.0.1 is in use" in line
    assert "--port" in line
    assert not (tmp_path / "data").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A path that is no folder is one line that says what to do."""
    (tmp_path / "file").write_text("")
    line = refused(tmp_path / "file" / "data")
    assert "cannot use the data folder" in line
    assert "--data" in line


def test_a_folder_that_nobody_may_write_is_named() -> None:
    """A place without write permission is one line that says what to do; /proc refuses even root."""
    line = refused(Path("/proc/toolledger"))
    assert "make it writable or choose another one with --data" in line


def test_a_broken_users_file_is_named(tmp_path: Path) -> None:
    """Wrong settings are one line."""
    users = tmp_path / "users.json"
    users.write_text('["default"]')
    assert "users file" in refused(tmp_path / "data", "--users", str(users))


def test_users_from_a_file(tmp_path: Path) -> None:
    """Names and passwords come from a file; the default user is then not there."""
    users = tmp_path / "users.json"
    users.write_text(json.dumps({"reader": "pä:ss"}))
    with EmbeddedServer(tmp_path / "data", "--users", str(users)) as server:
        own = ClickHouse(host=server.ready["host"], port=server.ready["port"], user="reader", password="pä:ss")
        assert own.request("POST", "/?user=reader&password=p%C3%A4%3Ass", b"SELECT 1", authenticated=False).body == b"1\n"
        assert server.clickhouse.ask("SELECT 1").code == 516


def test_the_process_says_what_it_is(tmp_path: Path) -> None:
    """`ps` shows `toolledger clickhouse`."""
    with EmbeddedServer(tmp_path / "data") as server:
        assert psutil.Process(server.process.pid).cmdline()[0].startswith("toolledger clickhouse")


def test_a_large_body_goes_to_disk(tmp_path: Path) -> None:
    """Bodies beyond the memory limit are spooled to the data folder, and nothing is left there."""
    with EmbeddedServer(tmp_path / "data") as server:
        clickhouse = server.clickhouse
        clickhouse.done("CREATE TABLE t (b String) ENGINE = Null")
        line = b"x" * 1023 + b"\n"
        answer = clickhouse.done("INSERT INTO t FORMAT LineAsString", (line * 1024 for _ in range(100)))
        assert answer.summary["written_rows"] == 102_400
        assert list((tmp_path / "data" / "tmp").iterdir()) == []


@pytest.mark.skipif(not may_set_priorities(), reason="the engine sets no priorities without CAP_SYS_NICE")
def test_questions_go_before_merges_and_whatever_steps_back(tmp_path: Path) -> None:
    """Merges wait for the cores behind questions, as does a statement that asks for it."""
    with EmbeddedServer(tmp_path / "data") as server:

        def priorities(name: str = "") -> set[int]:
            return {nice for thread, nice in server.priorities() if name in thread}

        server.clickhouse.done("CREATE TABLE m (a UInt64, b String) ENGINE = MergeTree ORDER BY b")
        # A part for each block, so that there is always something to merge.
        blocks = {"max_block_size": 20_000, "min_insert_block_size_rows": 1, "min_insert_block_size_bytes": 1}
        inserting = Running(server.clickhouse, "INSERT INTO m SELECT rand64() AS a, hex(a) FROM numbers(1000000000)", **blocks)
        assert eventually(lambda: 10 in priorities("MergeMutate"), seconds=60)
        server.clickhouse.done(f"KILL QUERY WHERE query_id = '{inserting.query_id}' SYNC")
        inserting.ended()
        assert 5 not in priorities()
        stepped_back = Running(server.clickhouse, FOREVER, os_threads_nice_value_query=5)
        assert eventually(lambda: 5 in priorities())
        server.clickhouse.done(f"KILL QUERY WHERE query_id = '{stepped_back.query_id}' SYNC")
        stepped_back.ended()


def test_idle_costs_next_to_nothing(tmp_path: Path) -> None:
    """At rest, with tables that were written to, the server takes less than two hundredths of a core."""
    with EmbeddedServer(tmp_path / "data") as server:
        clickhouse = server.clickhouse
        clickhouse.done(CREATE)
        for number in range(20):
            clickhouse.done("INSERT INTO t FORMAT Native", rows_of(clickhouse, number, 1000))
        process = psutil.Process(server.process.pid)

        def share_of_a_core() -> float:
            return process.cpu_percent(interval=3) / 100

        assert eventually(lambda: share_of_a_core() < 0.02, seconds=60)
