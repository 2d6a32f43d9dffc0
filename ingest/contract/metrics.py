"""Every metric of every service in one catalogue, so that names and labels agree and a dashboard can be written once."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY: Final = CollectorRegistry()
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

# Ingest: received = accepted + rejected + unavailable (valid, but Kafka did not acknowledge it in time).
INGEST_EVENTS: Final = Counter("toolledger_ingest_events", "Events by outcome", ["outcome"], registry=REGISTRY)
INGEST_REJECTED: Final = Counter("toolledger_ingest_rejected", "Events refused, by reason", ["reason"], registry=REGISTRY)
INGEST_SPANS: Final = Counter(
    "toolledger_ingest_spans", "Spans of traces, tool executions and all others", ["outcome"], registry=REGISTRY
)
INGEST_BYTES: Final = Counter("toolledger_ingest_bytes", "Bytes of bodies, as sent", registry=REGISTRY)
INGEST_IN_FLIGHT: Final = Gauge("toolledger_ingest_in_flight_bytes", "Bytes of bodies not answered yet", registry=REGISTRY)
INGEST_KAFKA_CONNECTED: Final = Gauge("toolledger_ingest_kafka_connected", "1 while Kafka takes events", registry=REGISTRY)
INGEST_PUBLISH_SECONDS: Final = Histogram(
    "toolledger_ingest_publish_seconds", "Time until Kafka acknowledged a request", buckets=_SECONDS, registry=REGISTRY
)
HTTP_SECONDS: Final = Histogram(
    "toolledger_http_seconds", "Time to answer", ["service", "route", "status"], buckets=_SECONDS, registry=REGISTRY
)

# Gateway: recorded + recovered (of a former process) = published + dropped + those that wait for Kafka.
GATEWAY_EVENTS: Final = Counter("toolledger_gateway_events", "Executions recorded, by outcome", ["outcome"], registry=REGISTRY)
GATEWAY_WAITING: Final = Gauge("toolledger_gateway_waiting_bytes", "Executions in memory for Kafka", registry=REGISTRY)
GATEWAY_SPOOLED: Final = Gauge("toolledger_gateway_spooled_bytes", "Executions on disk until Kafka has them", registry=REGISTRY)

# Worker: events = accepted + duplicates + dead_letters + forwarded, as in every receipt; conflicts are some of the duplicates.
WORKER_RECORDS: Final = Counter("toolledger_worker_records", "Kafka records proved by a receipt", registry=REGISTRY)
WORKER_EVENTS: Final = Counter("toolledger_worker_events", "Events by outcome", ["outcome"], registry=REGISTRY)
WORKER_DEAD_LETTERS: Final = Counter("toolledger_worker_dead_letters", "Dead letters by reason", ["reason"], registry=REGISTRY)
DEAD_LETTER_ALARM: Final = Gauge(
    "toolledger_dead_letter_alarm", "1 while too much turns into dead letters", ["partition"], registry=REGISTRY
)
PARTITION_STOPPED: Final = Gauge(
    "toolledger_partition_stopped", "1 while a partition waits because of an alarm", ["partition"], registry=REGISTRY
)
WORKER_BATCHES: Final = Counter("toolledger_worker_batches", "Batches by how they began", ["kind"], registry=REGISTRY)
WORKER_STEP_SECONDS: Final = Histogram(
    "toolledger_worker_step_seconds", "Time of each step of a batch", ["step"], buckets=_SECONDS, registry=REGISTRY
)
WORKER_RETRIES: Final = Counter("toolledger_worker_retries", "Steps tried again, by step", ["step"], registry=REGISTRY)
PARTITION_NEXT_OFFSET: Final = Gauge("toolledger_partition_next_offset", "Proved so far", ["partition"], registry=REGISTRY)
PARTITION_LAG: Final = Gauge("toolledger_partition_lag_records", "Records not proved yet", ["partition"], registry=REGISTRY)
DEDUPE_IDS: Final = Gauge("toolledger_dedupe_known_ids", "Ids the filter holds", registry=REGISTRY)
DEDUPE_BYTES: Final = Gauge("toolledger_dedupe_bytes", "Memory of the filter", registry=REGISTRY)
DEDUPE_REACH: Final = Gauge("toolledger_dedupe_reach_seconds", "How far back every id is known", registry=REGISTRY)
DEDUPE_ASKED: Final = Counter("toolledger_dedupe_asked", "Ids asked of ClickHouse", registry=REGISTRY)
LEDGER_GAP_RECORDS: Final = Counter(
    "toolledger_ledger_gap_records", "Records Kafka no longer had when they were needed", registry=REGISTRY
)

QUERY_QUESTIONS: Final = Gauge(
    "toolledger_query_questions", "Questions to ClickHouse, asked (going) and waiting for a turn", ["state"], registry=REGISTRY
)
QUERY_TAILS: Final = Gauge("toolledger_query_tails", "Live tails that are open", registry=REGISTRY)


def render() -> bytes:
    """Return the exposition text of all metrics of this process."""
    return generate_latest(REGISTRY)
