"""Commands that run until they are stopped: the stack, the embedded servers, the services."""

from pathlib import Path
from typing import Any

import click

from deploy.cli.common import (
    clickhouse_option,
    clickhouse_url,
    data_option,
    json_option,
    kafka_address,
    kafka_option,
    service,
)

_PORT = click.IntRange(0, 65_535)

upstream_option = click.option(
    "--upstream", metavar="URL", help="Server that runs tools; calls go through to it and are recorded (TOOLLEDGER_UPSTREAM)."
)


@click.command(epilog="Example: toolledger up --demo")
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 for all of this machine.")
@click.option("--port", type=_PORT, default=8600, show_default=True, help="The one public port; 0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Workers that share the partitions.")
@click.option("--demo", is_flag=True, help="Import recorded tool calls and keep a light live stream going.")
@kafka_option
@clickhouse_option
@upstream_option
@json_option
def up(
    data: Path,
    host: str,
    port: int,
    workers: int,
    demo: bool,
    kafka: str | None,
    clickhouse: str | None,
    upstream: str | None,
    as_json: bool,
) -> int:
    """Run the whole stack on this machine: Kafka, ClickHouse, workers, ingest and query at one address.

    Ctrl-C stops it cleanly; the next start goes on where this one stopped. With --kafka or --clickhouse it uses yours.
    """
    from deploy.embedded.stack import Options, run

    return run(
        Options(
            data=data,
            host=host,
            port=port,
            workers=workers,
            demo=demo,
            kafka=kafka,
            clickhouse=clickhouse,
            upstream=upstream,
            as_json=as_json,
        )
    )


@click.command(epilog="Example: toolledger kafka --data .toolledger --port 9092")
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(1, 65_535), default=9092, show_default=True, help="Port for clients.")
@click.option("--controller-port", type=_PORT, default=0, help="Port for controllers; 0 takes a free one.")
@click.option(
    "--node-id", type=click.IntRange(1), default=1, show_default=True, help="Number of this broker among its fellows."
)
@click.option("--voters", default="", help="All controllers of a cluster, id@host:port, comma separated.")
@click.option("--cluster-id", default="", help="The same for all brokers of a cluster; a new one unless given.")
def kafka(data: Path, host: str, port: int, controller_port: int, node_id: int, voters: str, cluster_id: str) -> int:
    """Run the embedded Kafka alone: the real Apache Kafka, one JVM."""
    from deploy.embedded.kafka import serve
    from deploy.embedded.kafka_config import Broker

    return serve(
        Broker(
            data=data,
            host=host,
            port=port,
            controller_port=controller_port,
            node_id=node_id,
            voters=tuple(voter for voter in voters.split(",") if voter),
            cluster_id=cluster_id,
        )
    )


@click.command(epilog="Example: toolledger clickhouse --data .toolledger --port 8123")
@data_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=_PORT, default=8123, show_default=True, help="Port of the HTTP interface; 0 takes a free one.")
@click.option("--users", type=click.Path(path_type=Path), help="JSON file of names and passwords.")
@click.option("--memory-mb", type=click.IntRange(0), default=0, help="Cap for all queries; 0: a quarter of the machine.")
def clickhouse(data: Path, host: str, port: int, users: Path | None, memory_mb: int) -> int:
    """Run the embedded ClickHouse alone: the real engine behind ClickHouse's own HTTP interface."""
    from deploy.embedded.clickhouse.main import main as serve

    arguments = ["--data", str(data / "clickhouse"), "--host", host, "--port", str(port), "--memory-mb", str(memory_mb)]
    return serve([*arguments, *(["--users", str(users)] if users else [])])


@click.command(epilog="Example: toolledger ingest --host 0.0.0.0 --port 8600 --kafka kafka-1:9092,kafka-2:9092")
@data_option
@click.option("--host", help="Address to listen at (TOOLLEDGER_HOST).")
@click.option("--port", type=_PORT, help="Public port (TOOLLEDGER_PORT).")
@click.option("--query-url", metavar="URL", help="Query service that other requests are forwarded to (TOOLLEDGER_QUERY_URL).")
@kafka_option
@upstream_option
def ingest(data: Path, kafka: str | None, **given: Any) -> int:
    """Run the ingest service alone: takes events over HTTP and answers once Kafka has them."""
    from ingest.contract.settings import load
    from ingest.run import main
    from ingest.settings import IngestSettings

    return main(load(IngestSettings, kafka=kafka_address(kafka, data), **given))


@click.command(epilog="Example: toolledger worker --kafka kafka-1:9092 --clickhouse http://clickhouse:8123/toolledger")
@data_option
@click.option("--port", "worker_port", type=_PORT, help="Port of health and metrics (TOOLLEDGER_WORKER_PORT).")
@kafka_option
@clickhouse_option
def worker(data: Path, kafka: str | None, clickhouse: str | None, **given: Any) -> int:
    """Run one worker alone: moves events from Kafka to ClickHouse, exactly once."""
    from ingest.contract.settings import load
    from processors.run import main
    from processors.settings import WorkerSettings

    addresses = {"kafka": kafka_address(kafka, data), "clickhouse": clickhouse_url(clickhouse, data)}
    return main(load(WorkerSettings, **addresses, **given))


@click.command(epilog="Example: toolledger query --clickhouse http://clickhouse:8123/toolledger --kafka kafka-1:9092")
@data_option
@click.option("--host", "query_host", help="Address to listen at (TOOLLEDGER_QUERY_HOST).")
@click.option("--port", "query_port", type=_PORT, help="Port of the query service (TOOLLEDGER_QUERY_PORT).")
@kafka_option
@clickhouse_option
def query(data: Path, kafka: str | None, clickhouse: str | None, **given: Any) -> int:
    """Run the query service alone: answers logs and usage from ClickHouse."""
    from ingest.contract.settings import load
    from query_api.run import main
    from query_api.settings import QuerySettings

    addresses = {"kafka": kafka_address(kafka, data), "clickhouse": clickhouse_url(clickhouse, data)}
    return main(load(QuerySettings, **addresses, **given))


@click.command(epilog="Example: toolledger simulate --rate 20")
@data_option
@click.option("--rate", type=click.FloatRange(0.1, 1000), default=5.0, show_default=True, help="Events a second.")
@click.option("--seed", type=int, help="Makes the same calls again; a fresh stream unless given.")
@click.option("--events", type=click.IntRange(1), help="Stop after this many; endless unless given.")
def simulate(data: Path, rate: float, seed: int | None, events: int | None) -> int:
    """Send a light stream of made-up tool calls: several toolkits, users and sessions, with the usual failures."""
    from deploy.demo import stream

    url, key = service(data)
    return stream(url, key, rate=rate, seed=seed, events=events)
