"""The ASGI application: addresses, the way of one request, and what happens when its client goes away."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import structlog

from deploy.embedded.clickhouse.access import authenticate
from deploy.embedded.clickhouse.body import Spool
from deploy.embedded.clickhouse.channel import ResultChannel
from deploy.embedded.clickhouse.engine import Engine
from deploy.embedded.clickhouse.errors import NOT_ENOUGH_SPACE, ClickHouseError
from deploy.embedded.clickhouse.execution import Execution, Job
from deploy.embedded.clickhouse.external import Form, parse_form
from deploy.embedded.clickhouse.loading import statement_bytes
from deploy.embedded.clickhouse.processes import RunningQueries, RunningQuery
from deploy.embedded.clickhouse.request import QueryRequest, read_request
from deploy.embedded.clickhouse.response import Response, Send
from deploy.embedded.clickhouse.sessions import Lease, Sessions

log = structlog.get_logger("toolledger.clickhouse")

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

DISPLAY_NAME = "toolledger"


class ClientDisconnected(Exception):
    """The connection ended before the request was whole: there is nobody to answer and nothing to run."""


class Application:
    """ClickHouse's HTTP interface over one engine.

    Args:
        engine: the engine of this process.
        users: name to password.
        execution: runs statements.
        queries: the register of running statements.
        sessions: the sessions.
        threads: the pool statements run in.
        orders: a pool of its own for stopping statements: it must not wait behind those it stops.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        users: Mapping[str, str],
        execution: Execution,
        queries: RunningQueries,
        sessions: Sessions,
        threads: ThreadPoolExecutor,
        orders: ThreadPoolExecutor,
    ) -> None:
        self._engine = engine
        self._users = users
        self._execution = execution
        self._queries = queries
        self._sessions = sessions
        self._threads = threads
        self._orders = orders

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        path, method = scope["path"], scope["method"]
        asks_query = path in ("/", "/query") and (method == "POST" or scope["query_string"])
        if asks_query and method in ("GET", "HEAD", "POST"):
            await self._query(scope, receive, send)
        elif method == "OPTIONS":
            await _plain(send, 204, "", cors=True)
        elif method not in ("GET", "HEAD"):
            await _plain(send, 405, f"{method} is not a method of this address\n")
        elif path in ("/", "/ping", "/replicas_status"):
            await _plain(send, 200, "Ok.\n", head_only=method == "HEAD")
        else:
            await _plain(send, 404, f"There is no handle {path}\n\nUse / or /ping for health checks, and / for queries.\n")

    async def _query(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = self._execution.new_spool()
        response: Response | None = None
        try:
            request = read_request(scope)
            response = self._response(request, scope, send)
            user = authenticate(self._users, request.credentials)
            await _receive_body(receive, body, request)
            form = Form(fields=(), files={})
            if request.content_type.startswith("multipart/form-data"):
                form = parse_form(body.read(body.size, 0), request.content_type)
                request = read_request(scope, form.fields, form.files)
                body.close()
                body = self._execution.new_spool()
            request.query_id = request.query_id or str(uuid.uuid4())
            response = self._response(request, scope, send)
            lease = self._sessions.acquire(user, request.session)
            try:
                running = self._queries.register(request.query_id, user)
                await self._run(request, body, running, lease, form, receive, response)
            finally:
                self._sessions.release(lease)
        except ClickHouseError as error:
            if response is None:
                response = self._response(None, scope, send)
            await response.fail(error)
        except ClientDisconnected:
            return
        except OSError as error:
            # A body or a buffered result found no room, in memory or on disk.
            log.warning("spool_failed", reason=str(error))
            if response is not None and not response.started:
                await response.fail(ClickHouseError(NOT_ENOUGH_SPACE, "NOT_ENOUGH_SPACE", f"Cannot hold the request: {error}"))
        finally:
            body.close()

    async def _run(
        self,
        request: QueryRequest,
        body: Spool,
        running: RunningQuery,
        lease: Lease,
        form: Form,
        receive: Receive,
        response: Response,
    ) -> None:
        loop = asyncio.get_running_loop()
        channel = ResultChannel(loop)
        job = Job(request=request, body=body, channel=channel, running=running, session=lease.session, files=form.files)
        finished = loop.run_in_executor(self._threads, self._execution.run, job)
        watcher = asyncio.create_task(self._watch(receive, channel, running))
        # The client may use the session again as soon as it has the answer, so it is released before that.
        ended = functools.partial(self._sessions.release, lease)
        try:
            if request.wait_end_of_query:
                with self._execution.new_spool() as spool:
                    await response.buffered(channel, spool, ended)
            else:
                await response.stream(channel, ended)
        finally:
            watcher.cancel()
            channel.close()
            # The statement's thread lets go of session and spools only when it is done, so the request ends with it.
            await finished

    async def _watch(self, receive: Receive, channel: ResultChannel, running: RunningQuery) -> None:
        """Wait for the client to go away, then stop its statement."""
        while (await receive())["type"] != "http.disconnect":
            pass
        channel.close()
        await asyncio.get_running_loop().run_in_executor(self._orders, self._queries.cancel, running)

    def _response(self, request: QueryRequest | None, scope: MutableMapping[str, Any], send: Send) -> Response:
        return Response(
            send=send,
            query_id=request.query_id if request is not None else "",
            version=self._engine.version,
            timezone=self._engine.timezone,
            display_name=DISPLAY_NAME,
            cors=request is not None and request.cors,
            head_only=scope["method"] == "HEAD",
        )


async def _receive_body(receive: Receive, body: Spool, request: QueryRequest) -> None:
    """Take the body in; the statement of a plain INSERT goes to the request, so that the spool holds nothing but rows."""
    first = not request.query and not request.encoded and not request.content_type.startswith("multipart/")
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        if chunk := message.get("body"):
            if first and (size := statement_bytes(chunk)):
                request.query = bytes(chunk[:size])
                chunk = memoryview(chunk)[size:]
            first = False
            body.write(chunk)
        if not message.get("more_body"):
            return


async def _plain(send: Send, status: int, text: str, *, head_only: bool = False, cors: bool = False) -> None:
    content = text.encode()
    headers = [
        (b"Date", formatdate(usegmt=True).encode()),
        (b"Content-Type", b"text/html; charset=UTF-8" if status == 200 else b"text/plain; charset=UTF-8"),
        (b"X-ClickHouse-Server-Display-Name", DISPLAY_NAME.encode()),
    ]
    if status != 204:
        headers.append((b"Content-Length", str(len(content)).encode()))
    if cors:
        headers += [
            (b"Access-Control-Allow-Origin", b"*"),
            (b"Access-Control-Allow-Headers", b"origin, x-requested-with, x-clickhouse-format, authorization"),
            (b"Access-Control-Allow-Methods", b"POST, GET, OPTIONS"),
        ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else content})
