"""Fill a data folder with a long history: millions of rows, the sums and receipts that belong to them, and the log's offsets.

`python -m tests.benchmarks.seed_executions --data FOLDER --rows 36000000` makes FOLDER/kafka and FOLDER/clickhouse, which
`Pipeline(Path(FOLDER), partitions=8).start()` opens afterwards. Everything follows from the event's number: made again, it is
the same history but for the day it ends. `toolledger verify` finds nothing in it.

An event's number n gives its id (MD5, as ids of ingest look), its home by ClickHouse's kafkaMurmurHash, and its batch:
n // BATCH_EVENTS_ALL is the batch of every partition, n % RECORDS the record within it.
"""

import argparse
import asyncio
import base64
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from clickhouse_connect.driver.client import Client

from deploy.verify.check import read_log
from ingest.contract import tables
from ingest.contract.sketch import LN_GAMMA
from ingest.contract.store import client as open_client
from ingest.contract.topics import CONSUMER_GROUP, TOOL_EXECUTIONS
from processors.opening import Plan
from tests.support.pipeline import Pipeline

PARTITIONS: Final = 8
# One batch of each partition: about 5,000 events in ten records, as a busy worker writes them.
BATCH_EVENTS_ALL: Final = 40_000
RECORDS: Final = 10
# One insert: small enough that its rows with their payloads stay within the engine's memory.
_ROWS_AT_ONCE: Final = 1_000_000
# A month of calls is a minute or several of merging.
_MERGE_S_MAX: Final = 3_600
_SPAN_MS: Final = (30 * 24 - 6) * 3_600_000
# The first one has half of all events.
PROJECTS: Final = ("acme", "acme", "acme", "acme", "acme", "birch", "birch", "cedar", "cedar", "delta")
# So many sessions run at a time, each of so many calls; every hundredth stands for calls outside any session.
_SESSIONS_AT_ONCE: Final = 2_000
_SESSION_CALLS: Final = 25
_TOOLS_A_SESSION: Final = 4
# Rows for each user there is; some are never seen, the busiest have thousands of sessions.
_ROWS_A_USER: Final = 100
_ACTIONS: Final = ("SEND_MESSAGE", "FETCH_ITEMS", "CREATE_ITEM", "UPDATE_ITEM")
_TOOLKITS: Final = (
    "gmail", "slack", "github", "notion", "google_calendar", "airline",
    "jira", "linear", "hubspot", "salesforce", "stripe", "figma",
)  # fmt: skip
# class, HTTP status, text as upstream APIs write it; `%` stands for something that differs from call to call.
_FAILURES: Final = (
    ("unauthorized", 401, "Request had invalid authentication credentials (token ending %)"),
    ("forbidden", 403, "Request had insufficient authentication scopes for %"),
    ("invalid_input", 422, "Validation failed: recipient user_%@example.com is not a valid address"),
    ("invalid_input", 400, "Error: flight HAT% not available on date 2026-05-14"),
    ("rate_limited", 429, "Rate limit exceeded, retry after % seconds"),
    ("upstream_error", 502, "upstream connect error or disconnect/reset before headers, request %"),
    ("timeout", 0, "timed out after % ms"),
    ("other", 404, "Requested entity % was not found"),
)
_FAILED_ONE_IN: Final = 25


def project(number: int) -> str:
    """Return the project of an event."""
    return PROJECTS[number % len(PROJECTS)]


def tool_slug(number: int) -> str:
    """Return one of the tools."""
    toolkit, action = divmod(number % (len(_TOOLKITS) * len(_ACTIONS)), len(_ACTIONS))
    return f"{_TOOLKITS[toolkit].upper()}_{_ACTIONS[action]}"


def event_id(number: int) -> str:
    """Return the id of an event, as SQL makes it below."""
    return "log_" + base64.urlsafe_b64encode(hashlib.md5(str(number).encode()).digest()[:9]).decode()


def _array(values: Sequence[object]) -> str:
    return "[" + ", ".join(repr(value) for value in values) + "]"


