"""`POST /v1/traces` from the unmodified exporters of the OpenTelemetry SDK, through a real server into a real Kafka."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from google.rpc.status_pb2 import Status as StatusMessage
from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter as OTLPJsonSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace.export import SpanExportResult

from deploy.topics import apply
from ingest.contract.topics import topics
from ingest.keys import create_key
from tests.integration.test_ingest_http import make_key
from tests.support.ingest_service import IngestService, ends, eventually, records_since
from tests.support.tool_spans import GENAI, OTHERS, TOOLS, Recorded, json_of, protobuf_of, provider, record, spans_of

pytestmark = pytest.mark.real

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
DECODED_BYTES_MAX = 4 << 20


@pytest.fixture(scope="module")
def service(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestService]:
    apply(kafka_address, topics())
    with IngestService.start(
        kafka_address,
        tmp_path_factory.mktemp("ingest"),
        ingest_body_bytes_max=2 << 20,
        ingest_decoded_bytes_max=DECODED_BYTES_MAX,
        ingest_events_max=100,
        ingest_in_flight_bytes_max=8 << 20,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def key(kafka_address: str, service: IngestService) -> str:
    return asyncio.run(make_key(kafka_address, service, project_id="otlp-tests"))


@pytest.fixture
async def client(service: IngestService, key: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": key}, timeout=60) as made:
        yield made


async def events_since(kafka: str, before: dict[int, int]) -> dict[str, Any]:
    found = {}
    for written in await records_since(kafka, before):
        assert dict(written.headers) == {"project_id": b"otlp-tests"}
        value = json.loads(written.value)
        for event in value if isinstance(value, list) else [value]:
            found[event["id"]] = event
    return found


@pytest.mark.parametrize("exporter", ["protobuf", "protobuf-gzip", "json"])
async def test_the_sdk_exports_tool_calls_of_every_convention(
    service: IngestService, key: str, kafka_address: str, monkeypatch: pytest.MonkeyPatch, exporter: str
) -> None:
    """Configured by the environment alone, as its users do; other spans come along and are passed over."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", service.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-api-key={key}")
    if exporter == "json":
        made: Any = OTLPJsonSpanExporter()
    else:
        made = OTLPSpanExporter(compression=Compression.Gzip if exporter.endswith("gzip") else None)
    before = await ends(kafka_address)
    spans = spans_of(*TOOLS, *OTHERS)
    assert await asyncio.to_thread(made.export, spans) is SpanExportResult.SUCCESS
    found = await events_since(kafka_address, before)
    assert len(found) == len(TOOLS)
    for span, recorded in zip(spans, TOOLS, strict=False):
        event = found[f"otel_{span.context.trace_id:032x}_{span.context.span_id:016x}"]
        assert event["tool_slug"] == recorded.expected["tool_slug"]
        assert event["status"] == recorded.expected["status"]


async def test_a_live_provider_reports_nested_calls_with_their_parent(
    service: IngestService, key: str, kafka_address: str
) -> None:
    """A tool that calls a tool: the inner call's parent is the outer call's event."""
    before = await ends(kafka_address)

    def run() -> None:
        made = provider(OTLPSpanExporter(endpoint=f"{service.url}/v1/traces", headers={"x-api-key": key}))
        tool = {"gen_ai.operation.name": "execute_tool"}
        with made.get_tracer("agents").start_as_current_span("execute_tool outer", attributes=tool):
            record(made, GENAI)
        made.shutdown()

    await asyncio.to_thread(run)
    by_tool = {event["tool_slug"]: event for event in (await events_since(kafka_address, before)).values()}
    assert by_tool["GMAIL_SEND_EMAIL"]["parent"] == {"log_id": by_tool["outer"]["id"]}


async def test_full_success_is_empty_and_in_the_encoding_of_the_request(client: httpx.AsyncClient) -> None:
    """Also where no span was a tool's, and where there is none at all."""
    for body in (protobuf_of(spans_of(GENAI)), protobuf_of(spans_of(*OTHERS)), b""):
        answer = await client.post("/v1/traces", content=body, headers=PROTOBUF)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == "application/x-protobuf"
    for body in (json_of(spans_of(GENAI)), json_of(spans_of(*OTHERS)), b"{}"):
        answer = await client.post("/v1/traces", content=body, headers=JSON)
        assert (answer.status_code, answer.json()) == (200, {})
        assert answer.headers["content-type"] == "application/json"


