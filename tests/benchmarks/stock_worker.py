"""Stock Faust doing what our worker does: the same decoding, sums and inserts, but records come one by one through `take`.

No plan, no receipt and no recovery: it is what the run driver is compared with, not a way to count. Run by `bench_worker`.
"""

import asyncio
import logging
import os
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

import faust
from yarl import URL

from ingest.contract.topics import TOOL_EXECUTIONS
from processors.batch import Batch, read, settle
from processors.decode import Record
from processors.dedupe import SeenFilter
from processors.sink import ClickHouseStore

# As many as `take` may wait for: more did not make it faster, fewer made it slower.
_TAKEN = 5_000
_WITHIN_S = 0.2


def main(partitions: int, expected: int) -> None:
    """Consume until `expected` events are written, then print seconds and CPU seconds, and end the process."""
    app = faust.App(
        "stock-worker",
        broker=[URL(f"kafka://{os.environ['TOOLLEDGER_KAFKA']}")],
        datadir=tempfile.mkdtemp(),
        stream_buffer_maxsize=2 * _TAKEN,
        broker_max_poll_records=_TAKEN,
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
    )
    topic = app.topic(TOOL_EXECUTIONS, value_serializer="raw")
    store = ClickHouseStore(
        os.environ["TOOLLEDGER_CLICKHOUSE"], timeout_ms=30_000, now_ms=lambda: time.time_ns() // 1_000_000, horizon_ms=1
    )
    seen: dict[int, SeenFilter] = defaultdict(lambda: SeenFilter(budget_bytes=16 * 1024 * 1024))
    began = [0.0, 0.0]
    written = 0

    @app.agent(topic)
    async def ledger(stream: Any) -> None:
        nonlocal written
        async for events in stream.noack().take_events(_TAKEN, within=_WITHIN_S):
            if not began[0]:
                began[:] = [time.perf_counter(), time.process_time()]
            for event in events:
                event.ack()
            by_partition: dict[int, list[Any]] = defaultdict(list)
            for event in events:
                by_partition[event.message.partition].append(event.message)
            for partition, messages in by_partition.items():
                written += await _write(partition, messages)
            if written >= expected:
                sys.stdout.write(f"{time.perf_counter() - began[0]:.3f} {time.process_time() - began[1]:.3f}\n")
                sys.stdout.flush()
                os._exit(0)

    async def _write(partition: int, messages: list[Any]) -> int:
        records = [
            Record(
                offset=message.offset,
                timestamp_ms=int(message.timestamp * 1000),
                key=message.key,
                value=message.value,
                headers=list(message.headers or ()),
            )
            for message in messages
        ]
        batch = Batch(
            incarnation="00" * 16,
            partition=partition,
            partitions=partitions,
            first_offset=records[0].offset,
            next_offset=records[-1].offset + 1,
            records=records,
        )
        prepared = settle(read(batch, seen=seen[partition]), known={}, stores_payload=lambda _: True, window_close_ms=300_000)
        await asyncio.gather(store.write_executions(prepared), store.write_usage(prepared))
        seen[partition].add(prepared.accepted_hashes, accepted_ms=prepared.newest_record_ms)
        return prepared.totals["events"]

    logging.disable(logging.WARNING)
    faust.Worker(app, loglevel="ERROR", redirect_stdouts=False, quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
