"""Settings of the ingest service: the public address, limits on what one request may hold, and patience with Kafka."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from ingest.contract.access import is_project
from ingest.contract.addresses import is_http, is_key
from ingest.contract.event import EVENT_BYTES_MAX, PROJECT_PATTERN
from ingest.contract.request_limits import BODY_BYTES_MAX, DECODED_BYTES_MAX, EVENTS_MAX, MIB
from ingest.contract.settings import RedactionSettings
from ingest.contract.topics import PACK_BYTES


class IngestSettings(RedactionSettings):
    """What `toolledger ingest` reads."""

    host: str = Field(default="127.0.0.1", description="address the public port listens on")
    port: int = Field(default=8600, ge=0, le=65_535, description="public port; 0 takes a free one")
    query_url: str | None = Field(
        default=None, description="query service that everything but ingest is forwarded to; unset: such paths are 404"
    )

    ingest_body_bytes_max: int = Field(
        default=BODY_BYTES_MAX, ge=EVENT_BYTES_MAX, description="one request's body as sent, bytes"
    )
    ingest_decoded_bytes_max: int = Field(
        default=DECODED_BYTES_MAX, ge=EVENT_BYTES_MAX, description="one request's body after decompression, bytes"
    )
    ingest_events_max: int = Field(default=EVENTS_MAX, ge=1, description="events in one request")
    ingest_pack_bytes: int = Field(default=PACK_BYTES, ge=1024, le=EVENT_BYTES_MAX, description="a pack is closed at this size")
    # A body costs about three times its size while it is worked on: itself, its packs, and the producer's batches.
    ingest_in_flight_bytes_max: int = Field(
        default=64 * MIB,
        ge=MIB,
        description="bodies held at once, from the first byte to the answer; beyond it, or for a key that holds as much as "
        "is still free: 429",
    )
    # Kafka takes 100 MB/s and answers within 10 ms: enough to keep it busy, and at most 80 ms in front of another's event.
    ingest_publishing_bytes_max: int = Field(
        default=8 * MIB, ge=MIB, description="bytes on their way to Kafka at once; keys take turns beyond it"
    )
    ingest_head_timeout_s: float = Field(default=10, gt=0, description="a connection must have sent a request's head by then")
    ingest_body_idle_timeout_s: float = Field(default=10, gt=0, description="longest silence within a body")
    ingest_body_timeout_s: float = Field(default=120, gt=0, description="a whole body must have come by then")
    ingest_unread_timeout_s: float = Field(default=60, gt=0, description="a client must have taken some of an answer by then")
    ingest_keep_alive_s: int = Field(default=75, ge=1, description="an idle connection is kept this long")
    ingest_publish_timeout_s: float = Field(default=10, gt=0, description="Kafka must have acknowledged by then, else 503")
    ingest_retry_after_s: int = Field(default=2, ge=1, description="Retry-After of 429 and 503 answers")
    ingest_stop_timeout_s: int = Field(default=15, ge=1, description="accepted requests may take this long at a stop")

    # Measured on events of 900 B: zstd packs to 10 % at 2.0 us an event, aiokafka's lz4 to 19 % at 8.4.
    kafka_compression: Literal["none", "zstd", "lz4", "gzip"] = Field(default="zstd", description="compression of records")
    kafka_linger_ms: int = Field(default=0, ge=0, le=1000, description="wait for more records before sending a batch")
    kafka_batch_bytes: int = Field(default=MIB, ge=16_384, le=3 * MIB, description="records of one partition sent together")
    kafka_request_timeout_s: float = Field(default=5, gt=0, description="one request to Kafka must be answered by then")
    kafka_connect_timeout_s: float = Field(default=5, gt=0, description="connecting to Kafka must have succeeded by then")
    # Also how soon added partitions are used.
    kafka_probe_s: float = Field(default=5, gt=0, description="how often Kafka is asked whether it is there")

    query_connect_timeout_s: float = Field(default=2, gt=0, description="the query service must have accepted by then")
    query_head_timeout_s: float = Field(default=120, gt=0, description="the query service must have begun to answer by then")

    upstream: str | None = Field(
        default=None,
        description="server that runs tools: executions go to it and are recorded, and so does all else under /api that is not"
        " answered here; unset: no gateway",
    )
    upstream_api_key: SecretStr | None = Field(
        default=None, description="the upstream's key, sent in place of a caller's key of ours; unset: none is sent"
    )
    upstream_project: str | None = Field(
        default=None, description="callers with keys of the upstream's own are recorded in this project; unset: they are 401"
    )
    upstream_connect_timeout_s: float = Field(default=5, gt=0, description="the upstream must have accepted by then, else 502")
    upstream_timeout_s: float = Field(
        default=300, gt=0, description="the upstream must have begun to answer by then, else 504; longest silence in an answer"
    )
    upstream_held_bytes_max: int = Field(
        default=8 * MIB, ge=0, description="an execution's answer is read whole up to this size, a larger one streamed"
    )
    upstream_waiting_bytes_max: int = Field(
        default=32 * MIB, ge=2 * MIB, description="recorded executions that wait in memory for Kafka"
    )
    upstream_spool: Path | None = Field(
        default=None, description="folder that keeps recorded executions until Kafka has them; unset: memory alone does"
    )
    upstream_spool_bytes_max: int = Field(
        default=1024 * MIB, ge=MIB, description="that folder's limit; what is recorded beyond it is dropped and counted"
    )

    @field_validator("query_url", "upstream")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if not value:
            return None
        parts = urlsplit(value) if is_http(value) else None
        if parts is None or parts.username is not None or parts.path not in ("", "/") or parts.query:
            raise ValueError("the address is http(s)://host:port")
        return value.rstrip("/")

    @field_validator("upstream_api_key")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        text = "" if value is None else value.get_secret_value()
        if not is_key(text):
            raise ValueError("a key is printable ASCII: it goes into a header")
        return value if text else None

    @field_validator("upstream_project")
    @classmethod
    def _project(cls, value: str | None) -> str | None:
        if value and not is_project(value):
            raise ValueError(f"a project matches {PROJECT_PATTERN}")
        return value or None

    @field_validator("upstream_spool")
    @classmethod
    def _folder(cls, value: Path | None) -> Path | None:
        # An empty variable is one that is not set; as a path it would be the working folder.
        return None if value in (None, Path()) else value
