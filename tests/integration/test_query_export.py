"""The export: the answer of one moment, in three formats, whatever arrives or breaks meanwhile."""

import asyncio
import contextlib
import csv
import gzip
import io
import random
import time
from urllib.parse import urlencode

import aiohttp
import orjson
import pyarrow.parquet as pq
import pytest
import pytest_asyncio
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.errors import QueryError, StoreUnavailable
from ingest.contract.store import client as open_client
from query_api.export import pages as export_pages
from query_api.export.formats import FORMATS
from query_api.filters import OPERATORS
from tests.support import rows
from tests.support.arrivals import Arrivals
from tests.support.query_service import KEY_A, KEY_B, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

EXPORT = "/v1/logs/export"
T0 = 1_795_600_000_000
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HOSTILE = (
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\0=1",
    "\uff1d1",
    'say "x", please',
    "two\r\nlines",
    "nul\0byte",
    "ünï©ode 𐐀",
    "'quoted",
    "",
)
FIELDS = ("tool_slug", "user_id", "session_id", "status", "error_message")


def make_events():
    chance = random.Random(11)
    events = []
    for index in range(900):
        failed = chance.random() < 0.3
        events.append(
            {
                "id": f"log_{chance.choice(['', 'Z', 'é', '𐐀'])}{index}",
                "project_id": chance.choice(["proj_a", "proj_a", "proj_b"]),
                "timestamp": T0 + chance.choice([0, 0, chance.randrange(10_000), chance.randrange(9) * 86_400_000]),
                "tool_slug": chance.choice(["GMAIL_SEND_EMAIL", "GITHUB_CREATE"]),
                "user_id": chance.choice(HOSTILE),
                "session_id": chance.choice(["", "ses_1"]),
                "status": "failed" if failed else "success",
                "message": chance.choice(HOSTILE),
                "error_message": chance.choice(HOSTILE) if failed else "",
                "http_status": chance.choice([0, 422]),
                "duration_ms": chance.random() * 1000,
                "metadata": chance.choice(["", '{"a":\r\n 1}']),
                "data": '{"request": {"n":\n1.00}}',
            }
        )
    return events


