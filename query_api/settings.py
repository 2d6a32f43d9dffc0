"""Settings of the query service: its address, and what one question may cost."""

from typing import Final

from pydantic import Field, SecretStr

from ingest.contract.settings import CommonSettings

MIB: Final = 1024 * 1024


class QuerySettings(CommonSettings):
    """What `toolledger query` reads."""

    query_host: str = Field(default="127.0.0.1", description="address the query service listens on")
    query_port: int = Field(default=8601, ge=0, le=65_535, description="port of the query service; 0 takes a free one")

    query_time_s_max: int = Field(default=10, ge=1, le=600, description="ClickHouse stops a question that takes longer: 504")
    query_memory_bytes_max: int = Field(
        default=2048 * MIB, ge=64 * MIB, description="ClickHouse stops a question that needs more memory: 400"
    )
    query_result_rows_max: int = Field(default=200_000, ge=20_000, description="ClickHouse refuses an answer of more rows: 400")
    query_threads_max: int = Field(default=0, ge=0, description="threads of one question in ClickHouse; 0: as many as cores")
    query_in_flight_max: int = Field(default=64, ge=1, description="questions asked of ClickHouse at once; more wait")
    query_in_flight_per_project_max: int = Field(default=4, ge=1, description="of these, one project's")
    query_waiting_per_project_max: int = Field(
        default=256, ge=0, description="questions of one project that wait for a turn; beyond it: 429"
    )
    query_wait_s_max: float = Field(
        default=5,
        gt=0,
        description="a question that waited longer for its turn is refused: 503, or 429 behind its own project's",
    )
    query_body_bytes_max: int = Field(default=MIB, ge=16_384, description="one request's body; beyond it: 413")
    query_replay_timeout_s: float = Field(default=10, gt=0, description="Kafka must have taken a replay by then, else 503")
    query_retry_after_s: int = Field(default=2, ge=1, description="Retry-After of 503 answers, and of 429 for too much at once")
    query_stop_timeout_s: int = Field(default=15, ge=1, description="requests in flight may take this long at a stop")

    query_tails_max: int = Field(default=1000, ge=1, description="live tails open at once; one more is refused: 503")
    query_tail_poll_s: float = Field(default=0.25, gt=0, le=5, description="how often live tails look for what is new")
    query_exports_max: int = Field(default=8, ge=1, description="exports under way at once; one more is refused: 503")

    # Rarely worth setting: cursors are bound to the API key in any case.
    cursor_secret: SecretStr = Field(default=SecretStr(""), description="makes cursors fit one deployment only")
    # A heartbeat comes about once a second; a fifth of that costs no freshness and spares a query per request.
    freshness_cache_s: float = Field(
        default=0.2, ge=0, le=5, description="how long `complete until` is reused; five times as long while it is asked anew"
    )
    rate_limit_per_minute: int = Field(
        default=0, ge=0, description="requests of a key in a minute, per process; beyond it: 429; 0: no limit (10000 announced)"
    )
