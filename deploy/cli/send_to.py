"""Where `toolledger send` sends batches: the HTTP API, or Kafka itself. Each keeps trying for as long as its patience lasts."""

import asyncio
import email.utils
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, Protocol

from deploy.api import Answer, Api, fault
from deploy.cli.send_input import Batch, Refusal
from ingest.contract.errors import BrokerUnavailable, ConfigurationError, LedgerError

# Batches on their way at once: while one waits for Kafka, the next ones are worked on.
IN_FLIGHT: Final = 4
_PAUSE_S: Final = 0.5
# What is abandoned may take that long to notice.
_LEAVE_S: Final = 2.0
_PAUSE_S_MAX: Final = 10.0
# What a proxy or a service that is being started answers; all else it will answer again.
_TRANSIENT: Final = frozenset((408, 425, 429, 500, 502, 503, 504))


class Sender(Protocol):
    """Sends batches."""

    def submit(self, batch: Batch, key: str) -> "Future[list[Refusal]]":
        """Begin to send a batch; the result is what was refused of it.

        Args:
            key: makes the ids of events without one; the same key and batch make the same ids.
        """

    def hurry(self) -> None:
        """Try nothing again from now on: what fails has failed."""

    def close(self) -> None:
        """End, with what is under way."""


class Patience:
    """How long a server that does not take anything is waited for, with growing pauses.

    Args:
        patience_s: measured from the first failure of a batch.
        ended: set where nobody waits any more.
    """

    def __init__(self, patience_s: float, ended: threading.Event) -> None:
        self._patience_s, self._ended = patience_s, ended
        self._deadline: float | None = None
        self._pause_s = _PAUSE_S

    def next_pause_s(self, asked_s: float | None, error: Exception) -> float:
        """Return how long to wait before the next try.

        Args:
            asked_s: what the server asked for.

        Raises:
            Exception: the error, where patience is over.
        """
        now = time.monotonic()
        self._deadline = self._deadline or now + self._patience_s
        # Not all at once: many may wait for the same server.
        pause_s = asked_s if asked_s is not None else self._pause_s * random.uniform(0.75, 1.25)  # noqa: S311
        self._pause_s = min(2 * self._pause_s, _PAUSE_S_MAX)
        if now + pause_s > self._deadline or self._ended.is_set():
            raise error
        return pause_s


class HttpSender:
    """Over the HTTP API, on a few kept connections.

    Args:
        connect: makes a client of the API; each thread has its own.
    """

    def __init__(self, connect: Callable[[], Api], *, patience_s: float) -> None:
        self._connect, self._patience_s = connect, patience_s
        self._own = threading.local()
        self._apis: list[Api] = []
        self._ended = threading.Event()
        self._answered = False
        self._threads = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="send")

    def submit(self, batch: Batch, key: str) -> "Future[list[Refusal]]":
        return self._threads.submit(self._send, batch, key)

    def hurry(self) -> None:
        self._ended.set()

    def close(self) -> None:
        self._ended.set()
        for api in self._apis:
            api.abort()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _send(self, batch: Batch, key: str) -> list[Refusal]:
        body, content_type = batch.body()
        headers = {"content-type": content_type, "idempotency-key": key}
        patience = Patience(self._patience_s, self._ended)
        while True:
            if self._ended.is_set():
                raise CancelledError
            try:
                answer = self._api().send("POST", "/v1/events", body, headers)
                self._answered = True
            except ConfigurationError as error:
                # A service that never answered is not there; one that did is being started again.
                if not self._answered:
                    raise
                self._ended.wait(patience.next_pause_s(None, error))
                continue
            if answer.status == 413 and len(batch.raws) > 1:
                return self._send_halves(batch, key)
            if (refused := _refused(answer, batch)) is not None:
                return refused
            if answer.status not in _TRANSIENT:
                raise fault(answer)
            self._ended.wait(patience.next_pause_s(_retry_after_s(answer.headers), fault(answer)))

    def _send_halves(self, batch: Batch, key: str) -> list[Refusal]:
        """Send a batch in two that is too large for the limits of that service."""
        middle = len(batch.raws) // 2
        halves = (
            replace(batch, numbers=batch.numbers[:middle], raws=batch.raws[:middle]),
            replace(batch, numbers=batch.numbers[middle:], raws=batch.raws[middle:]),
        )
        return [one for place, half in enumerate(halves) for one in self._send(half, f"{key}.{place}")]

    def _api(self) -> Api:
        api: Api | None = getattr(self._own, "api", None)
        if api is None:
            api = self._own.api = self._connect()
            self._apis.append(api)
        return api


