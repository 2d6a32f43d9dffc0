"""How far behind the pipeline is: the age of the oldest moment whose records are not all proved yet."""

import asyncio
import time
from collections import deque
from typing import Final

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from ingest.contract import tables
from ingest.contract.topics import TOOL_EXECUTIONS

_POLL_S: Final = 0.4
_TIMEOUT_S: Final = 3.0
_PROVED: Final = (
    f"SELECT kafka_partition, toUInt64(max(next_offset)) FROM {tables.USAGE_WINDOWS}"
    f" WHERE kind = '{tables.KIND_RECEIPT}' AND project_id = '' GROUP BY 1 FORMAT TSV"
)


class Watch:
    """Looks at the log's ends and at the receipts, again and again, through any outage."""

    def __init__(self, kafka: str, clickhouse: str, *, partitions: int) -> None:
        self._kafka, self._clickhouse = kafka, clickhouse
        self._keys = [TopicPartition(TOOL_EXECUTIONS, number) for number in range(partitions)]
        self._ends: deque[tuple[float, dict[int, int]]] = deque()
        self._consumer: AIOKafkaConsumer | None = None
        # Everything Kafka had at this moment is proved.
        self.proved_s = 0.0
        self.lag_records = 0

    def behind_s(self) -> float:
        """Return for how long nothing newer was proved."""
        return time.monotonic() - self.proved_s

    async def run(self) -> None:
        """Look until cancelled."""
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
                while True:
                    await self._look(http)
                    await asyncio.sleep(_POLL_S)
        finally:
            await self._close()

    async def _look(self, http: httpx.AsyncClient) -> None:
        ends = await self._log_ends()
        if ends is not None:
            self._ends.append(ends)
        try:
            answer = await http.post(self._clickhouse, content=_PROVED)
        except httpx.TransportError:
            return
        if answer.status_code != 200 or not self._ends:
            return
        pairs = [line.split("\t") for line in answer.text.splitlines()]
        proved = {int(partition): int(offset) for partition, offset in pairs}
        while self._ends and all(proved.get(number, 0) >= end for number, end in self._ends[0][1].items()):
            self.proved_s = self._ends.popleft()[0]
        self.lag_records = (
            sum(max(0, end - proved.get(number, 0)) for number, end in self._ends[-1][1].items()) if self._ends else 0
        )

    async def _log_ends(self) -> tuple[float, dict[int, int]] | None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                if self._consumer is None:
                    consumer = AIOKafkaConsumer(
                        bootstrap_servers=self._kafka, enable_auto_commit=False, request_timeout_ms=2000
                    )
                    self._consumer = consumer
                    await consumer.start()
                asked_s = time.monotonic()
                found = await self._consumer.end_offsets(self._keys)
        except (KafkaError, OSError, TimeoutError):
            await self._close()
            return None
        return asked_s, {key.partition: offset for key, offset in found.items()}

    async def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await consumer.stop()
            except (KafkaError, OSError, TimeoutError):
                return  # it was given up because Kafka is away; there is nothing more to end
