"""Settings of the worker."""

from pydantic import Field

from ingest.contract.settings import RedactionSettings


class WorkerSettings(RedactionSettings):
    """What a worker needs beside addresses; every limit bounds a queue, a wait or memory."""

    worker_host: str = Field(default="127.0.0.1", description="address the worker's health and metrics listen on")
    worker_port: int = Field(default=8603, ge=0, le=65535, description="port of the worker's health and metrics")
    batch_events: int = Field(default=40_000, ge=1, description="a batch is closed at this many events")
    batch_bytes: int = Field(default=48 * 1024 * 1024, ge=1, description="a batch is closed at this many decoded bytes")
    # A batch costs ClickHouse as much for one event as for a thousand, and leaves parts that questions have to open.
    batch_interval_ms: int = Field(
        default=250,
        ge=0,
        description="where there is no backlog, batches of a partition begin so far apart at least, the first at once;"
        " further, up to 2 s, where writing them would take more than half of the time; 0: nothing waits",
    )
    work_bytes: int = Field(default=16 * 1024 * 1024, ge=1, description="decoded bytes of records in work at once")
    ahead_bytes: int = Field(default=16 * 1024 * 1024, ge=1, description="no fetch while this much is decoded and waits")
    fetch_bytes: int = Field(default=512 * 1024, ge=1024, description="most bytes Kafka sends per partition and fetch")
    fetch_records: int = Field(default=20_000, ge=1, description="most records in one fetch over all partitions")
    session_timeout_ms: int = Field(default=15_000, ge=6_000, description="a worker silent for longer loses its partitions")
    store_timeout_ms: int = Field(default=30_000, ge=100, description="an insert or query unanswered for longer is tried again")
    retry_ms_max: int = Field(default=5_000, ge=100, description="longest pause between two tries")
    clock_skew_ms: int = Field(default=100, ge=0, description="how far this clock may be ahead of the broker's")
    progress_ms: int = Field(default=1_000, ge=50, description="how often freshness is reported")
    window_close_ms: int = Field(default=300_000, ge=0, description="an hour of usage closes so long after its end")
    dedupe_horizon_ms: int = Field(default=7 * 24 * 3_600_000, ge=60_000, description="how long an id is known for sure")
    dead_letter_run_max: int = Field(
        default=1_000, ge=1, description="an alarm at this many dead letters in a row in a partition"
    )
    dead_letter_ratio_max: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="an alarm above this share of dead letters in five minutes of a partition",
    )
    dead_letter_stop: bool = Field(
        default=False, description="at an alarm the partition stops, instead of turning more into dead letters"
    )
    dedupe_bytes: int = Field(default=200 * 1024 * 1024, ge=1024 * 1024, description="memory of the filter of known ids")