def _refused(answer: Answer, batch: Batch) -> list[Refusal] | None:
    """Read what was refused of a batch; None where the answer is about the whole of it."""
    if answer.status == 413:
        return [Refusal(number=batch.numbers[0], code="event_too_large", message=str(fault(answer)))]
    if answer.status not in (202, 400):
        return None
    members = answer.json()
    rejected = members.get("rejected") if isinstance(members, dict) else None
    if not isinstance(rejected, list) or (answer.status == 400 and not rejected):
        return None
    return [_refusal(one, batch) for one in rejected]


def _refusal(told: Mapping[str, Any], batch: Batch) -> Refusal:
    return Refusal(number=batch.numbers[int(told["index"])], code=str(told["code"]), message=str(told["message"]))


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return what `Retry-After` asks for, seconds or a date."""
    value = {name.lower(): text for name, text in headers.items()}.get("retry-after", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


class KafkaSender:
    """Straight to Kafka: judges, packs and publishes as the ingest service does, without it.

    Args:
        kafka: bootstrap addresses.
        project: of all events.

    Raises:
        ConfigurationError: the project cannot be one.
    """

    def __init__(self, kafka: str, project: str, *, patience_s: float) -> None:
        from ingest.contract.access import is_project
        from ingest.contract.settings import load
        from ingest.publisher import Publisher
        from ingest.settings import IngestSettings

        if not is_project(project):
            raise ConfigurationError(f"{project!r} cannot be a project")
        self._project, self._patience_s = project, patience_s
        self._settings = load(IngestSettings, kafka=kafka)
        self._redactor = self._settings.redactor()
        self._publisher = Publisher(self._settings)
        self._ended = threading.Event()
        self._sending: set[asyncio.Task[list[Refusal]]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka", daemon=True)
        self._thread.start()
        self._loop.call_soon_threadsafe(self._publisher.start)

    def submit(self, batch: Batch, key: str) -> "Future[list[Refusal]]":
        return asyncio.run_coroutine_threadsafe(self._send(batch, key), self._loop)

    def hurry(self) -> None:
        self._ended.set()

    def close(self) -> None:
        self._ended.set()
        # With a batch still under way the send was given up, and Kafka may answer nothing: there is nothing to wait for.
        ending = self._abandon() if self._sending else self._publisher.stop()
        asyncio.run_coroutine_threadsafe(ending, self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _send(self, batch: Batch, key: str) -> list[Refusal]:
        task = asyncio.create_task(self._send_one(batch, key))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return await task

    async def _send_one(self, batch: Batch, key: str) -> list[Refusal]:
        from ingest.admission import admit, retry_ids
        from ingest.formats import Items

        items = Items(raws=batch.raws, utf8=False, bytes_max=max(map(len, batch.raws)))
        now_ms = time.time_ns() // 1_000_000
        admission = admit(
            items,
            project_id=self._project,
            accepted_ms=now_ms,
            make_ids=retry_ids(self._project, key),
            redactor=self._redactor,
        )
        patience = Patience(self._patience_s, self._ended)
        while admission.ids:
            try:
                await self._publish(admission.ids, admission.raws)
                break
            except BrokerUnavailable as error:
                await asyncio.sleep(patience.next_pause_s(None, LedgerError(str(error))))
        return [Refusal(number=batch.numbers[one.index], code=one.code, message=one.message) for one in admission.rejected]

    async def _abandon(self) -> None:
        everything = asyncio.all_tasks() - {asyncio.current_task()}
        for task in everything:
            task.cancel()
        await asyncio.wait(everything, timeout=_LEAVE_S)

    async def _publish(self, ids: Any, raws: Any) -> None:
        from ingest.contract.topics import HEADER_PROJECT
        from ingest.packing import pack

        deadline = self._loop.time() + self._settings.ingest_publish_timeout_s
        records = pack(
            self._project,
            ids,
            raws,
            partitions=await self._publisher.partitions(deadline=deadline),
            pack_bytes=self._settings.ingest_pack_bytes,
        )
        await self._publisher.publish(records, [(HEADER_PROJECT, self._project.encode())], deadline=deadline)
