"""`toolledger doctor` on the real parts: what is missing is named with what mends it, and doing that makes it well."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy import migrate
from deploy import topics as topic_admin
from ingest.contract.topics import topics
from tests.support import kafka_admin
from tests.support.pipeline import Pipeline, eventually
from tests.support.stack import Stack

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]


def examined(pipeline: Pipeline) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the command against a pipeline, which has no HTTP API; return its status and the worst finding of each check."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli.main", "doctor", "--data", str(pipeline.folder / "none"), "--json"],
        cwd=ROOT,
        env={**os.environ, **pipeline.env, "TOOLLEDGER_URL": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    order = ["ok", "warning", "failed"]
    found: dict[str, dict[str, Any]] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        assert line["fix"] or line["state"] == "ok", line
        if line["check"] not in found or order.index(line["state"]) > order.index(found[line["check"]]["state"]):
            found[line["check"]] = line
    return done.returncode, found


def test_a_whole_stack_is_well(shared_stack: Stack) -> None:
    key = shared_stack.create_key("doctor")
    eventually(
        "every partition has reported", lambda: shared_stack.get("/v1/freshness", key=key).json()["complete_until_ms"] > 0
    )
    lines = [json.loads(line) for line in shared_stack.toolledger("doctor", "--json").splitlines()]
    assert {line["check"] for line in lines} >= {
        "settings", "versions", "kafka", "topics", "replicas", "workers", "clickhouse", "schema", "clock", "disk", "progress",
        "service",
    }  # fmt: skip
    # How full a disk is and how late the work of others makes a partition are not the stack's.
    assert [line for line in lines if line["state"] != "ok" and line["check"] not in ("disk", "progress")] == []
    said = shared_stack.toolledger("doctor", env={"TOOLLEDGER_API_KEY": key})
    assert "ok      key        in force, full, of project doctor" in said
    wrong = shared_stack.toolledger("doctor", status=1, env={"TOOLLEDGER_API_KEY": "ak_wrong"})
    assert "failed  key" in wrong
    assert "1 failed" in wrong


def test_what_is_missing_is_named_until_it_is_there(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path)
    try:
        pipeline.kafka.start()
        pipeline.start_clickhouse()
        status, found = examined(pipeline)
        assert status == 1
        assert {name: found[name]["fix"] for name in ("topics", "schema")} == {
            "topics": "run toolledger topics",
            "schema": "run toolledger migrate",
        }
        assert found["service"]["text"].endswith("(address from TOOLLEDGER_URL)")
        # Nothing was made by looking.
        assert len(migrate.apply(pipeline.clickhouse_url, dry_run=True)) == len(migrate.read())
        assert {change.kind for change in topic_admin.apply(pipeline.kafka.address, topics(), dry_run=True)} == {"create"}

        topic_admin.apply(pipeline.kafka.address, topics(partitions=pipeline.partitions))
        migrate.apply(pipeline.clickhouse_url)
        status, found = examined(pipeline)
        assert status == 1
        assert [found[name]["state"] for name in ("topics", "schema")] == ["ok", "ok"]
        assert found["workers"]["text"].startswith("no worker is in its group")
        assert found["progress"]["text"] == "no worker has ever reported here"

        worker = pipeline.start_worker()

        def at_work() -> bool:
            _, now = examined(pipeline)
            return [now[name]["state"] for name in ("workers", "progress")] == ["ok", "ok"]

        eventually("the worker is seen at work", at_work)
        worker.end()
        assert examined(pipeline)[1]["workers"]["state"] == "failed"

        # A topic made anew is not the one the workers reported of.
        kafka_admin.make_anew(pipeline.kafka.address, partitions=pipeline.partitions)
        assert "another topic" in examined(pipeline)[1]["progress"]["text"]

        assert pipeline.clickhouse is not None
        pipeline.clickhouse.end()
        pipeline.kafka.stop()
        status, found = examined(pipeline)
        assert status == 1
        assert {name for name, line in found.items() if line["state"] == "failed"} == {"kafka", "clickhouse", "service"}
    finally:
        pipeline.stop()
