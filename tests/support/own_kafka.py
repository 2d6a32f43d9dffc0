"""An embedded Kafka of a test's own, one broker or several, to be stopped, killed, frozen and started again."""

import signal
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from tests.support.ports import HOST, free_port
from tests.support.process import Process, eventually


class OwnKafka:
    """A broker on a port and in a folder that stay the same over restarts.

    Args:
        options: further ones of `toolledger kafka`.
    """

    def __init__(self, folder: Path, *, options: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: Process | None = None
        self._options = options

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def ready(self) -> bool:
        """Whether clients can connect."""
        assert self.process is not None
        return " ready at " in self.process.said()

    def launch(self) -> Process:
        """Start it without waiting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["kafka", "--data", str(self.folder), "--port", str(self.port), *self._options]
        self.process = Process("kafka", arguments, folder=self.folder, env={})
        return self.process

    def await_ready(self) -> None:
        """Wait until clients can connect."""
        process = self.process
        assert process is not None
        # The first start of all fetches what it runs on.
        eventually("Kafka is ready", lambda: self.ready or not process.alive, timeout_s=300)
        assert self.ready, f"Kafka did not become ready: {process.said()}"

    def start(self) -> None:
        """Start and wait until clients can connect."""
        self.launch()
        self.await_ready()

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole broker, as with SIGSTOP and SIGCONT."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, *, kill: bool = False) -> None:
        """End it, cleanly or as a crash does, and wait until it is gone."""
        if self.process is not None:
            self.process.end(signal.SIGKILL if kill else signal.SIGTERM)


class OwnCluster:
    """Several brokers, each its own controller too; topics are kept on three of them."""

    def __init__(self, folder: Path, *, brokers: int = 3) -> None:
        controllers = [free_port() for _ in range(brokers)]
        voters = ",".join(f"{number}@{HOST}:{port}" for number, port in enumerate(controllers, 1))
        # The form Kafka gives its own; a leading letter, because a dash would read as an option.
        cluster_id = "T" + urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        self.brokers = [
            OwnKafka(
                folder / f"broker-{number}",
                options=(
                    *("--node-id", str(number), "--controller-port", str(port)),
                    *("--voters", voters, "--cluster-id", cluster_id),
                ),
            )
            for number, port in enumerate(controllers, 1)
        ]

    @property
    def address(self) -> str:
        return ",".join(broker.address for broker in self.brokers)

    def start(self) -> None:
        """Start all of them and wait until clients can connect to each: they elect a leader only together."""
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.await_ready()

    def stop(self, *, kill: bool = False) -> None:
        """End all of them."""
        for broker in self.brokers:
            broker.stop(kill=kill)