EVENTS = make_events()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url, contextlib.closing(open_client(url)) as client:
        arrivals = Arrivals(client)
        for start in range(0, len(EVENTS), 100):
            arrivals.batch(start // 100 % 3, [EVENTS[start : start + 100]], record_ms=T0 + start).write()
        # Rows that no receipt proves yet are not in the answer of this moment.
        arrivals.batch(0, [[{"id": "unproved", "timestamp": T0}]], record_ms=T0).write_rows()
        async with query_service(url) as running:
            yield running


def holds(event, field, operator, value):
    """Decide a filter the plain way."""
    equal, contained = event[field] == value, value.casefold() in event[field].casefold()
    return {"==": equal, "!=": not equal, "contains": contained, "not_contains": not contained}[operator]


def brute(project, filters, from_ms, to_ms):
    """Return the events asked for, newest first."""
    found = [
        event
        for event in EVENTS
        if event["project_id"] == project
        and (from_ms is None or event["timestamp"] >= from_ms)
        and (to_ms is None or event["timestamp"] < to_ms)
        and all(holds(event, *one) for one in filters)
    ]
    return sorted(found, key=lambda event: (event["timestamp"], event["id"].encode()), reverse=True)


def read(kind, raw):
    """Return the table of a file, as its readers read it: dicts of texts and numbers, nothing where there is nothing."""
    if kind == "ndjson":
        assert raw.endswith(b"\n") or not raw
        return [orjson.loads(line) for line in raw.split(b"\n")[:-1]]
    if kind == "csv":
        return list(csv.DictReader(io.StringIO(raw.decode(), newline=""), strict=True))
    return pq.read_table(io.BytesIO(raw)).to_pylist()


def plain(text):
    """Return a cell of CSV that may hold the text."""
    return f"'{text}" if text.startswith((*"=+-@\t\r\n\0", *"\uff1d\uff0b\uff0d\uff20")) else text


def check(kind, found, expected):
    assert [row["id"] for row in found] == [event["id"] for event in expected]
    for row, event in zip(found, expected, strict=True):
        if kind == "ndjson":
            assert row.get("message", "") == event["message"]
            assert row["metadata"].get("user_id", "") == event["user_id"]
            assert row["metrics"]["duration_ms"] == event["duration_ms"]
        elif kind == "csv":
            assert row["user_id"] == plain(event["user_id"])
            assert row["message"] == plain(event["message"])
            assert float(row["duration_ms"]) == event["duration_ms"]
            assert int(row["http_status"] or 0) == event["http_status"]
        else:
            assert (row["user_id"] or "") == event["user_id"]
            assert (row["error_message"] or "") == event["error_message"]
            assert row["duration_ms"] == event["duration_ms"]
            assert (row["http_status"] or 0) == event["http_status"]
            assert int(row["timestamp"].timestamp() * 1000 + 0.5) == event["timestamp"]


conditions = st.tuples(st.sampled_from(FIELDS), st.sampled_from(OPERATORS), st.sampled_from([*HOSTILE, "GMAIL", "failed", "l"]))
moments = st.none() | st.integers(T0 - 2, T0 + 12_000) | st.sampled_from([T0, T0 + 1, T0 + 86_400_000])


@many
@given(
    kind=st.sampled_from(FORMATS),
    key=st.sampled_from([KEY_A, KEY_B]),
    filters=st.lists(conditions, max_size=2),
    given=st.tuples(moments, moments),
)
async def test_an_export_is_what_a_plain_comparison_finds(service, kind, key, filters, given):
    """Any filters and range, in each format: the same logs in the same order, every value as it was, formulas disarmed."""
    from_ms, to_ms = given
    if from_ms is not None and to_ms is not None and from_ms > to_ms:
        from_ms, to_ms = to_ms, from_ms
    query = [("format", kind), *(("filter", ":".join(one)) for one in filters)]
    query += [(name, at_ms) for name, at_ms in (("from", from_ms), ("to", to_ms)) if at_ms is not None]
    reply = await service.get(EXPORT, query, key=key)
    assert reply.status == 200, reply.raw
    expected = brute("proj_a" if key == KEY_A else "proj_b", filters, from_ms, to_ms)
    assert int(reply.headers["x-total-count"]) == len(expected)
    check(kind, read(kind, reply.raw), expected)


async def test_pages_of_any_size_make_the_same_file(service, monkeypatch):
    """One row at a time, or with pages that are too large at first, nothing is missed or repeated."""
    expected = [event["id"] for event in brute("proj_a", [], None, None)]
    for rows_first, rows_max, bytes_max in ((1, 1, 1 << 20), (3, 7, 1 << 20), (1000, 8000, 20_000)):
        monkeypatch.setattr(export_pages, "_ROWS_FIRST", rows_first)
        monkeypatch.setattr(export_pages, "_ROWS_MAX", rows_max)
        monkeypatch.setattr(export_pages, "PAGE_BYTES_MAX", bytes_max)
        reply = await service.get(EXPORT)
        assert [row["id"] for row in read("ndjson", reply.raw)] == expected


async def test_payloads_come_when_asked_for(service):
    """With `data=true` a line is the detail of the log, and CSV and Parquet have the column."""
    reply = await service.get(EXPORT, {"data": "true"})
    first = read("ndjson", reply.raw)[0]
    shown = await service.get("/api/v3.1/logs/tool_execution/" + first["id"])
    assert first == shown.body
    for kind in ("csv", "parquet"):
        reply = await service.get(EXPORT, {"data": "true", "format": kind})
        assert {row["data"] for row in read(kind, reply.raw)} == {'{"request": {"n":\n1.00}}'}
        assert b"request" not in (await service.get(EXPORT, {"format": "ndjson"})).raw


async def test_files_are_packed_on_the_way_where_that_is_taken(service):
    """gzip and zstd as `Accept-Encoding` says; the file is the same; Parquet is packed already."""
    whole = (await service.get(EXPORT, headers={"accept-encoding": "identity"})).raw
    unpack = {"gzip": gzip.decompress, "zstd": lambda raw: zstandard.ZstdDecompressor().decompressobj().decompress(raw)}
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        for coding, opened in unpack.items():
            headers = {"x-api-key": KEY_A, "accept-encoding": f"br, {coding};q=0.5"}
            async with http.get(service.url + EXPORT, headers=headers) as response:
                assert response.headers["content-encoding"] == coding
                packed = await response.read()
            assert opened(packed) == whole
            assert len(packed) < len(whole) / 3
            async with http.get(f"{service.url}{EXPORT}?format=parquet", headers=headers) as response:
                assert "content-encoding" not in response.headers
                assert response.headers["content-disposition"] == 'attachment; filename="logs-proj_a.parquet"'


async def test_what_arrives_meanwhile_is_not_in_it(clickhouse_url, monkeypatch):
    """The file is the answer of one moment, though rows of any time arrive between its pages."""
    monkeypatch.setattr(export_pages, "_ROWS_FIRST", 50)
    monkeypatch.setattr(export_pages, "_ROWS_MAX", 50)
    with rows.fresh_database(clickhouse_url) as url, contextlib.closing(open_client(url)) as client:
        arrivals = Arrivals(client)
        made = [{"id": f"{number}", "timestamp": T0 + number * 10, "message": "x" * 5_000} for number in range(1_000)]
        arrivals.batch(0, [made], record_ms=T0).write()
        async with query_service(url) as service, aiohttp.ClientSession() as http:
            async with http.get(service.url + EXPORT, headers={"x-api-key": KEY_A}) as response:
                first = await response.content.readany()
                for number in range(8):
                    late = [{"id": f"late{number}_{one}", "timestamp": T0 + one * 997} for one in range(11)]
                    await asyncio.to_thread(arrivals.batch(number % 2, [late], record_ms=T0 + number).write)
                raw = first + await response.read()
            assert [row["id"] for row in read("ndjson", raw)] == [event["id"] for event in reversed(made)]
            assert len(read("ndjson", (await service.get(EXPORT)).raw)) == len(made) + 88


async def test_a_file_that_breaks_off_breaks_the_connection(service, monkeypatch):
    """Whoever reads it sees an error, in each format, and the place of the export is free again."""
    monkeypatch.setattr(export_pages, "_ROWS_FIRST", 100)
    monkeypatch.setattr(export_pages, "_ROWS_MAX", 100)
    monkeypatch.setattr(export_pages, "_TRIES", 1)
    reader = service.services.reader
    ask, asked = reader.rows, []

    async def failing(statement, **more):
        asked.append(statement)
        if "LIMIT" in statement.text and len(asked) > 5:
            raise StoreUnavailable("it went away")
        return await ask(statement, **more)

    monkeypatch.setattr(reader, "rows", failing)
    async with aiohttp.ClientSession() as http:
        for kind in FORMATS:
            asked.clear()
            async with http.get(f"{service.url}{EXPORT}?format={kind}", headers={"x-api-key": KEY_A}) as response:
                assert response.status == 200
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()
    assert service.services.exports.open == 0


async def test_clickhouse_may_be_away_for_a_moment(service, monkeypatch):
    """A page that could not be had is asked for again; the file is whole."""
    monkeypatch.setattr(export_pages, "_ROWS_FIRST", 100)
    monkeypatch.setattr(export_pages, "_ROWS_MAX", 100)
    monkeypatch.setattr(export_pages, "_PAUSE_S", 0.001)
    reader = service.services.reader
    ask, asked = reader.rows, []

    async def flaky(statement, **more):
        asked.append(statement)
        if "LIMIT" in statement.text and len(asked) % 2:
            raise StoreUnavailable("it is starting")
        return await ask(statement, **more)

    monkeypatch.setattr(reader, "rows", flaky)
    reply = await service.get(EXPORT)
    assert [row["id"] for row in read("ndjson", reply.raw)] == [event["id"] for event in brute("proj_a", [], None, None)]


async def test_a_page_that_takes_too_long_is_asked_for_in_parts(service, monkeypatch):
    """Where few logs fit, a part of the range is as long as ClickHouse manages; the file is the same."""
    reader = service.services.reader
    ask, refused = reader.rows, []

    async def slow(statement, **more):
        values = statement.values
        if "LIMIT" in statement.text and values["to_ms"] - values["from_ms"] > 5_000_000:
            refused.append(statement)
            raise QueryError(504, "Query_TooSlow", "The question took too long.")
        return await ask(statement, **more)

    monkeypatch.setattr(reader, "rows", slow)
    reply = await service.get(EXPORT)
    assert [row["id"] for row in read("ndjson", reply.raw)] == [event["id"] for event in brute("proj_a", [], None, None)]
    assert 5 < len(refused) < 500


async def test_too_many_exports_are_refused(clickhouse_url):
    """One more than are taken is 503 with Retry-After; one that a reader leaves gives its place back."""
    with rows.fresh_database(clickhouse_url) as url, contextlib.closing(open_client(url)) as client:
        arrivals = Arrivals(client)
        made = [{"id": f"{number}", "timestamp": T0 + number, "message": "x" * 16_000} for number in range(2_000)]
        arrivals.batch(0, [made], record_ms=T0).write()
        async with query_service(url, query_exports_max=1) as service, aiohttp.ClientSession() as http:
            async with http.get(service.url + EXPORT, headers={"x-api-key": KEY_A}) as response:
                await response.content.readany()
                refused = await service.get(EXPORT)
                assert refused.status == 503
                assert int(refused.headers["retry-after"]) > 0
                response.close()
            deadline = time.monotonic() + 60
            while service.services.exports.open and time.monotonic() < deadline:  # noqa: ASYNC110 - it sets no event
                await asyncio.sleep(0.01)
            assert (await service.get(EXPORT, {"to": T0})).status == 200


@pytest.mark.parametrize(
    "wrong", ["format=xml", "data=perhaps", "from=5&to=4", "limit=3", "filter=a:==:b", "status=a&format=csv&format=csv"]
)
async def test_what_cannot_be_asked_is_refused(service, wrong):
    """400 with the reason, and no file."""
    reply = await service.get(f"{EXPORT}?{wrong}")
    assert reply.status == 400
    assert reply.body["error"]["errors"]


async def test_a_file_without_logs_is_a_file(service):
    """Nothing fits: no line, a header alone, an empty table."""
    query = urlencode({"user_id": "nobody at all"})
    for kind in FORMATS:
        reply = await service.get(f"{EXPORT}?{query}&format={kind}")
        assert reply.headers["x-total-count"] == "0"
        assert read(kind, reply.raw) == []
        assert bool(reply.raw) == (kind != "ndjson")
