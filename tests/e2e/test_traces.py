"""Traces from exporter to logs and usage, on the whole stack: each span counts once, however often it is exported."""

import pytest
from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter as OTLPJsonSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SpanExportResult

from tests.support.stack import Stack
from tests.support.tool_spans import GENAI, OTHERS, TOOLS, spans_of

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    shared_stack.key = shared_stack.create_key("traces")
    return shared_stack


def test_an_export_that_is_sent_again_counts_once_and_logs_have_all_of_it(stack: Stack) -> None:
    """The same spans three times, in both encodings: usage has each tool once, a log has what its span said."""
    where = {"endpoint": f"{stack.up.ready['url']}/v1/traces", "headers": {"x-api-key": stack.key}}
    spans = spans_of(*TOOLS, *OTHERS)
    before = stack.proved()
    for exporter in (OTLPSpanExporter(**where), OTLPSpanExporter(**where), OTLPJsonSpanExporter(**where)):
        assert exporter.export(spans) is SpanExportResult.SUCCESS
    report = stack.proved()
    assert report.proved
    assert (report.accepted - before.accepted, report.duplicates - before.duplicates) == (len(TOOLS), 2 * len(TOOLS))

    usage = stack.get("/v1/usage").json()["totals"]
    failed = sum(one.expected["status"] == "failed" for one in TOOLS)
    assert (usage["calls"], usage["failed"]) == (len(TOOLS), failed)

    span = spans[TOOLS.index(GENAI)]
    log_id = f"otel_{span.context.trace_id:032x}_{span.context.span_id:016x}"
    log = stack.get(f"/api/v3.1/logs/tool_execution/{log_id}").json()
    assert log["metadata"]["tool_slug"] == "GMAIL_SEND_EMAIL"
    assert log["metadata"]["toolkit_slug"] == "gmail"
    assert (log["metadata"]["user_id"], log["context"]["session_id"]) == ("user_1", "conv_1")
    assert log["context"]["trace_id"] == f"{span.context.trace_id:032x}"
    assert log["data"] == GENAI.expected["data"]
    assert log["source"] == GENAI.expected["source"]
    assert log["metrics"]["duration_ms"] == (span.end_time - span.start_time) / 1e6
