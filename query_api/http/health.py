"""For machines: alive, ready, measured."""

from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from ingest.contract import metrics
from ingest.contract.errors import QueryError, TransportError
from ingest.contract.http_errors import REQUEST_ID_HEADER, error_body, request_id
from ingest.contract.tables import DEAD_LETTERS, PROGRESS, TOOL_EXECUTIONS, USAGE_CORRECTIONS, USAGE_WINDOWS
from query_api.http.edge import Services

_TABLES: Final = (TOOL_EXECUTIONS, USAGE_WINDOWS, USAGE_CORRECTIONS, DEAD_LETTERS, PROGRESS)
_SCHEMA: Final = "SELECT name FROM system.tables WHERE database = currentDatabase()"


class Health:
    """The routes `/healthz`, `/readyz` and `/metrics`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def healthz(self, _: Request) -> Response:
        """Answer that the process serves requests."""
        return Response(b'{"status":"ok"}', media_type="application/json")

    async def readyz(self, request: Request) -> Response:
        """Answer 200 if a question would be answered now, else 503 with what is missing."""
        missing = await self._missing()
        if not missing:
            return Response(orjson.dumps({"status": "ready"}), media_type="application/json")
        identity = request_id(request.headers.get(REQUEST_ID_HEADER))
        body = error_body(status=503, message="Not ready: " + "; ".join(missing), request_id=identity, errors=missing)
        headers = {REQUEST_ID_HEADER: identity, "Retry-After": str(self._services.settings.query_retry_after_s)}
        return Response(body, 503, media_type="application/json", headers=headers)

    async def metrics(self, _: Request) -> Response:
        """Answer the metrics of this process."""
        return Response(metrics.render(), media_type=metrics.CONTENT_TYPE)

    async def _missing(self) -> list[str]:
        missing = []
        if not self._services.control.caught_up.is_set():
            missing.append("API keys are not read yet (Kafka, control topic)")
        try:
            # In a line of its own: whoever asks this without a key, however often, keeps no answer from its freshness.
            tables = {name for (name,) in await self._services.reader.system_rows(_SCHEMA, line="readiness")}
            absent = [name for name in _TABLES if name not in tables]
            if absent:
                missing.append(f"ClickHouse has no tables {', '.join(absent)}: run toolledger migrate")
        except (TransportError, QueryError) as error:
            missing.append(str(error))
        return missing
