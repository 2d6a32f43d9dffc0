"""Whatever bytes come over real sockets: an answer that says what is wrong, or the bytes in Kafka; never a 500."""

import asyncio
import gzip
import json
import random
import socket
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import httptools
import httpx
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.topics import apply
from ingest.contract.redact import COMMON
from ingest.contract.topics import topics
from ingest.formats import split
from ingest.keys import create_key
from processors.decode import Record, decode
from tests.property.test_ingest_to_worker import deeper
from tests.support.bad_events import bodies, odd_values
from tests.support.ingest_service import IngestService, ends, eventually, records_since
from tests.support.plain_http import HTTP

pytestmark = pytest.mark.real

HOST = "127.0.0.1"
PROJECT = "fuzz"
ANSWERS = {202, 400, 413, 415}


@pytest.fixture(scope="module")
def service(kafka_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngestService]:
    apply(kafka_address, topics())
    with IngestService.start(kafka_address, tmp_path_factory.mktemp("ingest"), ingest_body_idle_timeout_s=2) as running:
        yield running


@pytest.fixture(scope="module")
def key(kafka_address: str, service: IngestService) -> str:
    async def make() -> str:
        _, plain = await create_key(kafka_address, project_id=PROJECT)
        async with httpx.AsyncClient(base_url=service.url) as http:

            async def known() -> bool:
                return "Invalid API key" not in (await http.post("/v1/events", json=[], headers={"x-api-key": plain})).text

            await eventually(known)
        return plain

    return asyncio.run(make())


