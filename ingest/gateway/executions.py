"""Run a tool at the upstream: once, whatever happens; answer the caller; record what happened.

```
 request ── whole ──> upstream ──> answer ─┬─ JSON, not too large: held to its end, given a log_id where it has none
                                           └─ anything else: passed on as it comes, and its beginning kept for the log
```
A caller who goes away ends nothing: the tool runs on, and its answer is recorded.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ingest.admission import random_ids
from ingest.contract.http_errors import REQUEST_ID_HEADER
from ingest.contract.request_limits import IDEMPOTENCY_KEY_CHARS_MAX
from ingest.gateway.credentials import Grant
from ingest.gateway.mapping import Call, Ending, Recording, id_of, record, retry_id
from ingest.gateway.passage import DO_NOT_RETRY, answer_headers, refusal, request_headers
from ingest.gateway.payloads import READABLE, Body, Kept, is_held, read, with_log_id
from ingest.gateway.recorder import Recorder
from ingest.gateway.routes import Execution
from ingest.gateway.spool import Entry
from ingest.http.answers import ClientGone, Receive, Refused, Scope, Send
from ingest.http.body import InFlight, Share, read_body
from ingest.http.relay import target_of
from ingest.http.upstream import Connection, RawHeader, Upstream, UpstreamError
from ingest.settings import IngestSettings

# Tells a caller by which id the log of its call is found, also where the answer's body could not say so.
LOG_ID_HEADER: Final = b"x-log-id"
# Of an answer that is not held, this much is kept for the log.
_KEPT_BYTES_MAX: Final = 256 * 1024
# Making an event of less takes less than changing to a thread and back is worth.
_THREAD_FROM_BYTES: Final = 256 * 1024


@dataclass(slots=True, kw_only=True)
class _Asked:
    """One execution under way.

    Args:
        call: what is known of it.
        grant: under which it runs.
        send: answers the caller.
        share: of the memory for what is held.
        began_s: on the performance counter.
        answering: an answer has begun.
        recorded: what happened has been handed over, or is not to be.
    """

    call: Call
    grant: Grant
    send: Send
    share: Share
    began_s: float
    answering: bool = False
    recorded: bool = False

    @property
    def took_ms(self) -> float:
        return (time.perf_counter() - self.began_s) * 1000


class Executions:
    """Everything that executions need, bound once.

    Args:
        settings: of ingest.
        upstream: its connections.
        recorder: takes what happened.
        in_flight: counts what is held.
        users: the user of a session by project and id, as far as it is known.
        now_ms: the clock.
    """

    def __init__(
        self,
        settings: IngestSettings,
        *,
        upstream: Upstream,
        recorder: Recorder,
        in_flight: InFlight,
        users: Mapping[tuple[str, str], str],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings
        self._timeout_s = settings.upstream_timeout_s
        self._upstream = upstream
        self._recorder = recorder
        self._in_flight = in_flight
        self._users = users
        self._now_ms = now_ms

    async def __call__(
        self, execution: Execution, scope: Scope, receive: Receive, send: Send, request_id: str, grant: Grant
    ) -> int:
        """Run one execution and answer it.

        Returns:
            The status that was answered.

        Raises:
            Refused: the request was not taken (400, 413, 429), or the upstream gave no answer (502, 504); nothing was sent yet.
            ClientGone: the client went away before it had asked, or was cut off in an answer that broke off.
        """
        headers = dict(scope["headers"])
        with self._in_flight.share(grant.project_id) as share:
            raw = await read_body(receive, headers, self._settings, share)
            call = self._call(execution, headers, raw, request_id, grant)
            asked = _Asked(call=call, grant=grant, send=send, share=share, began_s=time.perf_counter())
            try:
                return await self._exchange(asked, scope, raw)
            except (UpstreamError, TimeoutError) as error:
                refused = refusal(error, timeout_s=self._timeout_s)
                recording = await self._record(asked, self._trouble(asked, error))
                if recording is not None:
                    refused.headers = (*refused.headers, (LOG_ID_HEADER, recording.id.encode()))
                raise refused from None
            except asyncio.CancelledError:
                if asked.recorded:
                    raise
                raise self._interrupted(asked) from None

    def _call(self, execution: Execution, headers: Mapping[bytes, bytes], raw: bytes, request_id: str, grant: Grant) -> Call:
        named = headers.get(b"idempotency-key", b"").decode("latin-1")
        if len(named) > IDEMPOTENCY_KEY_CHARS_MAX:
            raise Refused(400, f"the header idempotency-key is longer than {IDEMPOTENCY_KEY_CHARS_MAX} characters")
        return Call(
            execution=execution,
            project_id=grant.project_id,
            own_id=retry_id(grant.project_id, named, execution) if named else random_ids([0])[0],
            began_ms=self._now_ms(),
            request_id=request_id,
            headers=headers,
            body=read(raw, headers, bytes_max=self._settings.ingest_decoded_bytes_max),
            upstream=self._upstream.authority.decode(),
            user_of_session=self._users.get((grant.project_id, execution.session_id), ""),
        )

    async def _exchange(self, asked: _Asked, scope: Scope, raw: bytes) -> int:
        """Ask and answer.

        Guarantee: the request is sent once. Where a kept connection is closed as it is used, the caller is told: nobody knows
        then whether the tool ran.
        """
        connection = await self._upstream.connect()
        try:
            headers = request_headers(scope["headers"], asked.grant, self._upstream.authority)
            connection.send("POST", target_of(scope), _readable(_sized(headers, len(raw))), raw)
            async with asyncio.timeout(self._timeout_s):
                await connection.head()
            answered = dict(connection.headers)
            parts = self._parts(connection)
            held: list[bytes] = []
            if not is_held(answered, bytes_max=self._settings.upstream_held_bytes_max):
                await self._stream(asked, connection, answered, held, parts)
            elif await self._hold(asked, parts, held):
                await self._answer(asked, connection, answered, b"".join(held))
            else:
                await self._stream(asked, connection, answered, held, parts)
            return connection.status
        finally:
            self._upstream.release(connection)

    async def _parts(self, connection: Connection) -> AsyncIterator[bytes]:
        """Give the parts of an answer, none of which may be waited for too long."""
        parts = connection.body()
        while True:
            async with asyncio.timeout(self._timeout_s):
                part = await anext(parts, None)
            if part is None:
                return
            yield part

    async def _hold(self, asked: _Asked, parts: AsyncIterator[bytes], held: list[bytes]) -> bool:
        """Read an answer into `held`; tell whether it is whole, and not just as much as may be held."""
        size = 0
        async for part in parts:
            held.append(part)
            size += len(part)
            if size > self._settings.upstream_held_bytes_max:
                return False
            try:
                asked.share.grow_to(len(asked.call.body.raw) + size)
            except Refused:
                return False
        return True

    async def _answer(self, asked: _Asked, connection: Connection, headers: Mapping[bytes, bytes], raw: bytes) -> None:
        """Answer with what was held, after what happened is on record: with the answer the caller has the log's id."""
        body = read(raw, headers, bytes_max=self._settings.ingest_decoded_bytes_max)
        ending = Ending(duration_ms=asked.took_ms, status=connection.status, body=body, request_id=_seen(headers))
        recording = await self._record(asked, ending)
        passed = connection.headers
        told = None
        if recording is not None and not recording.from_upstream and connection.status < 300:
            members = body.members()
            told = None if members is None else with_log_id(body.raw, recording.id, named="log_id" in members)
        if told is not None:
            raw = told
            passed = [(name, value) for name, value in passed if name not in (b"content-encoding", b"content-length")]
            passed.append((b"content-length", b"%d" % len(raw)))
        await self._start(asked, connection.status, passed, "" if recording is None else recording.id)
        await asked.send({"type": "http.response.body", "body": raw})

    async def _stream(
        self,
        asked: _Asked,
        connection: Connection,
        headers: Mapping[bytes, bytes],
        held: list[bytes],
        parts: AsyncIterator[bytes],
    ) -> None:
        """Pass an answer on as it comes, what was held of it first."""
        kept = Kept(_KEPT_BYTES_MAX)
        status = connection.status
        await self._start(asked, status, connection.headers, id_of(asked.call, status))
        try:
            for part in held:
                kept.add(part)
                await asked.send({"type": "http.response.body", "body": part, "more_body": True})
            held.clear()
            async for part in parts:
                kept.add(part)
                await asked.send({"type": "http.response.body", "body": part, "more_body": True})
        except (UpstreamError, TimeoutError) as error:
            trouble = self._trouble(asked, error, status=status, body=kept.body(headers, ended=False))
            await self._record(asked, trouble)
            # Its end stays out, so that the client sees that the answer is not whole.
            raise ClientGone from None
        body = kept.body(headers, ended=True)
        ending = Ending(duration_ms=asked.took_ms, status=status, body=body, promised=True, request_id=_seen(headers))
        await self._record(asked, ending)
        await asked.send({"type": "http.response.body", "body": b""})

    async def _start(self, asked: _Asked, status: int, headers: list[RawHeader], log_id: str) -> None:
        asked.answering = True
        more = ((LOG_ID_HEADER, log_id.encode()),) if log_id else ()
        passed = answer_headers(headers, status, asked.call.request_id, more)
        await asked.send({"type": "http.response.start", "status": status, "headers": passed})

    def _interrupted(self, asked: _Asked) -> Exception:
        """Record a call that the end of this process cuts off; return what its caller is told."""
        message = "ingest was stopped before the upstream had answered; whether the tool ran is not known"
        ending = Ending(duration_ms=asked.took_ms, trouble="interrupted", message=message, promised=asked.answering)
        recording = self._hand_over(asked, self._prepare(asked.call, ending))
        if asked.answering:
            return ClientGone()
        named = () if recording is None else ((LOG_ID_HEADER, recording.id.encode()),)
        return Refused(503, message, slug="Upstream_Interrupted", headers=(*DO_NOT_RETRY, *named))

    def _trouble(
        self, asked: _Asked, error: UpstreamError | TimeoutError, *, status: int = 0, body: Body | None = None
    ) -> Ending:
        timed_out = isinstance(error, TimeoutError)
        return Ending(
            duration_ms=asked.took_ms,
            status=status,
            body=body or Body(raw=b"", size=0),
            trouble="timed_out" if timed_out else "broke_off" if getattr(error, "connected", True) else "unreachable",
            message=refusal(error, timeout_s=self._timeout_s).message,
            promised=asked.answering,
        )

    async def _record(self, asked: _Asked, ending: Ending) -> Recording | None:
        """Hand over what happened; never waits for Kafka."""
        if asked.grant.passed and ending.status == 401:
            # The key was none of ours and none of the upstream's: whoever this is has no call here to be recorded.
            asked.recorded = True
            return None
        if len(ending.body.raw) + len(asked.call.body.raw) < _THREAD_FROM_BYTES:
            prepared = self._prepare(asked.call, ending)
        else:
            prepared = await asyncio.to_thread(self._prepare, asked.call, ending)
        return self._hand_over(asked, prepared)

    def _prepare(self, call: Call, ending: Ending) -> tuple[Recording, Entry | None] | None:
        recording = record(call, ending)
        return None if recording is None else (recording, self._recorder.prepare(call.project_id, recording))

    def _hand_over(self, asked: _Asked, prepared: tuple[Recording, Entry | None] | None) -> Recording | None:
        asked.recorded = True
        if prepared is None:
            return None
        recording, entry = prepared
        if entry is not None:
            self._recorder.add(entry)
        return recording


def _seen(headers: Mapping[bytes, bytes]) -> str:
    """Return the request id that the caller sees where the upstream gave one."""
    return headers.get(REQUEST_ID_HEADER.encode(), b"").decode("latin-1")


def _sized(headers: list[RawHeader], size: int) -> list[RawHeader]:
    """Name the size of a body that came in chunks: it was read whole."""
    if not any(name == b"transfer-encoding" for name, _ in headers):
        return headers
    return [*(one for one in headers if one[0] != b"transfer-encoding"), (b"content-length", b"%d" % size)]


def _readable(headers: list[RawHeader]) -> list[RawHeader]:
    """Ask for an answer in no other encoding than can be read here, so that the log can hold it."""
    found = []
    for name, value in headers:
        if name == b"accept-encoding":
            offered = [one.strip() for one in value.decode("latin-1").split(",")]
            kept = [one for one in offered if one.partition(";")[0].strip().lower() in READABLE]
            found.append((name, ", ".join(kept).encode("latin-1") if any(kept) else b"identity"))
        else:
            found.append((name, value))
    return found
