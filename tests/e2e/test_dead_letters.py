"""Dead letters on real parts: seen, mended and replayed exactly once, over HTTP and on the command line."""

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.cli.main import main
from ingest.contract.partitioning import event_key, home_partition
from tests.support.ingest_service import IngestService
from tests.support.pipeline import Pipeline, at_work, eventually
from tests.support.query_service import KEY_A, KEY_B, KEY_INGEST, KEY_READ, query_service

pytestmark = pytest.mark.real

ROUTE = "/v1/dead-letters"
EVENT = {"tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 7, "user_id": "u"}
BINARY = bytes(range(256)).replace(b"\n", b"").replace(b"[", b"")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with at_work(Path(tmp_path_factory.mktemp("letters"))) as made:
        yield made


@pytest.fixture
def toolledger(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    """Runs a command in this process; gives (exit code, standard output)."""
    monkeypatch.setenv("TOOLLEDGER_KAFKA", pipeline.kafka.address)
    monkeypatch.setenv("TOOLLEDGER_CLICKHOUSE", pipeline.clickhouse_url)

    def run(*arguments: str) -> tuple[int, bytes]:
        capfdbinary.readouterr()
        code = main(["dead-letters", *arguments])
        return code, capfdbinary.readouterr().out

    return run


def lines(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def logs(pipeline: Pipeline, project: str) -> list[tuple[str, str, int]]:
    """(id, dead letter it was replayed from, time) of a project's logs; every row, so that a double would be seen."""
    return list(
        pipeline.rows(
            "SELECT id, replay_of, toUnixTimestamp64Milli(timestamp) FROM tool_executions"
            f" WHERE project_id = '{project}' ORDER BY id"
        )
    )


def letter_ids(pipeline: Pipeline, project: str) -> list[tuple[str, int]]:
    """(id, time of acceptance) of a project's dead letters, in order of origin."""
    return list(
        pipeline.rows(
            "SELECT concat(incarnation, '-', toString(kafka_partition), '-', toString(kafka_offset), '-',"
            " toString(kafka_index)), toUnixTimestamp64Milli(accepted_at) FROM dead_letters"
            f" WHERE project_id = '{project}' ORDER BY kafka_partition, kafka_offset, kafka_index"
        )
    )


def exact(pipeline: Pipeline) -> None:
    """Everything is proved, and logs, usage and receipts agree."""
    report = pipeline.settled()
    assert report.findings == ()
    assert report.accepted == report.rows == report.calls


async def test_a_project_sees_its_own_and_no_others(pipeline: Pipeline) -> None:
    """Pages, filters and details are of this project only; another's dead letter is as unknown as one that never was."""
    both = b"[" + json.dumps(EVENT).encode() + b',{"tool_slug":"X","status":"odd","id":"mine"}]'
    for project, values in (("proj_a", [b'{"tool_slug": "GMA', BINARY, both, b"{" + b"x" * 9000]), ("proj_b", [b"{]"])):
        for value in values:
            await asyncio.to_thread(pipeline.send_records, [(value, 1)], project=project)
    await asyncio.to_thread(exact, pipeline)
    async with query_service(pipeline.clickhouse_url, kafka=pipeline.kafka.address) as query:
        whole = (await query.get(ROUTE)).body
        found = whole["dead_letters"]
        assert [one["reason"] for one in found] == ["invalid_json", "unknown_status", "invalid_encoding", "invalid_json"]
        assert whole["next_cursor"] is None
        assert whole["complete_until"].endswith("Z")
        large, odd, binary, cut = found
        assert (cut["payload"], cut["encoding"], cut["bytes"]) == ('{"tool_slug": "GMA', "utf-8", 18)
        assert (base64.b64decode(binary["payload"]), binary["encoding"]) == (BINARY, "base64")
        assert (odd["origin"]["topic"], odd["origin"]["partition"], odd["origin"]["index"]) == ("tool-executions", 1, 1)
        assert (large["bytes"], large["truncated"], len(large["payload"])) == (9001, True, 4096)
        assert [one["replayed"] for one in found] == [False] * 4

        paged: list[Any] = []
        asked: dict[str, Any] = {"limit": 3}
        while (body := (await query.get(ROUTE, asked)).body)["next_cursor"] is not None:
            paged += body["dead_letters"]
            asked["cursor"] = body["next_cursor"]
        assert paged + body["dead_letters"] == found
        assert (await query.get(ROUTE, {"cursor": asked["cursor"]}, key=KEY_B)).status == 400
        between = {"reason": "invalid_json", "from": cut["accepted_at"], "to": large["accepted_at"]}
        assert [one["id"] for one in (await query.get(ROUTE, between)).body["dead_letters"]] == [cut["id"]]
        refused = (await query.get(ROUTE, {"reasons": "x"})).body["error"]
        assert refused["errors"][0].startswith("Error in query.reasons: unknown")
        assert (await query.get(ROUTE, {"limit": 101})).status == 400

        detail = (await query.get(f"{ROUTE}/{large['id']}")).body
        assert (len(detail["payload"]), detail["truncated"]) == (9001, False)
        (theirs,) = (await query.get(ROUTE, key=KEY_B)).body["dead_letters"]
        for unknown in (theirs["id"], "nothing", cut["id"][:-1] + "77"):
            for answer in (await query.get(f"{ROUTE}/{unknown}"), await query.post(f"{ROUTE}/{unknown}/replay", b"")):
                assert (answer.status, answer.body["error"]["slug"]) == (404, "HTTP_NotFound")
                assert set(answer.body["error"]) >= {"message", "code", "slug", "status", "request_id"}
        for key in (KEY_READ, KEY_INGEST):
            assert (await query.post(f"{ROUTE}/{cut['id']}/replay", EVENT, key=key)).status == 403
        assert (await query.get(ROUTE, key=KEY_READ)).body["dead_letters"] == found


async def test_a_replay_counts_once_however_often_it_is_asked_for(pipeline: Pipeline, tmp_path: Path) -> None:
    """Through the public address; what still is no event is refused with the reason; the letter says that it was replayed."""
    async with query_service(pipeline.clickhouse_url, kafka=pipeline.kafka.address) as query:
        large, odd, binary, cut = (await query.get(ROUTE)).body["dead_letters"]
        as_it_is = await query.post(f"{ROUTE}/{cut['id']}/replay", b"")
        assert as_it_is.status == 400
        assert "invalid_json" in as_it_is.body["error"]["message"]
        assert (await query.post(f"{ROUTE}/{cut['id']}/replay", {"tool_slug": "X"})).status == 400
        assert (await query.post(f"{ROUTE}/{cut['id']}/replay", {**EVENT, "project_id": "proj_b"})).status == 400

        start = IngestService.start
        ingest = await asyncio.to_thread(start, pipeline.kafka.address, tmp_path, ready=False, query_url=query.url)
        try:
            async with httpx.AsyncClient(base_url=ingest.url, headers={"x-api-key": KEY_A}) as public:
                many = [EVENT, {**EVENT, "id": "own"}, EVENT]
                for _ in range(2):
                    one = await public.post(f"{ROUTE}/{cut['id']}/replay", json=EVENT)
                    assert (one.status_code, one.json()) == (202, {"id": cut["id"], "ids": [cut["id"]]})
                    three = await public.post(f"{ROUTE}/{binary['id']}/replay", json=many)
                    assert three.json()["ids"] == [binary["id"], "own", f"{binary['id']}-2"]
                    await asyncio.to_thread(exact, pipeline)
                assert (await public.get(f"{ROUTE}/{cut['id']}")).json()["replayed"] is True
        finally:
            await asyncio.to_thread(ingest.stop)
        replayed = {one["id"]: one["replayed"] for one in (await query.get(ROUTE)).body["dead_letters"]}
        assert replayed == {large["id"]: False, odd["id"]: False, binary["id"]: True, cut["id"]: True}
        found_log = await query.get(f"/api/v3.1/logs/tool_execution/{cut['id']}")
        # Its time is that of its first acceptance.
        assert found_log.body["timestamp"] == cut["accepted_at"]
    origins = [(event_id, of) for event_id, of, _ in logs(pipeline, "proj_a") if of]
    expected = [(cut["id"], cut["id"]), (binary["id"], binary["id"]), ("own", binary["id"])]
    assert origins == sorted([*expected, (f"{binary['id']}-2", binary["id"])])


async def test_a_replay_while_kafka_is_away_is_503(pipeline: Pipeline) -> None:
    """Nothing is said to be sent that Kafka has not; the client is told when to ask again."""
    async with query_service(pipeline.clickhouse_url, kafka="127.0.0.1:1", query_replay_timeout_s=2) as query:
        found = (await query.get(ROUTE)).body["dead_letters"]
        answer = await query.post(f"{ROUTE}/{found[0]['id']}/replay", EVENT)
        assert (answer.status, answer.body["error"]["slug"]) == (503, "HTTP_ServiceUnavailable")
        assert answer.headers["Retry-After"] == "2"


def test_a_replay_and_the_event_that_came_by_itself_count_once(pipeline: Pipeline, toolledger: Any) -> None:
    """In either order, and however far the producer's copy was from home."""
    event = {**EVENT, "id": "e1"}
    raw = json.dumps(event).encode()
    pipeline.send_records([(b'{"id":"e1", "tool', 0), (b'{"id":"e2", "tool', 0)], project="both")
    exact(pipeline)
    (first, _), (second, at_ms) = letter_ids(pipeline, "both")
    # It came by itself, with a time of its own, before the replay.
    away = (home_partition(event_key("both", "e1"), pipeline.partitions) + 1) % pipeline.partitions
    pipeline.send_records([(raw, away)], project="both")
    # It is proved away from home first, and at home a moment later.
    eventually("it is in the logs", lambda: logs(pipeline, "both"))
    exact(pipeline)
    mended = pipeline.folder / "mended.json"
    mended.write_bytes(raw)
    code, out = toolledger("replay", first, "--file", str(mended), "--json")
    assert (code, lines(out)[0]["outcome"], lines(out)[0]["ids"]) == (0, "already", ["e1"])
    # And after it; the second replay finds nothing left to do.
    mended.write_bytes(json.dumps({**EVENT, "id": "e2"}).encode())
    assert lines(toolledger("replay", second, "--file", str(mended), "--json")[1])[0]["outcome"] == "replayed"
    exact(pipeline)
    pipeline.send_records([(mended.read_bytes(), 2)], project="both")
    exact(pipeline)
    assert lines(toolledger("replay", second, "--file", str(mended), "--json")[1])[0]["outcome"] == "already"
    rows = logs(pipeline, "both")
    assert [(event_id, of) for event_id, of, _ in rows] == [("e1", ""), ("e2", second)]
    assert rows[1][2] == at_ms


def test_a_replay_that_dies_half_way_is_finished_by_running_it_again(pipeline: Pipeline, toolledger: Any) -> None:
    """Killed between two pages, run twice beside each other, then once more: each event counts once, under its own project."""
    count = 1_200
    pack = [{**EVENT, "data": {"n": number}} for number in range(100)]
    records = [(json.dumps(pack).encode(), number % pipeline.partitions) for number in range(count // 100)]
    pipeline.send_records(records, project=None)
    exact(pipeline)
    arguments = ["dead-letters", "replay", "--all", "--project", "", "--assign-project", "late", "--json"]
    assert toolledger("replay", "--all", "--project", "", "--json")[0] == 1, "they name no project"
    command = [sys.executable, "-m", "deploy.cli.main", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) as dies:
        assert dies.stdout is not None
        assert json.loads(dies.stdout.readline())["outcome"] == "replayed"
        os.kill(dies.pid, signal.SIGKILL)
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) for _ in range(2)]
    said = [lines(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [len(told) for told in said] == [count, count]
    exact(pipeline)
    assert {told["outcome"] for told in lines(toolledger(*arguments[1:])[1])} == {"already"}
    rows = logs(pipeline, "late")
    letters = letter_ids(pipeline, "")
    assert [(event_id, of) for event_id, of, _ in rows] == sorted((one, one) for one, _ in letters)
    assert {(event_id, at_ms) for event_id, _, at_ms in rows} == set(letters)


def test_the_command_line_shows_what_was_kept_byte_for_byte(pipeline: Pipeline, toolledger: Any) -> None:
    """List with its summary, show as text, dump, JSON and raw bytes; exit 1 for what is not there."""
    poison = b'\x1b]0;title\x07{"tool": 1'
    pipeline.send_records([(BINARY, 3), (poison, 3)], project="shown")
    exact(pipeline)
    (binary, _), (text, _) = letter_ids(pipeline, "shown")
    code, out = toolledger("list", "--project", "shown", "--since", "1h", "--json")
    assert (code, [one["id"] for one in lines(out)]) == (0, [text, binary])
    assert toolledger("show", binary, "--raw") == (0, BINARY)
    assert toolledger("show", text, "--raw") == (0, poison)
    shown = toolledger("show", text)[1]
    assert b"\x1b" not in shown
    assert "�]0;title�".encode() in shown
    assert b"00000010  11 12" in toolledger("show", binary)[1]
    told = lines(toolledger("show", binary, "--json")[1])[0]
    assert base64.b64decode(told["payload"]) == BINARY
    code, out = toolledger("list", "--project", "shown")
    assert code == 0
    assert b"invalid_encoding" in out
    assert toolledger("show", "nothing")[0] == 1
    assert toolledger("replay", text.replace(text[:4], "0000", 1))[0] == 1
    code, out = toolledger("replay", binary, text)
    assert code == 1
    assert out.decode().count(" still no event: ") == 2
    for wrong in (["replay"], ["replay", text, "--all"], ["replay", text, "--reason", "x"], ["replay", "--all", "--file", "-"]):
        assert toolledger(*wrong)[0] == 2