def events_sql(first: int, count: int, *, rows: int, end_ms: int) -> str:
    """Return a SELECT of events [first, first + count) with every column that is not left at its default."""
    start_ms = end_ms - _SPAN_MS
    users = max(1_000, rows // _ROWS_A_USER)
    tools = [tool_slug(number) for number in range(len(_TOOLKITS) * len(_ACTIONS))]
    classes, statuses, texts = zip(*_FAILURES, strict=True)
    together = _SESSIONS_AT_ONCE * _SESSION_CALLS
    return f"""
        SELECT
            number AS n,
            {_array(PROJECTS)}[1 + n % {len(PROJECTS)}] AS project_id,
            concat('log_', base64URLEncode(substring(MD5(toString(n)), 1, 9))) AS id,
            toUInt32(bitAnd(kafkaMurmurHash(concat(project_id, '/', id)), 2147483647) % {PARTITIONS}) AS kafka_partition,
            intDiv(n, {together}) * {_SESSIONS_AT_ONCE} + n % {_SESSIONS_AT_ONCE} AS session,
            toInt64({start_ms} + intDiv(n * {_SPAN_MS}, {rows})) AS accepted_ms,
            accepted_ms - 20 - cityHash64(n) % 5000 AS at_ms,
            cityHash64(session, intDiv(n, {_SESSIONS_AT_ONCE}) % {_TOOLS_A_SESSION}) / pow(2, 64) AS chance,
            toInt64(pow(chance, 1.5) * {len(tools)}) AS tool,
            {_array(tools)}[1 + tool] AS tool_slug,
            {_array(_TOOLKITS)}[1 + intDiv(tool, {len(_ACTIONS)})] AS toolkit_slug,
            concat('user_', toString(toInt64(pow(cityHash64(session) / pow(2, 64), 2) * {users}))) AS user_id,
            if(session % 100 = 0, '', concat('sess_', lower(hex(cityHash64(session, 1))))) AS session_id,
            concat('ca_', lower(hex(cityHash64(user_id, toolkit_slug)))) AS connected_account_id,
            cityHash64(n, 2) % {_FAILED_ONE_IN} = 0 AS failed,
            if(failed, 'failed', 'success') AS status,
            1 + cityHash64(n, 3) % {len(_FAILURES)} AS failure,
            if(failed, {_array(classes)}[failure], '') AS failure_class,
            if(failed, {_array(statuses)}[failure], 200) AS http_status,
            if(failed, replaceOne({_array(texts)}[failure], '%', toString(cityHash64(n, 8) % 100000)), '') AS error_message,
            toFloat64(20 + intExp2(cityHash64(n, 4) % 8) * (1 + cityHash64(n, 5) % 16)) AS duration_ms,
            lower(hex(cityHash64(n, 9))) AS token,
            intDiv(n, {BATCH_EVENTS_ALL}) * {RECORDS} AS first_offset,
            first_offset + n % {RECORDS} AS kafka_offset
        FROM numbers({first}, {count})"""


def executions_sql(events: str, incarnation: str) -> str:
    """Return the INSERT of rows, with a request and a response of some 450 bytes."""
    return f"""
        INSERT INTO tool_executions (batch_month, project_id, timestamp, id, tool_slug, toolkit_slug, user_id, session_id,
            status, failure_class, http_status, duration_ms, level, message, error_message, connected_account_id, trace_id,
            request_id, framework, language, host, data, content_hash, accepted_at, incarnation, kafka_partition, first_offset,
            kafka_offset, kafka_index)
        SELECT toYYYYMM(fromUnixTimestamp64Milli(accepted_ms, 'UTC')), project_id, fromUnixTimestamp64Milli(at_ms, 'UTC'), id,
            tool_slug, toolkit_slug, user_id, session_id, status, failure_class, http_status, duration_ms,
            if(failed, 'error', 'info'),
            if(failed, concat(tool_slug, ' failed: ', error_message), concat(tool_slug, ' succeeded')), error_message,
            connected_account_id, lower(hex(cityHash64(session, 2))), concat('req_', token), 'openai', 'python', 'sdk',
            concat('{{"request":{{"payload":{{"to":"', user_id, '@example.com","item_id":"', token, '","subject":"About ',
                toString(n % 9973), '","body":"Hello, this is what we spoke about; please have a look by Friday."}}}},',
                '"response":{{"body":{{"id":"', token, '","owner":"', user_id, '","state":"done","labels":["inbox",',
                '"important"],"items":[{{"name":"first","price":', toString(n % 997), '}},{{"name":"second","price":',
                toString(n % 991), '}}],"created_at":"', toString(accepted_ms), '","next_page":null}}}}}}'),
            cityHash64(n, 6), fromUnixTimestamp64Milli(accepted_ms, 'UTC'), '{incarnation}', kafka_partition, first_offset,
            kafka_offset, intDiv(n % {BATCH_EVENTS_ALL}, {RECORDS})
        FROM ({events})"""


_KINDS: Final = (
    ("tool_minute", 60, ()),
    ("tool_hour", 3600, ()),
    ("tool_day", 86400, ()),
    ("user_hour", 3600, ("user_id", "connected_account_id")),
    ("session_hour", 3600, ("user_id", "connected_account_id", "session_id")),
)


def sums_sql(events: str, incarnation: str) -> list[str]:
    """Return the INSERTs of sums."""
    made = []
    for kind, length_s, more in _KINDS:
        keys = ", ".join(("tool_slug", "toolkit_slug", "status", "failure_class", *more))
        # A call without a session is in no row of sessions.
        some = "WHERE session_id != ''" if kind == "session_hour" else ""
        first = "min((at_ms, id))" if kind == "session_hour" else "(9223372036854775807, '')"
        made.append(
            f"""
        INSERT INTO usage_windows (batch_month, kind, project_id, incarnation, kafka_partition, window_start, {keys}, calls,
            durations, first_call)
        SELECT toYYYYMM(fromUnixTimestamp64Milli(max(accepted_ms), 'UTC')), '{kind}', project_id, '', 0,
            toDateTime(intDiv(at_ms, 1000 * {length_s}) * {length_s}, 'UTC') AS start, {keys}, count(),
            CAST(sumMap([toInt16(ceil(log(duration_ms) / {LN_GAMMA!r}))], [toUInt64(1)]), 'Map(Int16, UInt64)'), {first}
        FROM ({events}) {some} GROUP BY project_id, start, {keys}"""
        )
    for kind, column in (("user_day", "user_id"), ("session_day", "session_id")):
        made.append(
            f"""
        INSERT INTO usage_windows (batch_month, kind, project_id, window_start, {column}, first_call, last_call_ms)
        SELECT toYYYYMM(fromUnixTimestamp64Milli(max(accepted_ms), 'UTC')), '{kind}', project_id,
            toDateTime(intDiv(at_ms, 86400000) * 86400, 'UTC') AS start, {column}, (min(at_ms), ''), max(at_ms)
        FROM ({events}) WHERE {column} != '' GROUP BY project_id, start, {column}"""
        )
    return made


def receipts_sql(events: str, incarnation: str) -> list[str]:
    """Return the INSERTs of a receipt a batch, and one a batch and project."""
    made = []
    for kind, owner, records in (("receipt", "''", RECORDS), ("project_receipt", "project_id", 0)):
        by = "kafka_partition, first_offset" + (", project_id" if records == 0 else "")
        made.append(
            f"""
        INSERT INTO usage_windows (batch_month, kind, project_id, incarnation, kafka_partition, window_start, first_offset,
            first_call, receipts, next_offset, records, events, accepted, newest_record_ms)
        SELECT toYYYYMM(fromUnixTimestamp64Milli(max(accepted_ms), 'UTC')), '{kind}', {owner}, '{incarnation}', kafka_partition,
            toDateTime(intDiv(max(accepted_ms), 3600000) * 3600, 'UTC'), first_offset, (9223372036854775807, ''), 1,
            first_offset + {RECORDS}, {records}, count(), count(), max(accepted_ms)
        FROM ({events}) GROUP BY {by}"""
        )
    return made


def fill(store: Client, *, rows: int, incarnation: str, end_ms: int) -> None:
    """Write the whole history, and say how far it is."""
    began = time.monotonic()
    for first in range(0, rows, _ROWS_AT_ONCE):
        count = min(_ROWS_AT_ONCE, rows - first)
        events = events_sql(first, count, rows=rows, end_ms=end_ms)
        statements = [executions_sql(events, incarnation), *sums_sql(events, incarnation), *receipts_sql(events, incarnation)]
        for statement in statements:
            store.command(
                statement,
                settings={
                    "max_threads": 2,
                    "max_insert_threads": 1,
                    "min_insert_block_size_rows": count,
                },
            )
        print(f"{first + count:>12,} rows  {time.monotonic() - began:7.0f} s", flush=True)


async def _fill_log(kafka: str, offsets: int) -> None:
    """Put as many records into each partition as receipts prove; nobody will read them, for the group is behind them."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=5)
    await producer.start()
    try:
        sent = [await producer.send(TOOL_EXECUTIONS, b"-", partition=n % PARTITIONS) for n in range(offsets * PARTITIONS)]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    log = await read_log(kafka)
    plan = Plan(first_offset=offsets - RECORDS, incarnation=log.incarnation, began=0, partitions=PARTITIONS)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=CONSUMER_GROUP, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(TOOL_EXECUTIONS, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.commit(dict.fromkeys(partitions, (offsets, plan.encode())))
    finally:
        await consumer.stop()


def merged(store: Client) -> None:
    """Wait until no merge runs."""
    while store.query("SELECT count() FROM system.merges").result_rows[0][0]:
        time.sleep(1)  # the engine tells nobody when it is done


def close_months(url: str) -> None:
    """Merge each month that is over into one part, as the engine does by itself a day later."""
    store = open_client(url, read_timeout_s=_MERGE_S_MAX)
    for table in (tables.TOOL_EXECUTIONS, tables.USAGE_WINDOWS):
        months = store.query(f"SELECT DISTINCT batch_month FROM {table} ORDER BY batch_month").result_rows
        for (month,) in months[:-1]:
            store.command(f"OPTIMIZE TABLE {table} PARTITION {month} FINAL")
    store.close()


def sizes(store: Client) -> Sequence[tuple[str, int, int]]:
    """Return (table, rows, bytes on disk)."""
    found = store.query(
        "SELECT table, sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = currentDatabase() GROUP BY 1"
    )
    return [(str(table), int(rows), int(nbytes)) for table, rows, nbytes in found.result_rows]


def seed(folder: Path, rows: int) -> None:
    """Make a folder with a history that ends now."""
    assert rows % BATCH_EVENTS_ALL == 0, f"whole batches only: a multiple of {BATCH_EVENTS_ALL}"
    folder.mkdir(parents=True)
    pipeline = Pipeline(folder, partitions=PARTITIONS)
    try:
        pipeline.start()
        store = pipeline.store()
        asyncio.run(_fill_log(pipeline.kafka.address, rows // BATCH_EVENTS_ALL * RECORDS))
        log = asyncio.run(read_log(pipeline.kafka.address))
        fill(store, rows=rows, incarnation=log.incarnation, end_ms=time.time_ns() // 1_000_000)
        close_months(pipeline.clickhouse_url)
        merged(store)
        for table, count, nbytes in sizes(store):
            print(f"{table:16} {count:>12,} rows  {nbytes / 2**20:>8,.0f} MiB", flush=True)
        store.close()
        assert pipeline.clickhouse is not None
        pipeline.clickhouse.end()
        pipeline.kafka.stop()
    finally:
        pipeline.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder to make; it must not exist")
    parser.add_argument("--rows", type=int, default=36_000_000)
    options = parser.parse_args()
    seed(options.data, options.rows)


if __name__ == "__main__":
    main()
