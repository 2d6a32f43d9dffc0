"""ClickHouse as a check asks it: many rows, little memory, one question after another."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from ingest.contract.store import client as open_client

# Groups beyond this go to disk; what a question may take in all; rows over the wire come in blocks.
_SETTINGS: Final = {
    "max_bytes_before_external_group_by": 256 * 1024 * 1024,
    "max_bytes_before_external_sort": 256 * 1024 * 1024,
    "max_memory_usage": 2 * 1024 * 1024 * 1024,
    "max_threads": 2,
}
_TIMEOUT_S: Final = 1800.0


class Store:
    """Read-only; a context manager."""

    def __init__(self, url: str) -> None:
        self._client = open_client(url, read_timeout_s=_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def rows(self, query: str, **parameters: Any) -> Sequence[Sequence[Any]]:
        """Return the rows of a question; parameters are bound by name."""
        rows: Sequence[Sequence[Any]] = self._client.query(query, parameters, settings=_SETTINGS).result_rows
        return rows
