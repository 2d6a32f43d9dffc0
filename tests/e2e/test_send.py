"""`toolledger send` on real parts: any form, resumed after any end, each event counted exactly once, with an id or without."""

import asyncio
import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from ingest.keys import create_key
from tests.support.pipeline import Pipeline, Process, eventually
from tests.support.plain_http import HTTP
from tests.support.ports import HOST, free_port

pytestmark = pytest.mark.real

MANY = 40_000


class Site:
    """The pipeline with a worker, and an ingest service that can be ended and started again."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.start_ingest()

    def start_ingest(self) -> None:
        env = {**self.pipeline.env, "TOOLLEDGER_PORT": str(self.port)}
        self.ingest = Process("ingest", ["ingest"], folder=self.pipeline.folder, env=env)
        eventually("ingest is ready", self._ready)

    def key(self, project: str) -> str:
        _, key = asyncio.run(create_key(self.pipeline.kafka.address, project_id=project))
        headers = {"x-api-key": key, "content-type": "application/json"}

        def known() -> bool:
            return HTTP.post(f"{self.url}/v1/events", headers=headers, content=b"[]").status_code == 400

        eventually("the key is in force", known)
        return key

    def _ready(self) -> bool:
        try:
            return HTTP.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def counted(self, project: str) -> tuple[int, int, int]:
        """Wait until all is proved; return a project's (logs, different ids, calls in usage)."""
        report = self.pipeline.settled()
        while (again := self.pipeline.settled()).records != report.records:
            report = again
        assert report.findings == ()
        calls = sum(one.calls for one in report.projects if one.project_id == project)
        query = f"SELECT count(), uniqExact(id) FROM tool_executions WHERE project_id = '{project}'"
        return (*self.pipeline.rows(query)[0], calls)


class Sending:
    """`toolledger send` of one project, with progress of its own, as a process that can be ended in any way."""

    def __init__(self, site: Site, folder: Path, project: str) -> None:
        self.folder, self.project = folder, project
        self.env: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TOOLLEDGER_")},
            "TOOLLEDGER_URL": site.url,
            "TOOLLEDGER_API_KEY": site.key(project),
            "TOOLLEDGER_KAFKA": site.pipeline.kafka.address,
            "TOOLLEDGER_CACHE": str(folder / "cache"),
        }

    def begin(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.cli.main", "send", *arguments],
            env=self.env,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, text: str | None = None) -> tuple[int, str, str]:
        """Return (exit code, standard output, standard error)."""
        process = self.begin(*arguments, stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL)
        out, err = process.communicate(text, timeout=120)
        return process.returncode, out, err

    def state(self) -> dict[str, Any]:
        for one in (self.folder / "cache" / "send").glob("*.json"):
            found: dict[str, Any] = json.loads(one.read_bytes())
            return found
        return {"offset": 0}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    pipeline = Pipeline(Path(tmp_path_factory.mktemp("send")))
    made = None
    try:
        pipeline.start()
        pipeline.start_worker()
        made = Site(pipeline)
        yield made
    finally:
        if made is not None:
            made.ingest.end(signal.SIGKILL)
        pipeline.stop()


