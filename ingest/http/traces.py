"""`POST /v1/traces`: OTLP over HTTP. The tool executions of one export request, up to Kafka's acknowledgement."""

import functools
import time
from collections.abc import Callable, Mapping

from ingest.contract.control import ControlFollower
from ingest.contract.metrics import INGEST_SPANS
from ingest.formats import FormatError
from ingest.http.answers import Answer, Receive, Refused, Scope
from ingest.http.events import authenticate
from ingest.http.intake import Intake, refused
from ingest.otlp.answers import CONTENT_TYPES, Encoding, export_response, status
from ingest.otlp.export import encoding_of, items_of, take_apart, told, with_broken

_tool = INGEST_SPANS.labels("tool")
_ignored = INGEST_SPANS.labels("ignored")


class _StatusRefused(Refused):
    """A refusal that is told as `google.rpc.Status`, in the encoding of the request."""

    def __init__(self, refusal: Refused, encoding: Encoding) -> None:
        super().__init__(refusal.status, refusal.message, headers=refusal.headers)
        self._encoding: Encoding = encoding

    def answer(self, request_id: str) -> Answer:
        """Return the answer that tells of this refusal."""
        return Answer(
            status=self.status,
            body=status(self._encoding, http_status=self.status, message=f"{self.message} (request {request_id})"),
            content_type=CONTENT_TYPES[self._encoding],
            headers=self.headers,
        )


class TracesRoute:
    """Everything the route needs, bound once."""

    def __init__(
        self,
        intake: Intake,
        *,
        control: ControlFollower,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._intake = intake
        self._control = control
        self._now_ms = now_ms

    async def __call__(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Answer:
        """Answer one request.

        Raises:
            Refused: the request as a whole is not taken.
            ClientGone: nobody waits for an answer.
        """
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        encoding = encoding_of(content_type)
        try:
            if encoding is None:
                authenticate(self._control, scope)
                known = "application/x-protobuf or application/json"
                raise Refused(415, f"the content type {content_type[:200]!r} is not one of OTLP; send {known}")
            return await self._take(scope, headers, receive, encoding)
        except Refused as refusal:
            raise _StatusRefused(refusal, encoding or "json") from None

    async def _take(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, encoding: Encoding) -> Answer:
        key = authenticate(self._control, scope)
        events_max = self._intake.settings.ingest_events_max
        with self._intake.share(key) as share:
            try:
                body = await self._intake.read(receive, headers, share)
                take = functools.partial(take_apart, body, encoding, events_max=events_max)
                export = await self._intake.work(len(body), take)
            except FormatError as error:
                raise refused(error) from None
            del body, take
            _tool.inc(len(export.events) + len(export.broken))
            _ignored.inc(export.ignored)
            judged = await self._intake.admit(items_of(export), key=key, accepted_ms=self._now_ms())
            admission = with_broken(export, judged)
            del export
            await self._intake.publish(key, admission)
        # Refused spans are no reason to refuse the request: an exporter would drop its other spans, or send all again for ever.
        rejected = admission.rejected
        return Answer(
            status=200,
            body=export_response(encoding, rejected=len(rejected), message=told(rejected) if rejected else ""),
            content_type=CONTENT_TYPES[encoding],
        )
