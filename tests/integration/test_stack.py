"""`toolledger up`: the whole stack from an empty folder to right answers, restarted, robbed of parts, killed, started again.

Always the embedded parts: they are what this command runs.
"""

import json
import signal
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deploy.api import Api
from deploy.demo import RECORDED
from deploy.embedded import stack_file
from tests.support.parts import await_line, popen
from tests.support.pipeline import eventually
from tests.support.ports import free_port
from tests.support.stack import Up

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def first(data: Path, port: int) -> Iterator[Up]:
    up = Up(data, port, "--demo")
    yield up
    if up.process.poll() is None:
        up.stop()


def _calls_by_toolkit(up: Up, data: Path) -> dict[str, int]:
    key = stack_file.demo_key(data)
    assert key is not None
    answer = Api(up.ready["url"], key).post("/api/v3.1/project/usage/toolkit", {"limit": 100})
    return {group["key"]: group["event_count"] for group in answer["groups"]}


def _recorded() -> Counter[str]:
    return Counter(json.loads(line)["toolkit_slug"] for line in RECORDED.read_text().splitlines())


def test_the_demo_answers_as_a_plain_count_over_its_file(first: Up, data: Path) -> None:
    expected = _recorded()
    eventually("all recorded calls are counted", lambda: _calls_by_toolkit(first, data).get("airline") == expected["airline"])
    live = eventually("the live stream comes in", lambda: set(_calls_by_toolkit(first, data)) - set(expected))
    assert live
    key_file = data / stack_file.DEMO_KEY
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_it_says_where_everything_is(first: Up, data: Path, port: int) -> None:
    stack = stack_file.find(data)
    assert stack is not None
    assert first.ready == {
        "event": "ready", "url": f"http://127.0.0.1:{port}", "kafka": stack.kafka, "clickhouse": stack.clickhouse,
        "pid": first.process.pid,
    }  # fmt: skip
    assert stack.pid == first.process.pid
    logs = {path.name for path in (data / "logs").iterdir()}
    assert logs >= {"kafka.log", "clickhouse.log", "query.log", "worker.log", "ingest.log", "demo.log"}


def test_a_command_finds_the_running_stack_through_its_folder(first: Up, data: Path) -> None:
    environment = {name: "" for name in ("TOOLLEDGER_URL", "TOOLLEDGER_API_KEY", "TOOLLEDGER_KAFKA", "TOOLLEDGER_CLICKHOUSE")}
    usage = ["usage", "--by", "toolkit", "--since", "365d"]
    failures = ["failures", "--since", "365d"]
    for arguments in (usage, [*usage, "--corrections"], failures, ["logs", "--limit", "3"], ["topics", "--dry-run"]):
        process = popen([*arguments, "--data", str(data), "--json"], settings=environment)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert all(json.loads(line) for line in said.splitlines())


def test_a_second_stack_on_the_same_folder_or_port_is_one_line_and_exit_2(
    first: Up, data: Path, port: int, tmp_path: Path
) -> None:
    for folder, says in ((data, f"is in use by toolledger up (pid {first.process.pid})"), (tmp_path, f"port {port} of")):
        process = popen(["up", "--data", str(folder), "--port", str(port)])
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert said.count("\n") == 1
        assert says in said


@pytest.mark.parametrize("kind", ["query", "ingest"])
def test_a_part_that_dies_is_started_again_and_the_log_says_so(first: Up, data: Path, kind: str) -> None:
    part = next(
        child for child in psutil.Process(first.process.pid).children() if child.cmdline()[0].startswith(f"toolledger {kind}")
    )
    part.kill()
    await_line(first.process, f"{kind} ended (SIGKILL); it is started again")
    await_line(first.process, f"{kind} is ready again")
    assert _calls_by_toolkit(first, data)["airline"] == _recorded()["airline"]
    first.all = psutil.Process(first.process.pid).children(recursive=True)


def test_stopped_and_started_it_goes_on_with_the_same_answers_and_counts_nothing_twice(
    first: Up, data: Path, port: int
) -> None:
    kafka, key = first.ready["kafka"], stack_file.demo_key(data)
    assert first.stop() == 0
    assert stack_file.find(data) is None
    assert not (data / "stack.json").exists()
    again = Up(data, port, "--demo")
    try:
        # The same addresses and the same key; the recorded calls were sent once more.
        assert again.ready["kafka"] == kafka
        assert stack_file.demo_key(data) == key
        assert _calls_by_toolkit(again, data)["airline"] == _recorded()["airline"]
    finally:
        # Killed, it takes every part with it, and the next start goes on all the same.
        assert again.stop(signal.SIGKILL) == -signal.SIGKILL
    assert stack_file.find(data) is None
    last = Up(data, port)
    assert _calls_by_toolkit(last, data)["airline"] == _recorded()["airline"]
    assert last.stop(signal.SIGINT) == 0


def test_a_part_whose_settings_are_wrong_ends_the_start_with_its_own_line(tmp_path: Path) -> None:
    process = popen(
        [
            "up",
            "--data",
            str(tmp_path),
            "--port",
            str(free_port()),
            "--kafka",
            "127.0.0.1:1",
            "--clickhouse",
            "http://127.0.0.1:1",
        ]
    )
    said, _ = process.communicate(timeout=120)
    assert process.returncode in (1, 2)
    assert "no Kafka answers at 127.0.0.1:1" in said or "no ClickHouse answers at 127.0.0.1:1" in said