async def test_refused_spans_are_a_partial_success_that_says_why(client: httpx.AsyncClient, kafka_address: str) -> None:
    """Their neighbours are taken."""
    long = Recorded(name="x", attributes={**GENAI.attributes, "user.id": "u" * 300}, expected={})
    spans = spans_of(GENAI, long)
    before = await ends(kafka_address)
    answer = await client.post("/v1/traces", content=protobuf_of(spans), headers=PROTOBUF)
    assert answer.status_code == 200
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert partial.rejected_spans == 1
    assert "user_id" in partial.error_message
    assert f"{spans[1].context.span_id:016x}" in partial.error_message
    assert len(await events_since(kafka_address, before)) == 1
    told = (await client.post("/v1/traces", content=json_of(spans), headers=JSON)).json()["partialSuccess"]
    assert told["rejectedSpans"] == "1"
    assert "user_id" in told["errorMessage"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff" * 100, PROTOBUF, 400),
        (b"\x0a\x05abc", PROTOBUF, 400),
        (protobuf_of(spans_of(GENAI))[:-1], PROTOBUF, 400),
        (b"{broken", JSON, 400),
        (b"", JSON, 400),
        (b"[]", JSON, 400),
        (b'{"resourceSpans": 5}', JSON, 400),
        (b'{"resourceSpans":' * 100_000, JSON, 400),
        (b"x", {"content-type": "text/plain"}, 415),
        (b"x", {}, 415),
        (b"x", {**PROTOBUF, "content-encoding": "br"}, 415),
        (b"x", {**PROTOBUF, "content-encoding": "gzip"}, 400),
        (gzip.compress(b"\0" * (DECODED_BYTES_MAX + 1)), {**PROTOBUF, "content-encoding": "gzip"}, 413),
        (b"\0" * ((2 << 20) + 1), PROTOBUF, 413),
        (b"\x0a\x00" * 200_000, PROTOBUF, 413),
        (b'{"resourceSpans":[' + b"{}," * 600_000 + b"{}]}", JSON, 200),
    ],
    ids=range(16),
)
async def test_what_is_no_export_is_refused_as_a_status(
    client: httpx.AsyncClient, body: bytes, headers: Any, status: int
) -> None:
    """`google.rpc.Status` in the request's encoding: broken, cut off, too much of it, not understood."""
    answer = await client.post("/v1/traces", content=body, headers=headers)
    assert answer.status_code == status, answer.content
    if status == 200:
        return
    if headers.get("content-type") == PROTOBUF["content-type"]:
        assert answer.headers["content-type"] == "application/x-protobuf"
        told = StatusMessage.FromString(answer.content)
        code, message = told.code, told.message
    else:
        assert answer.headers["content-type"] == "application/json"
        code, message = answer.json()["code"], answer.json()["message"]
    assert code == 3
    assert answer.headers["x-request-id"] in message


async def test_more_tool_spans_than_are_taken_at_once_are_refused_as_a_whole(client: httpx.AsyncClient) -> None:
    """With the limit by number; other spans do not count towards it."""
    others = spans_of(*OTHERS) * 20
    assert (await client.post("/v1/traces", content=protobuf_of(others), headers=PROTOBUF)).status_code == 200
    many = spans_of(GENAI) * 101
    answer = await client.post("/v1/traces", content=protobuf_of(many), headers=PROTOBUF)
    assert answer.status_code == 413
    assert "100" in StatusMessage.FromString(answer.content).message


async def test_access_is_that_of_events(service: IngestService, key: str, kafka_address: str) -> None:
    """No key, a wrong one, two at once, one that may only read, one of an organisation."""
    _, reader = await create_key(kafka_address, project_id="otlp-tests", scope="read")
    _, organisation = await create_key(kafka_address, org_id="org")
    body = protobuf_of(spans_of(GENAI))
    async with httpx.AsyncClient(base_url=service.url) as http:

        async def answered(headers: dict[str, str]) -> tuple[int, int]:
            answer = await http.post("/v1/traces", content=body, headers=PROTOBUF | headers)
            return answer.status_code, StatusMessage.FromString(answer.content).code

        assert await answered({}) == (401, 16)
        assert await answered({"x-api-key": "ak_wrong"}) == (401, 16)
        assert await answered({"x-api-key": key, "authorization": f"Bearer {key}"}) == (401, 16)
        await eventually(lambda: _is(answered({"x-api-key": reader}), (403, 7)))
        await eventually(lambda: _is(answered({"x-api-key": organisation}), (403, 7)))
        for method in ("GET", "PUT"):
            assert (await http.request(method, "/v1/traces")).status_code == 405


async def _is(found: Any, expected: Any) -> bool:
    return bool(await found == expected)


async def test_spans_are_counted_in_metrics(client: httpx.AsyncClient, service: IngestService) -> None:
    """Tool executions and others apart."""

    async def counted() -> dict[str, float]:
        text = (await client.get("/metrics")).text
        names = ('toolledger_ingest_spans_total{outcome="tool"}', 'toolledger_ingest_spans_total{outcome="ignored"}')
        return {name: float(line.split()[-1]) for line in text.splitlines() for name in names if line.startswith(name)}

    before = await counted()
    await client.post("/v1/traces", content=protobuf_of(spans_of(GENAI, *OTHERS)), headers=PROTOBUF)
    after = await counted()
    assert [after[name] - before[name] for name in before] == [1, len(OTHERS)]


async def test_while_kafka_is_away_exporters_are_told_to_come_back(tmp_path: Any) -> None:
    """503 with Retry-After, as for events."""
    with IngestService.start("127.0.0.1:1", tmp_path, ready=False) as running:
        async with httpx.AsyncClient(base_url=running.url) as http:
            answer = await http.post("/v1/traces", content=b"", headers=PROTOBUF | {"x-api-key": "ak_any"})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert StatusMessage.FromString(answer.content).code == 14