@pytest.fixture
def sending(site: Site, tmp_path: Path, request: pytest.FixtureRequest) -> Sending:
    """One for each test, with a project of its own."""
    return Sending(site, tmp_path, "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:100])


def event(number: int, **members: object) -> dict[str, object]:
    filler = {"request": {"text": "x" * 500}}
    return {"tool_slug": "GMAIL_SEND", "status": "success", "duration_ms": number % 100, "data": filler, **members}


def lines(count: int, *, ids: bool = False) -> str:
    """Events in lines, by default without ids and times; each thousandth line is no event."""
    made = []
    for number in range(1, count + 1):
        made.append(json.dumps(event(number, **({"id": f"e{number}"} if ids else {}))) if number % 1000 else "rubbish")
    return "\n".join(made) + "\n"


def interrupted(sending: Sending, number: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Begin, and signal it once some is answered and kept; return its exit code and what it said."""
    process = sending.begin(*arguments)
    eventually("some is answered", lambda: sending.state()["offset"] > 0 or process.poll() is not None)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


FORMS = {
    "lines": str.encode,
    "gzip": lambda text: gzip.compress(text.encode(), 1),
    "zstd": lambda text: zstandard.compress(text.encode()),
}


@pytest.mark.parametrize(
    ("form", "way"),
    [("lines", []), ("zstd", []), ("gzip", ["--kafka", "--project"]), ("lines", ["--kafka", "--project"])],
    ids=["http-lines", "http-zstd", "kafka-gzip", "kafka-lines"],
)
def test_a_killed_send_goes_on_and_counts_nothing_twice(site: Site, sending: Sending, form: str, way: list[str]) -> None:
    """kill -9 twice, then to the end, of events without ids: as many logs and calls as lines, and the totals say so."""
    file = sending.folder / "calls"
    file.write_bytes(FORMS[form](lines(MANY)))
    arguments = [str(file), "--json", *way, *([sending.project] if way else [])]
    for _ in range(2):
        code, told = interrupted(sending, signal.SIGKILL, *arguments)
        assert code == -signal.SIGKILL, told
    code, out, err = sending.run(*arguments)
    assert (code, err) == (1, "")
    said = [json.loads(line) for line in out.splitlines()]
    rejected = MANY // 1000
    assert said[-1] == {"event": "sent", "accepted": MANY - rejected, "rejected": rejected}
    assert all(one["line"] % 1000 == 0 and one["code"] == "invalid_json" for one in said if one["event"] == "rejected")
    assert site.counted(sending.project) == (MANY - rejected,) * 3


def test_ctrl_c_keeps_what_was_answered(site: Site, sending: Sending) -> None:
    """It says how far it is and that the same command goes on, which it does, by an array too."""
    file = sending.folder / "calls.json"
    file.write_text(json.dumps([event(number) for number in range(MANY)]))
    code, said = interrupted(sending, signal.SIGINT, str(file))
    assert code == 130
    assert "so far; the same command goes on from there" in said
    assert "Traceback" not in said
    code, out, err = sending.run(str(file))
    assert (code, out) == (0, f"accepted {MANY}, rejected 0\n")
    assert "going on behind item" in err
    assert site.counted(sending.project) == (MANY,) * 3


@pytest.mark.parametrize("way", [[], ["--kafka", "--project"]], ids=["http", "kafka"])
def test_ctrl_c_ends_it_though_nobody_answers(site: Site, sending: Sending, way: list[str]) -> None:
    """A frozen server holds nobody; thawed, the same command brings all of it once."""
    file = sending.folder / "calls"
    file.write_text(lines(MANY))
    arguments = [str(file), *way, *([sending.project] if way else [])]
    process = sending.begin(*arguments)
    eventually("some is answered", lambda: sending.state()["offset"] > 0)
    frozen = site.pipeline.kafka.process if way else site.ingest
    assert frozen is not None
    frozen.send_signal(signal.SIGSTOP)
    try:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "never awaited" not in said
    code, out, _ = sending.run(*arguments)
    assert (code, out) == (1, f"accepted {MANY - MANY // 1000}, rejected {MANY // 1000}\n")
    assert site.counted(sending.project) == (MANY - MANY // 1000,) * 3


def test_a_server_that_is_away_for_too_long_ends_it_and_nothing_is_lost(site: Site, sending: Sending) -> None:
    """With one line that says so; a restart within its patience is not noticed."""
    file = sending.folder / "calls"
    file.write_text(lines(MANY, ids=True))
    process = sending.begin(str(file), "--patience", "1")
    eventually("some is answered", lambda: sending.state()["offset"] > 0)
    site.ingest.end(signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "so far" in said
    assert "no answer from" in said.splitlines()[-1]
    site.start_ingest()
    process = sending.begin(str(file))
    before = sending.state()["offset"]
    eventually("it goes on", lambda: sending.state()["offset"] > before or process.poll() is not None)
    site.ingest.end(signal.SIGKILL)
    site.start_ingest()
    out, _ = process.communicate(timeout=120)
    assert out == f"accepted {MANY - MANY // 1000}, rejected {MANY // 1000}\n"
    assert site.counted(sending.project) == (MANY - MANY // 1000,) * 3


def test_sent_again_from_elsewhere_and_by_another_way_it_counts_once(site: Site, sending: Sending) -> None:
    """The same file, moved, without what was kept, and straight to Kafka: the same ids; with --anew they are new calls."""
    file = sending.folder / "calls"
    file.write_text(lines(2500))
    kafka = ["--kafka", "--project", sending.project]
    for arguments in ([str(file)], [str(file)], [str(file), *kafka]):
        assert sending.run(*arguments)[:2] == (1, "accepted 2498, rejected 2\n")
    moved = file.rename(sending.folder / "moved")
    assert sending.run(str(moved))[:2] == (1, "accepted 2498, rejected 2\n")
    assert site.counted(sending.project) == (2498,) * 3
    assert sending.run(str(moved), "--anew")[0] == 1
    assert site.counted(sending.project) == (2 * 2498,) * 3


def test_a_file_that_grows_is_sent_as_it_grows(site: Site, sending: Sending) -> None:
    """Each call sends what came since, the last line whole or not."""
    file = sending.folder / "calls"
    text = lines(999)
    cut = text.index("\n", 7 * len(text) // 10) - 5
    file.write_text(text[:cut])
    code, _, _ = sending.run(str(file))
    assert code == 1, "the last line is cut"
    file.write_text(text)
    code, _, err = sending.run(str(file))
    assert code == 0
    assert "it has grown" in err
    assert site.counted(sending.project) == (999,) * 3


def test_several_files_and_standard_input(site: Site, sending: Sending) -> None:
    """Of every form, each with its own lines; one bad file is told before anything is sent."""
    names = []
    for name, content in (
        ("a.ndjson", b'{"tool_slug":"A","status":"success","duration_ms":1}\r\n\r\nrubbish\r\n'),
        ("b.json", json.dumps([event(1), {"status": "odd"}, event(2)], indent=2).encode()),
        ("c.json.gz", gzip.compress(json.dumps(event(3), indent=1).encode())),
        ("d.json.zst", zstandard.compress(json.dumps([event(4)]).encode())),
        ("empty", b""),
    ):
        (sending.folder / name).write_bytes(content)
        names.append(str(sending.folder / name))
    code, out, err = sending.run(*names, str(sending.folder / "missing"))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    code, out, err = sending.run(*names, "-", text=json.dumps(event(5)) + "\n{]\n")
    assert (code, out) == (1, "accepted 6, rejected 3\n")
    assert "a.ndjson line 3: invalid_json" in err
    assert "b.json item 2: unknown_status" in err
    assert "stdin line 2: invalid_json" in err
    assert site.counted(sending.project) == (6,) * 3


def test_a_pipe_is_sent_as_it_comes(site: Site, sending: Sending) -> None:
    """What a program writes now and then is not held back until there is more of it."""
    process = sending.begin("-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    for number in (1, 2, 3):
        process.stdin.write(json.dumps(event(number)) + "\n")
        process.stdin.flush()
        eventually("it is counted", lambda number=number: site.counted(sending.project) == (number,) * 3)
    process.stdin.close()
    assert process.wait(60) == 0
    assert process.stdout is not None
    assert process.stdout.read() == "accepted 3, rejected 0\n"


def test_a_terminal_shows_how_far_and_how_fast(site: Site, sending: Sending) -> None:
    """On standard error alone; standard output stays what a program can read."""
    file = sending.folder / "calls"
    file.write_text(lines(3000))
    master, slave = os.openpty()
    env = {**sending.env, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "deploy.cli.main", "send", str(file)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=slave, text=True) as process:
        os.close(slave)
        shown = b""
        # An error is how a terminal says that nobody writes to it any more.
        with contextlib.suppress(OSError):
            while part := os.read(master, 65536):
                shown += part
        assert process.stdout is not None
        assert process.stdout.read() == "accepted 2997, rejected 3\n"
    os.close(master)
    assert b"2,997 accepted" in shown
    assert b"/s" in shown
    assert b"100%" in shown
