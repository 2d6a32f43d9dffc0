"""ClickHouse as a check asks it: many rows, little memory, one question after another."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from ingest.contract import store

# Groups beyond this go to disk; what a question may take in all; rows over the wire come in blocks.
_SETTINGS: Final = {
    "max_bytes_before_external_group_by": 256 * 1024 * 1024,
    "max_bytes_before_external_sort": 256 * 1024 * 1024,
    "max_memory_usage": 2 * 1024 * 1024 * 1024,
    "max_threads": 2,
}
_TIMEOUT_S: Final = 1800.0


class Store:
    """Read-only; a context manager. Making one, and every question, may raise StoreUnavailable."""

    def __init__(self, url: str) -> None:
        self._url = url
        with store.told(url):
            self._client = store.client(url, read_timeout_s=_TIMEOUT_S)
        # A user who may change no settings (readonly = 1) asks within the server's own limits.
        known = self._client.server_settings
        self._settings = {name: value for name, value in _SETTINGS.items() if name not in known or not known[name].readonly}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def rows(self, query: str, **parameters: Any) -> Sequence[Sequence[Any]]:
        """Return the rows of a question; parameters are bound by name."""
        with store.told(self._url):
            rows: Sequence[Sequence[Any]] = self._client.query(query, parameters, settings=self._settings).result_rows
        return rows