class Reply:
    """One answer, read from a socket."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 0
        self.whole = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.whole = True

    @classmethod
    def read(cls, connection: socket.socket) -> "Reply":
        reply = cls()
        parser = httptools.HttpResponseParser(reply)
        while not reply.whole:
            data = connection.recv(65_536)
            assert data, "the connection was closed without an answer"
            parser.feed_data(data)
        reply.status = parser.get_status_code()
        return reply


def encoded(body: bytes, how: str, damage: int) -> tuple[bytes, str]:
    """Compress a body, and break some of it; the encoding may be a lie."""
    packed = {"gzip": gzip.compress, "zstd": zstandard.compress}.get(how, bytes)(body)
    if damage == 1:
        packed = packed[: len(packed) // 2]
    elif damage == 2 and packed:
        packed = packed[:-1] + bytes([packed[-1] ^ 0xFF])
    elif damage == 3:
        packed += b"\0\0rest"
    return packed, how


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, bytes | None, str]:
    """A request as bytes; its items' bytes where they are whole and plain, with the shape they are sent in."""
    body = draw(bodies)
    how = draw(st.sampled_from(["", "", "", "gzip", "zstd", "br", "identity"]))
    damage = draw(st.sampled_from([0, 0, 0, 1, 2, 3]))
    sent, encoding = encoded(body, how, damage)
    kind = draw(st.sampled_from(["application/json", "application/json", "application/x-ndjson", "", "text/plain"]))
    head = [f"content-type: {kind}"] if kind else []
    head += [f"content-encoding: {encoding}"] if encoding else []
    if draw(st.booleans()):
        cut = draw(st.integers(1, 400))
        chunks = [sent[at : at + cut] for at in range(0, len(sent), cut)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        head.append("transfer-encoding: chunked")
    else:
        framed = sent
        head.append(f"content-length: {len(sent)}")
    shape = "ndjson" if "ndjson" in kind else "json"
    return "\r\n".join(head).encode() + b"\r\n\r\n" + framed, body if not damage else None, shape


def test_every_answer_names_what_is_wrong_and_what_is_accepted_is_in_kafka(
    service: IngestService, key: str, kafka_address: str
) -> None:
    """On one connection for all of it, where none disturbs the next; then what is in Kafka goes to the worker."""
    before = asyncio.run(ends(kafka_address))
    accepted: list[tuple[str, bytes]] = []
    start = f"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n".encode()
    connection = socket.create_connection((HOST, service.port), timeout=60)

    @settings(max_examples=300, suppress_health_check=list(HealthCheck))
    @given(request=requests())
    def send(request: tuple[bytes, bytes | None, str]) -> None:
        framed, body, shape = request
        connection.sendall(start + framed)
        reply = Reply.read(connection)
        assert reply.status in ANSWERS, reply.body
        answer = json.loads(reply.body)
        if reply.status != 202:
            assert answer["error"]["message"]
            return
        assert all(item["message"] and item["code"] for item in answer["rejected"])
        assert len(answer["ids"]) == answer["accepted"]
        if body is not None:
            refused = {item["index"] for item in answer["rejected"]}
            items = split(body, shape, items_max=10_000).raws  # type: ignore[arg-type]
            kept = [bytes(raw) for index, raw in enumerate(items) if index not in refused]
            accepted.extend(zip(answer["ids"], kept, strict=True))

    send()
    while len(accepted) <= 30:
        # Too little of it was good.
        send()
    connection.close()
    records = [
        record for record in asyncio.run(records_since(kafka_address, before)) if dict(record.headers)["project_id"] == b"fuzz"
    ]
    values: dict[str, list[bytes]] = defaultdict(list)
    with deeper():
        read = [
            Record(offset=at, timestamp_ms=one.timestamp, key=one.key, value=one.value, headers=one.headers)
            for at, one in enumerate(records)
        ]
        decoded = decode(read, incarnation="i", partition=0, partitions=1)
        assert [letter.message for letter in decoded.dead_letters] == []
        for place, event_id in enumerate(decoded.ids):
            values[event_id].append(decoded.raw(place))
    for event_id, raw in accepted:
        # Byte for byte up to the closing brace, but for secrets; id and time may have been added behind.
        sent = COMMON.event(raw).strip()[:-1]
        assert any(value.startswith(sent) for value in values[event_id]), (event_id, raw[:200])


def test_each_odd_value_in_each_place_is_answered(service: IngestService, key: str) -> None:
    """Alone in a request, so that none hides behind another; the neighbour it is sent with is always accepted."""
    spelled: Any = odd_values
    with httpx.Client(
        base_url=service.url, headers={"x-api-key": key, "content-type": "application/x-ndjson"}, timeout=30
    ) as http:
        for value in spelled.elements:
            good = b'{"tool_slug":"A","status":"success","duration_ms":1,"id":"neighbour"}'
            odd = [
                f'{{"tool_slug":"A","status":"failed","duration_ms":1,"{name}":{value}}}'.encode(errors="surrogatepass")
                for name in (
                    "id",
                    "timestamp",
                    "duration_ms",
                    "data",
                    "error",
                    "metadata",
                    "message",
                    "other",
                    "project_id",
                    "parent",
                )
            ]
            answer = http.post("/v1/events", content=b"\n".join([good, *odd, good]))
            assert answer.status_code == 202, answer.text
            assert answer.json()["ids"].count("neighbour") == 2
            assert all(item["message"] for item in answer.json()["rejected"])


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_is_413_with_the_limit_and_harms_nobody(service: IngestService, key: str, encoding: str) -> None:
    """A gigabyte in a small body; also a bomb within a bomb."""
    with httpx.Client(base_url=service.url, headers={"x-api-key": key, "content-type": "application/json"}, timeout=60) as http:
        layer = b"".join((gzip.compress if encoding == "gzip" else zstandard.compress)(b" " * (1 << 20)) for _ in range(200))
        answer = http.post("/v1/events", content=layer, headers={"content-encoding": encoding})
        assert answer.status_code == 413
        assert "33554432" in answer.json()["error"]["message"]
        twice = gzip.compress(layer)
        answer = http.post("/v1/events", content=twice, headers={"content-encoding": f"{encoding}, gzip"})
        assert answer.status_code == 413
        assert http.get("/readyz").json()["ready"] is True


def test_a_string_of_ten_megabytes_is_refused_alone(service: IngestService, key: str) -> None:
    """With the limit of an event; its neighbour is stored."""
    good = b'{"tool_slug":"A","status":"success","duration_ms":1,"id":"neighbour"}'
    large = good[:-1] + b',"data":{"x":"' + b"x" * 10_000_000 + b'"}}'
    with httpx.Client(base_url=service.url, headers={"x-api-key": key, "content-type": "application/json"}, timeout=60) as http:
        answer = http.post("/v1/events", content=b"[" + large + b"," + good + b"]")
        assert answer.status_code == 202
        assert answer.json()["ids"] == ["neighbour"]
        assert "1048576" in answer.json()["rejected"][0]["message"]


def test_rubbish_instead_of_http_never_disturbs_the_next_connection(service: IngestService, key: str) -> None:
    """Random bytes, and requests cut anywhere: the service answers 4xx or closes, and goes on."""
    chance = random.Random(6)
    body = b'{"tool_slug":"A","status":"success","duration_ms":1}'
    whole = f"POST /v1/events HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    for round_number in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            damaged[chance.randrange(len(damaged) - len(body))] = chance.randrange(256)
        with socket.create_connection((HOST, service.port), timeout=60) as connection:
            connection.sendall(bytes(damaged) if round_number % 3 else chance.randbytes(300))
            connection.shutdown(socket.SHUT_WR)
            said = b""
            while data := connection.recv(65_536):
                said += data
        assert b" 500 " not in said.partition(b"\r\n")[0]
    assert HTTP.post(f"{service.url}/v1/events", content=body, headers={"x-api-key": key}).status_code == 202
