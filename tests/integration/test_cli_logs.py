"""`toolledger logs` against a running query service: following through breaks, files that are whole or not there."""

import asyncio
import contextlib
import csv
import json
import os
import signal
import stat
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from ingest.contract.store import client as open_client
from query_api.http import export as http_export
from tests.support import rows
from tests.support.arrivals import Arrivals
from tests.support.process import eventually
from tests.support.query_service import KEY_A, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

NOW = 1_795_600_000_000


@pytest_asyncio.fixture(loop_scope="module")
async def database(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url, contextlib.closing(open_client(url)) as client:
        yield url, Arrivals(client)


async def start(url, *arguments):
    """Start a command; its output is a pipe."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", *arguments),
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TOOLLEDGER_URL": url, "TOOLLEDGER_API_KEY": KEY_A},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(url, *arguments):
    """Run a command to its end; return its status and what it said."""
    process = await start(url, *arguments)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


def events(*ids, **more):
    return [[{"id": one, "timestamp": NOW + number, **more} for number, one in enumerate(ids)]]


async def shown(process, count):
    """Read so many logs of a command that follows."""
    assert process.stdout is not None
    lines = [await asyncio.wait_for(process.stdout.readline(), 60) for _ in range(count)]
    if not all(lines):
        raise AssertionError((await process.communicate())[1].decode())
    return [json.loads(line)["id"] for line in lines]


async def test_following_goes_on_after_a_restart(database):
    """What was there first, then each log once, through an instance that ends and another that begins; Ctrl-C is quiet."""
    url, arrivals = database
    arrivals.batch(0, events("a", "b"), record_ms=NOW).write()
    async with contextlib.AsyncExitStack() as first:
        service = await first.enter_async_context(query_service(url))
        process = await start(service.url, "logs", "--follow", "--json")
        assert await shown(process, 2) == ["a", "b"]
        await asyncio.to_thread(arrivals.batch(0, events("c"), record_ms=NOW + 1).write)
        assert await shown(process, 1) == ["c"]
    await asyncio.to_thread(arrivals.batch(1, events("d", "e"), record_ms=NOW + 2).write)
    async with query_service(url, port=int(service.url.rpartition(":")[2])):
        await asyncio.to_thread(arrivals.batch(0, events("f"), record_ms=NOW + 3).write)
        assert sorted(await shown(process, 3)) == ["d", "e", "f"]
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert out == b""
    said = err.decode().strip().splitlines()
    assert said[0].startswith("connection lost (")
    assert said[1:] == ["following again, nothing was missed"]


async def test_what_was_there_before_its_receipt_is_shown_once(database):
    """A log that was found when the command began comes again when it is proved, and is not shown again."""
    url, arrivals = database
    early = arrivals.batch(0, events("early"), record_ms=NOW)
    early.write_rows()
    async with query_service(url) as service:
        process = await start(service.url, "logs", "--follow", "--json")
        assert await shown(process, 1) == ["early"]
        await asyncio.to_thread(early.prove)
        await asyncio.to_thread(arrivals.batch(1, events("late"), record_ms=NOW).write)
        assert await shown(process, 1) == ["late"]
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 60)


async def test_files_are_whole(database, tmp_path):
    """NDJSON, CSV and Parquet by the file's ending, standard output with `-`, filters as elsewhere."""
    url, arrivals = database
    arrivals.batch(0, events("a", "b", user_id="u1"), record_ms=NOW).write()
    arrivals.batch(1, events("c", user_id="u2", message="=1+1"), record_ms=NOW).write()
    async with query_service(url) as service:
        for name in ("all.csv", "all.parquet", "all.ndjson"):
            status, out, err = await run(service.url, "logs", "--output", str(tmp_path / name))
            assert (status, out) == (0, ""), err
            assert err.startswith("3 logs, ")
        status, out, _ = await run(service.url, "logs", "-o", "-", "--user", "u2", "--search", "1+")
        assert status == 0
        assert [json.loads(line)["id"] for line in out.splitlines()] == ["c"]
    with (tmp_path / "all.csv").open(newline="") as opened:
        found = {row["id"]: row for row in csv.DictReader(opened)}
    assert found["c"]["message"] == "'=1+1"
    assert found.keys() == {"a", "b", "c"}
    assert {row["id"] for row in pq.read_table(tmp_path / "all.parquet").to_pylist()} == {"a", "b", "c"}
    assert {json.loads(line)["id"] for line in (tmp_path / "all.ndjson").read_text().splitlines()} == {"a", "b", "c"}


async def test_a_file_of_which_nobody_knows_how_many_it_holds_is_whole(database, tmp_path, monkeypatch):
    """Counting is a help for progress, which the service leaves where it takes too long; the file is no worse for it."""
    url, arrivals = database
    arrivals.batch(0, events("a", "b"), record_ms=NOW).write()

    async def too_slow(*_):
        return None

    monkeypatch.setattr(http_export, "_total", too_slow)
    async with query_service(url) as service:
        for name in ("all.csv", "all.parquet", "all.ndjson"):
            status, out, err = await run(service.url, "logs", "--output", str(tmp_path / name))
            assert (status, out) == (0, ""), err
            assert err.endswith(f" in {tmp_path / name}\n")
            assert "logs, " not in err
    assert {json.loads(line)["id"] for line in (tmp_path / "all.ndjson").read_text().splitlines()} == {"a", "b"}
    assert {row["id"] for row in pq.read_table(tmp_path / "all.parquet").to_pylist()} == {"a", "b"}


@pytest.mark.parametrize(
    "head",
    [b"transfer-encoding: chunked\r\n\r\n5\r\nhalf\n\r\n", b"content-length: 9\r\n\r\nhalf\n"],
    ids=["in chunks", "of a known length"],
)
async def test_a_file_that_breaks_off_is_not_there(tmp_path, head):
    """Exit 2 with one line, and neither the file nor a part of it; one of that name stays as it was."""
    file = tmp_path / "logs.ndjson"
    file.write_text("former\n")

    async def half(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nx-total-count: 9\r\n" + head)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        status, out, err = await run(f"http://127.0.0.1:{port}", "logs", "--output", str(file))
    assert (status, out) == (2, "")
    assert "broke off" in err
    assert err.count("\n") == 1
    assert file.read_text() == "former\n"
    assert [path.name for path in tmp_path.iterdir()] == ["logs.ndjson"]


@pytest.mark.parametrize("answer", [b'{"data":{},"successful":true}', b"[]", b"null", b"<html></html>"])
@pytest.mark.parametrize(
    "arguments",
    [
        *(["logs"], ["log", "x"], ["usage"], ["failures"], ["logs", "--follow"], ["logs", "-o", "-"]),
        ["send", "tests/data/upstream_errors.ndjson"],
    ],
    ids=" ".join,
)
async def test_another_server_at_that_address_is_told(arguments, answer):
    """Exit 2 with one line that asks for it, whatever it answers with a 200."""

    async def other(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(answer), answer))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(other, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        status, out, err = await run(f"http://127.0.0.1:{port}", *arguments)
    assert (status, out) == (2, "")
    assert "is it toolledger that listens there?" in err
    assert len(err.splitlines()) == 1 + (arguments[0] == "send")


async def test_what_is_no_file_stays_what_it_is(database, tmp_path):
    """Pipes and devices are written into, a link goes on pointing to its file, and a file keeps its permissions."""
    url, arrivals = database
    arrivals.batch(0, events("a", "b"), record_ms=NOW).write()
    pipe, file, link = (tmp_path / name for name in ("pipe", "file", "link"))
    os.mkfifo(pipe)
    file.write_text("former\n")
    file.chmod(0o600)
    link.symlink_to("file")
    async with query_service(url) as service:
        reading = asyncio.create_task(asyncio.to_thread(pipe.read_text))
        assert (await run(service.url, "logs", "-o", str(pipe)))[0] == 0
        assert {json.loads(line)["id"] for line in (await reading).splitlines()} == {"a", "b"}
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        status, out, _ = await run(service.url, "logs", "-o", "/dev/stdout")
        assert status == 0
        assert {json.loads(line)["id"] for line in out.splitlines()} == {"a", "b"}
        assert (await run(service.url, "logs", "-o", str(link)))[0] == 0
    assert link.is_symlink()
    assert {json.loads(line)["id"] for line in file.read_text().splitlines()} == {"a", "b"}
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "file", "link"}


async def test_an_export_that_is_ended_leaves_no_part(tmp_path):
    """SIGTERM in the middle of an answer: the file stays as it was, and nothing lies beside it."""
    file = tmp_path / "logs.ndjson"
    file.write_text("former\n")
    began = asyncio.Event()

    async def half(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-total-count: 9\r\n\r\n5\r\nhalf\n\r\n")
        await writer.drain()
        began.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with server:
        process = await start(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "logs", "--output", str(file))
        await began.wait()
        await asyncio.to_thread(eventually, "it is written", lambda: Path(f"{file}.part").exists())
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out, err) == (143, b"", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["logs.ndjson"]
    assert file.read_text() == "former\n"


async def test_two_exports_into_one_file_do_not_spoil_it(tmp_path):
    """While one is under way the other is refused, in one line; the file is what the first one was told, and nothing else."""
    file = tmp_path / "logs.ndjson"
    go_on = asyncio.Event()

    async def slow(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-total-count: 2\r\n\r\n6\r\nfirst\n\r\n")
        await writer.drain()
        await go_on.wait()
        writer.write(b"7\r\nsecond\n\r\n0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        process = await start(url, "logs", "--output", str(file))
        await asyncio.to_thread(eventually, "it is written", lambda: Path(f"{file}.part").exists())
        status, out, err = await run(url, "logs", "--output", str(file))
        assert (status, out) == (2, "")
        assert "another command" in err
        assert err.count("\n") == 1
        go_on.set()
        await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert file.read_text() == "first\nsecond\n"
    assert [path.name for path in tmp_path.iterdir()] == ["logs.ndjson"]


@pytest.mark.parametrize("arguments", [["--output", "f", "--follow"], ["--output", "f", "--limit", "3"], ["--with-data"]])
async def test_options_that_contradict_are_refused(arguments):
    """Exit 2 and one line."""
    status, out, err = await run("http://127.0.0.1:1", "logs", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
