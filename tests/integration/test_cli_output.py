"""Commands whose output cannot be taken: whoever reads it has gone, the disk is full, or the terminal knows few characters."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytest_asyncio

from ingest.contract.store import client as open_client
from tests.support import rows
from tests.support.query_service import KEY_A, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

LOGS = 300
FOREIGN = "日本 😀 é …"
# Each writes to standard output, by way of click, of rich, or by itself.
COMMANDS = [
    ["logs", "--limit", "300"],
    ["logs", "--json", "--limit", "300"],
    ["logs", "-o", "-"],
    ["log", "log_0"],
    ["log", "log_0", "--json"],
    ["usage"],
    ["usage", "--by", "hour", "--since", "30d", "--limit", "720"],
    ["failures"],
    ["failures", "--json"],
    ["config"],
    ["--help"],
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(clickhouse_url):
    now = time.time_ns() // 1_000_000
    calls = [
        {
            "id": f"log_{number}",
            "timestamp": now - number,
            "status": "failed",
            "failure_class": "other",
            "message": f"{FOREIGN} {number}",
            "error_message": FOREIGN,
            "user_id": FOREIGN,
            "tool_slug": FOREIGN,
            "data": json.dumps({"request": {"text": FOREIGN}}),
            "metadata": json.dumps({"text": FOREIGN}),
        }
        for number in range(LOGS)
    ]
    with rows.fresh_database(clickhouse_url) as address:
        with contextlib.closing(open_client(address)) as client:
            rows.insert(client, calls)
        async with query_service(address) as service:
            yield service.url


def started(url, arguments, **more):
    """Start a command; what it says on standard error can be read."""
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli.main", *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TOOLLEDGER_URL": url, "TOOLLEDGER_API_KEY": KEY_A, **more.pop("env", {})},
        stderr=subprocess.PIPE,
        **more,
    )


async def ended(process):
    """Wait for a command without holding up the service that answers it; return its status and what it said."""
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    return process.returncode, out, err.decode()


@pytest.mark.parametrize("arguments", [*COMMANDS, ["logs", "--follow"]], ids=" ".join)
async def test_a_reader_that_has_seen_enough_is_no_fault(url, arguments):
    """As `head` does: status 0, and not a word."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = started(url, arguments, stdout=writer)
    finally:
        os.close(writer)
    status, _, err = await ended(process)
    assert (status, err) == (0, "")


async def test_who_follows_ends_with_its_reader(url):
    """Also where no further log comes that could not be written, as after `| head`."""
    process = started(url, ["logs", "--follow", "--limit", "2"], stdout=subprocess.PIPE)
    for _ in range(2):
        assert await asyncio.to_thread(process.stdout.readline)
    process.stdout.close()
    process.stdout = None
    status, _, err = await ended(process)
    assert (status, err) == (0, "")


@pytest.mark.parametrize("arguments", [*COMMANDS, ["logs", "-o", "/dev/full"]], ids=" ".join)
async def test_a_full_disk_is_one_line(url, arguments):
    """Status 2, and what is wrong."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        process = started(url, arguments, stdout=full)
    finally:
        os.close(full)
    status, _, err = await ended(process)
    assert status == 2
    assert err.startswith("toolledger: ")
    assert "No space left on device" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
async def test_characters_that_cannot_be_shown_are_escaped(url, arguments, encoding):
    """No traceback; and of JSON a program reads what it would read in any encoding."""
    plain, other = (
        started(url, arguments, stdout=subprocess.PIPE, env={"PYTHONIOENCODING": each}) for each in ("utf-8", encoding)
    )
    (status, expected, _), (other_status, out, err) = await ended(plain), await ended(other)
    assert (status, other_status) == (0, 0), err
    assert "Traceback" not in err
    if "--json" in arguments:
        assert [json.loads(line) for line in out.decode(encoding).splitlines()] == [
            json.loads(line) for line in expected.decode().splitlines()
        ]
    elif arguments[0] in ("log", "failures") and encoding == "latin-1":
        # What this encoding has stands as it is.
        assert b"\\u65e5\\u672c" in out
        assert "é".encode("latin-1") in out
