"""`/healthz`, `/readyz` and `/metrics`: the process lives; it would work; what it counted."""

from typing import Any

import msgspec

from ingest.contract.control import ControlFollower
from ingest.contract.metrics import CONTENT_TYPE, render
from ingest.http.answers import Answer
from ingest.publisher import Publisher

_encode = msgspec.json.Encoder().encode


class HealthRoutes:
    """Ready means: an event sent now would be accepted."""

    def __init__(self, *, control: ControlFollower, publisher: Publisher) -> None:
        self._control = control
        self._publisher = publisher
        self.stopping = False

    def alive(self) -> Answer:
        """Answer `/healthz`."""
        return Answer(status=200, body=b'{"status":"ok"}')

    def ready(self) -> Answer:
        """Answer `/readyz`: 200, or 503 with every reason."""
        kafka = self._publisher.reason
        reasons = []
        if self.stopping:
            reasons.append("stopping")
        if kafka is not None:
            reasons.append(f"kafka: {kafka}")
        if not self._control.caught_up.is_set():
            reasons.append("control: the API keys have not been read yet")
        body: dict[str, Any] = {
            "ready": not reasons,
            "checks": {"kafka": kafka is None, "control": self._control.caught_up.is_set()},
            "reasons": reasons,
        }
        return Answer(status=503 if reasons else 200, body=_encode(body))

    def metrics(self) -> Answer:
        """Answer `/metrics` in Prometheus' text form."""
        return Answer(status=200, body=render(), content_type=CONTENT_TYPE.encode())
