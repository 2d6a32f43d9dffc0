"""How the embedded broker is configured: pure, from a `Broker` to the text of server.properties and to a JVM's arguments."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

# One heap for any load: the page cache does the work, and what a broker holds is bounded by its buffers.
HEAP_MB: Final = 512
# Internal topics come with 50 partitions each; on one machine that is hundreds of files for a handful of groups.
_INTERNAL_PARTITIONS: Final = 8
# Larger than the largest record (topics.RECORD_BYTES_MAX), so that a follower can always copy it.
_REPLICA_FETCH_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """One broker that is its own controller, alone or one of several.

    Args:
        data: the stack's data folder; the broker's own lies in `kafka` below it.
        host: address to listen at and to tell clients.
        port: port for clients; controllers use another.
        controller_port: port for controllers; 0 takes a free one, which only a broker without fellows may do.
        node_id: this broker's number, >= 1.
        voters: all controllers as `id@host:port`, this one included; empty for a broker without fellows.
        cluster_id: the same for all fellows; empty makes a new one at the first start.
    """

    data: Path
    host: str = "127.0.0.1"
    port: int = 9092
    controller_port: int = 0
    node_id: int = 1
    voters: tuple[str, ...] = ()
    cluster_id: str = ""
    heap_mb: int = HEAP_MB

    @property
    def folder(self) -> Path:
        """Where this broker keeps its files."""
        return self.data / "kafka"

    @property
    def log_file(self) -> Path:
        """What the broker says about itself."""
        return self.data / "logs" / "kafka-server.log"


def properties(broker: Broker, *, controller_port: int) -> str:
    """Return server.properties.

    Static voters rather than a dynamic quorum: the controller's port may then change between two starts.
    """
    fellows = max(1, len(broker.voters))
    replicas = min(3, fellows)
    in_sync = max(1, replicas - 1)
    values: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": broker.node_id,
        "listeners": f"CLIENTS://{broker.host}:{broker.port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"CLIENTS://{broker.host}:{broker.port}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENTS",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": ",".join(broker.voters) or f"{broker.node_id}@127.0.0.1:{controller_port}",
        "log.dirs": broker.folder / "log",
        # Topics are made by `toolledger topics`, with their settings; a typing error must not make one.
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": _INTERNAL_PARTITIONS,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": _INTERNAL_PARTITIONS,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": _INTERNAL_PARTITIONS,
        # A stack that was stopped for a month still knows where its group stood.
        "offsets.retention.minutes": 30 * 24 * 60,
        "replica.fetch.max.bytes": _REPLICA_FETCH_BYTES,
        # A power cut takes what was not on the disk yet, with one copy a second at most; a crash of a process takes nothing.
        "log.flush.interval.ms": 1000,
        "log.flush.scheduler.interval.ms": 1000,
        # The cleaner takes 128 MB of heap as it comes; our one compacted topic holds keys and rules.
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
    }
    if fellows == 1:
        # Nobody to wait for: the only voter elects itself at once, and no heartbeat records fill the metadata log.
        values["controller.quorum.election.timeout.ms"] = 100
        values["metadata.max.idle.interval.ms"] = 0
        # A killed broker may come back once its former self counts as gone. Nobody could take over meanwhile, so soon.
        values["broker.heartbeat.interval.ms"] = 1000
        values["broker.session.timeout.ms"] = 4000
    return "".join(f"{name}={value}\n" for name, value in values.items())


def jvm_flags(*, heap_mb: int = HEAP_MB) -> list[str]:
    """Return what every JVM of the broker runs with; a class archive is only valid for the flags it was made under."""
    return [
        f"-Xmx{heap_mb}m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        # No shared-memory statistics under /tmp, and no thread that wakes to write them.
        "-XX:-UsePerfData",
        # The JVM's own remarks about class archives are not for users; errors still are.
        "-Xlog:disable",
        "-Xlog:all=error:stderr",
        # Kafka unmaps files through sun.misc.Unsafe and loads native codecs; Java 25 warns about both unless allowed.
        "--sun-misc-unsafe-memory-access=allow",
        "--enable-native-access=ALL-UNNAMED",
        "-Djava.awt.headless=true",
    ]
