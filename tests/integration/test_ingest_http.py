"""`POST /v1/events` through a real listening server into a real Kafka."""

import asyncio
import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from deploy.topics import apply
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.topics import topics
from ingest.keys import create_key, revoke_key
from tests.support.ingest_service import IngestService, ends, eventually, records_since

pytestmark = pytest.mark.real

BODY_BYTES_MAX = 2 << 20
DECODED_BYTES_MAX = 4 << 20


def event(**members: Any) -> dict[str, Any]:
    return {"tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 12.5, **members}


@pytest.fixture(scope="module")
def service(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestService]:
    apply(kafka_address, topics())
    with IngestService.start(
        kafka_address,
        tmp_path_factory.mktemp("ingest"),
        ingest_body_bytes_max=BODY_BYTES_MAX,
        ingest_decoded_bytes_max=DECODED_BYTES_MAX,
        ingest_events_max=1000,
        ingest_in_flight_bytes_max=8 << 20,
        ingest_body_idle_timeout_s=1,
        ingest_head_timeout_s=1,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def key(kafka_address: str, service: IngestService) -> str:
    return asyncio.run(make_key(kafka_address, service, project_id="ingest-tests"))


@pytest.fixture
async def client(service: IngestService, key: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, headers={"x-api-key": key}, timeout=60) as made:
        yield made


async def make_key(kafka: str, service: IngestService, **what: Any) -> str:
    """Make a key and wait until the service knows it."""
    _, plain = await create_key(kafka, **what)
    async with httpx.AsyncClient(base_url=service.url) as http:

        async def known() -> bool:
            return "Invalid API key" not in (await http.post("/v1/events", json=[], headers={"x-api-key": plain})).text

        await eventually(known)
    return plain


async def test_accepted_events_are_in_kafka_at_home_in_order_and_byte_for_byte(
    client: httpx.AsyncClient, kafka_address: str
) -> None:
    before = await ends(kafka_address)
    sent = [event(id=f"twice_{index % 40}", user_id=f"{index}", data={"n": index, "text": "ü\u2028"}) for index in range(200)]
    raw = [json.dumps(each, ensure_ascii=index % 2 == 0).encode() for index, each in enumerate(sent)]
    answer = await client.post("/v1/events", content=b"[" + b" , ".join(raw) + b"]")
    assert answer.status_code == 202
    assert answer.json() == {"accepted": 200, "ids": [each["id"] for each in sent], "rejected": []}

    places: dict[str, list[int]] = {}
    for record in await records_since(kafka_address, before):
        assert dict(record.headers) == {"project_id": b"ingest-tests"}
        value = json.loads(record.value)
        for each in value if isinstance(value, list) else [value]:
            places.setdefault(each["id"], []).append(int(each["user_id"]))
            assert record.partition == home_partition(event_key("ingest-tests", each["id"]), len(before))
            assert raw[int(each["user_id"])][:-1] in record.value
    assert places == {f"twice_{number}": list(range(number, 200, 40)) for number in range(40)}


async def test_a_single_event_is_a_record_of_its_own_with_the_common_key(client: httpx.AsyncClient, kafka_address: str) -> None:
    before = await ends(kafka_address)
    answer = await client.post("/v1/events", json=event(id="alone"))
    assert answer.json() == {"accepted": 1, "ids": ["alone"], "rejected": []}
    (record,) = await records_since(kafka_address, before)
    assert record.key == b"ingest-tests/alone"
    assert json.loads(record.value)["tool_slug"] == "GMAIL_SEND_EMAIL"


async def test_ids_and_timestamps_are_made_where_they_are_missing(client: httpx.AsyncClient, kafka_address: str) -> None:
    before = await ends(kafka_address)
    answer = await client.post("/v1/events", json=event(id=None, data={"a": [1, 2.50]}))
    (made,) = answer.json()["ids"]
    assert made.startswith("log_")
    assert len(made) == 16
    (record,) = await records_since(kafka_address, before)
    stored = json.loads(record.value)
    assert stored["id"] == made
    # Ingest's clock and the broker's are those of one machine here.
    assert abs(stored["timestamp"] - record.timestamp) < 60_000


async def test_one_bad_item_of_an_array_never_loses_its_neighbours(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/events", json=[event(id="a"), {"id": "bad", "status": "odd"}, event(id="c"), 5])
    assert answer.status_code == 202
    body = answer.json()
    assert body["ids"] == ["a", "c"]
    assert [(item["index"], item["id"], item["code"]) for item in body["rejected"]] == [
        (1, "bad", "unknown_status"),
        (3, None, "invalid_member"),
    ]


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/json"])
async def test_ndjson_refusals_name_the_line(client: httpx.AsyncClient, content_type: str) -> None:
    body = f"{json.dumps(event(id='a'))}\r\n\n{{broken\n{json.dumps(event(id='b'))}\n"
    answer = await client.post("/v1/events", content=body, headers={"content-type": content_type})
    assert answer.status_code == 202
    assert answer.json()["ids"] == ["a", "b"]
    assert [(item["index"], item["line"], item["code"]) for item in answer.json()["rejected"]] == [(1, 3, "invalid_json")]


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_compressed_bodies_are_read(client: httpx.AsyncClient, encoding: str) -> None:
    parts = [json.dumps([event(id="a")]).encode()[:20], json.dumps([event(id="a")]).encode()[20:]]
    squeeze = gzip.compress if encoding == "gzip" else zstandard.compress
    answer = await client.post(
        "/v1/events",
        content=b"".join(squeeze(part) for part in parts),
        headers={"content-encoding": encoding, "content-type": "application/json"},
    )
    assert answer.json()["ids"] == ["a"]


async def test_an_idempotency_key_gives_the_same_ids_to_a_retry(client: httpx.AsyncClient) -> None:
    body = [event(), {"bad": 1}, event(id="own"), event()]
    first = await client.post("/v1/events", json=body, headers={"idempotency-key": "k1"})
    again = await client.post("/v1/events", json=body, headers={"idempotency-key": "k1"})
    other = await client.post("/v1/events", json=body, headers={"idempotency-key": "k2"})
    assert first.json() == again.json()
    assert first.json()["ids"][1] == "own"
    assert not {first.json()["ids"][0], first.json()["ids"][2]} & set(other.json()["ids"])


async def test_chunked_bodies_are_read(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in json.dumps([event(id="chunked")]).encode():
            yield bytes([byte])

    answer = await client.post("/v1/events", content=chunks(), headers={"content-type": "application/json"})
    assert answer.json()["ids"] == ["chunked"]


async def test_nothing_accepted_is_400_with_the_error_body_and_the_refusals(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/events", json=[{"id": "x"}], headers={"x-request-id": "mine-1"})
    assert answer.status_code == 400
    assert answer.headers["x-request-id"] == "mine-1"
    error = answer.json()["error"]
    assert (error["status"], error["code"], error["request_id"]) == (400, 10400, "mine-1")
    assert answer.json()["rejected"][0]["id"] == "x"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"[]",
        b"null",
        b"[",
        b"\xff\xfe{}",
        b'{"tool_slug":"A","status":"success","duration_ms":NaN}',
        b'{"tool_slug":"A","status":"success","duration_ms":1e400}',
        b'{"tool_slug":"\\ud800","status":"success","duration_ms":1}',
        b'{"tool_slug":"A","status":"success","duration_ms":1,"data":{"x":"\xff"}}',
        b'{"tool_slug":"A","status":"success","duration_ms":1,"timestamp":99999999999999999999999999}',
        b'{"tool_slug":"A","status":"success","duration_ms":1,"timestamp":"0001-01-01T00:00:00+14:00"}',
        b'{"tool_slug":"A","status":"success","duration_ms":1,"data":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b'"' + b"x" * 1_500_000 + b'"',
        bytes(range(256)) * 100,
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_bad_input_is_answered_with_400_and_never_breaks_anything(client: httpx.AsyncClient, body: bytes) -> None:
    for content_type in ("application/json", "application/x-ndjson"):
        answer = await client.post("/v1/events", content=body, headers={"content-type": content_type})
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"]
        assert "Traceback" not in answer.text


async def test_odd_but_readable_events_are_taken(client: httpx.AsyncClient) -> None:
    body = b'{"tool_slug":"A","status":"success","duration_ms":1,"id":"x","id":"y","data":{"big":1e400,"int":%d}}' % 2**70
    answer = await client.post("/v1/events", content=body, headers={"content-type": "application/json"})
    assert answer.json()["ids"] == ["y"]


async def test_wrong_types_encodings_methods_and_paths_have_their_own_status(client: httpx.AsyncClient) -> None:
    for headers in (
        {"content-type": "text/plain"},
        {"content-encoding": "br"},
        {"content-type": "application/json; charset=utf-16"},
    ):
        answer = await client.post("/v1/events", content=b"{}", headers={"content-type": "application/json", **headers})
        assert (answer.status_code, answer.json()["error"]["slug"]) == (415, "HTTP_UnsupportedMediaType")
    answer = await client.get("/v1/events")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert (await client.get("/v1/nothing")).json()["error"]["code"] == 10404
    answer = await client.post(
        "/v1/events", content=b"not gzip", headers={"content-encoding": "gzip", "content-type": "application/json"}
    )
    assert answer.status_code == 400


async def test_a_body_beyond_a_limit_is_413_and_the_limit_is_named(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 65_536

    large = b" " * (BODY_BYTES_MAX + 1)
    bomb = gzip.compress(b" " * (DECODED_BYTES_MAX + 1))
    many = json.dumps([1] * 1001).encode()
    json_type = {"content-type": "application/json"}
    for content, headers, limit in (
        (large, json_type, BODY_BYTES_MAX),
        (endless(), json_type, BODY_BYTES_MAX),
        (bomb, {"content-encoding": "gzip", **json_type}, DECODED_BYTES_MAX),
        (zstandard.compress(b" " * (DECODED_BYTES_MAX + 1)), {"content-encoding": "zstd", **json_type}, DECODED_BYTES_MAX),
        (many, json_type, 1000),
    ):
        answer = await client.post("/v1/events", content=content, headers=headers)
        assert answer.status_code == 413
        assert str(limit) in answer.json()["error"]["message"]


async def test_an_event_beyond_the_limit_is_refused_alone(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/events", json=[event(id="large", data={"x": "x" * (1 << 20)}), event(id="small")])
    assert answer.json()["ids"] == ["small"]
    assert [(item["id"], item["code"]) for item in answer.json()["rejected"]] == [("large", "event_too_large")]


async def test_keys_are_asked_for_and_a_wrong_one_is_shown_masked(service: IngestService, key: str) -> None:
    async with httpx.AsyncClient(base_url=service.url) as http:

        async def error(headers: list[tuple[str, str]]) -> tuple[int, str]:
            answer = await http.post("/v1/events", json=event(), headers=headers)
            return answer.status_code, answer.json()["error"]["message"]

        assert (await error([]))[0] == 401
        status, message = await error([("x-api-key", "ak_wrong_and_very_secret")])
        assert (status, message) == (401, "Invalid API key: ak_wrong*****")
        assert (await error([("x-api-key", key), ("x-org-api-key", key)]))[0] == 401
        assert (await error([("x-api-key", key), ("x-api-key", key)]))[0] == 401
        assert (await error([("x-org-api-key", key)]))[0] == 401


async def test_scopes_and_revocation_are_held(service: IngestService, kafka_address: str) -> None:
    async with httpx.AsyncClient(base_url=service.url) as http:

        async def status(plain: str) -> int:
            return (await http.post("/v1/events", json=event(), headers={"x-api-key": plain})).status_code

        reader = await make_key(kafka_address, service, project_id="ingest-tests", scope="read")
        assert await status(reader) == 403
        organisation = await make_key(kafka_address, service, org_id="org")
        assert await status(organisation) == 403
        made, plain = await create_key(kafka_address, project_id="ingest-tests", scope="ingest")

        async def has(expected: int) -> bool:
            return await status(plain) == expected

        await eventually(lambda: has(202))
        await revoke_key(kafka_address, made.id)
        await eventually(lambda: has(401))


async def test_a_project_in_the_body_must_be_that_of_the_key(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/events", json=[event(project_id="other"), event(id="ok", project_id="ingest-tests")])
    assert answer.json()["ids"] == ["ok"]
    assert answer.json()["rejected"][0]["code"] == "project_mismatch"


async def test_a_silent_body_is_408_and_a_silent_head_is_cut(service: IngestService, key: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(f"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: 10\r\n\r\n[".encode())
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 60)
    for head in (b"", b"POST /v1/events HTTP/1.1\r\nhost: "):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(head)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_what_is_no_http_is_400_with_the_error_body(service: IngestService) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"GET / nonsense\r\n\r\n")
    head, _, body = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == 10400
    writer.close()


async def test_too_much_in_flight_is_429_and_over_when_it_is_done(
    service: IngestService, key: str, client: httpx.AsyncClient
) -> None:
    held = []
    for _ in range(4):
        connection = socket.create_connection(("127.0.0.1", service.port))
        head = f"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {BODY_BYTES_MAX}\r\n\r\n["
        connection.sendall(head.encode())
        held.append(connection)

    async def has(expected: int) -> bool:
        return (await client.post("/v1/events", json=event())).status_code == expected

    await eventually(lambda: has(429))
    answer = await client.post("/v1/events", json=event())
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["message"] == answer.json()["error"]["message"]
    for connection in held:
        connection.close()
    await eventually(lambda: has(202))


async def test_counters_close_and_health_answers(service: IngestService, client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json()["ready"] is True
    assert (await client.head("/readyz")).status_code == 200
    await client.post("/v1/events", json=[event(), {}])
    lines = (await client.get("/metrics")).text.splitlines()
    counts = {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}
    received, accepted, rejected, unavailable = (
        counts[f'toolledger_ingest_events_total{{outcome="{outcome}"}}']
        for outcome in ("received", "accepted", "rejected", "unavailable")
    )
    assert received == accepted + rejected + unavailable
    assert accepted > 0
    assert rejected > 0
    assert counts["toolledger_ingest_in_flight_bytes"] == 0


async def test_answers_are_logged_with_their_request_id_and_without_keys(
    service: IngestService, client: httpx.AsyncClient, key: str
) -> None:
    await client.post("/v1/events", json=[{}], headers={"x-request-id": "to-be-found"})
    found: list[dict[str, Any]] = []

    async def is_logged() -> bool:
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if "to-be-found" in line]
        found[:] = [line for line in lines if line.get("request_id") == "to-be-found"]
        return bool(found)

    await eventually(is_logged)
    (line,) = found
    assert (line["event"], line["level"], line["status"]) == ("request_refused", "warning", 400)
    assert key not in service.log.read_text()


async def test_a_stop_finishes_accepted_requests_and_exits_with_0(kafka_address: str, key: str, tmp_path: Path) -> None:
    with IngestService.start(kafka_address, tmp_path) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        body = json.dumps(event(id="last")).encode()
        head = f"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body[:5])
        await writer.drain()
        async with httpx.AsyncClient(base_url=running.url) as http:

            async def body_begun() -> bool:
                return "in_flight_bytes 0.0" not in (await http.get("/metrics")).text

            await eventually(body_begun)

        async def refuses_connections() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", running.port)) != 0

        running.process.terminate()
        await eventually(refuses_connections)
        writer.write(body[5:])
        assert b" 202 " in await asyncio.wait_for(reader.readline(), 60)
        writer.close()
        assert running.stop() == 0


def test_a_port_in_use_is_exit_2_and_one_line_that_says_what_to_do(
    kafka_address: str, service: IngestService, tmp_path: Path
) -> None:
    taken = os.environ | {"TOOLLEDGER_PORT": str(service.port), "TOOLLEDGER_KAFKA": kafka_address}
    command = [sys.executable, "-m", "ingest.run"]
    ended = subprocess.run(command, env=taken, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"toolledger ingest: port {service.port} on 127.0.0.1 is in use; stop what listens there or choose another"
    ]
