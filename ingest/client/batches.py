"""A batch on its way out, and how its body is compressed."""

import functools
import gzip
import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ingest.client.options import Options

# Below that, headers weigh more than what compression saves.
_COMPRESSED_FROM_BYTES: Final = 1024
_GZIP_LEVEL: Final = 1
_ZSTD_LEVEL: Final = 1


@dataclass(slots=True, kw_only=True)
class Batch:
    """Redacted events that go out together.

    `held_bytes` is their size as they were put, which is what memory is counted in.
    """

    number: int
    events: list[bytes]
    held_bytes: int
    size: int = field(init=False)
    faults: int = 0

    def __post_init__(self) -> None:
        self.size = sum(map(len, self.events))

    def ndjson(self) -> bytes:
        """Return the body, an event a line, the last one ended too: bodies stand one behind the other in a file."""
        return b"\n".join((*self.events, b""))

    def join(self, other: "Batch", options: Options) -> bool:
        """Take another batch's events behind these, if that is still one batch; false if not.

        The number stays that of the older one, so that who waits for it goes on waiting.
        """
        if len(self.events) + len(other.events) > options.batch_events_max or self.size + other.size > options.batch_bytes_max:
            return False
        self.events += other.events
        self.size += other.size
        self.held_bytes += other.held_bytes
        return True

    def halves(self) -> tuple["Batch", "Batch"]:
        """Return two batches of half the events each."""
        middle = len(self.events) // 2
        share = self.held_bytes // 2
        return (
            Batch(number=self.number, events=self.events[:middle], held_bytes=share),
            Batch(number=self.number, events=self.events[middle:], held_bytes=self.held_bytes - share),
        )


Compress = Callable[[bytes], bytes]


def compression(*, zstd: bool = True) -> tuple[str, Compress]:
    """Return the name and function of the best compression that is installed: zstd where it may be, else gzip.

    zstd takes a tenth of gzip's time; it comes with Python 3.14, or with the package `zstandard`.
    """
    for module in ("compression.zstd", "zstandard") if zstd else ():
        try:
            found: Any = importlib.import_module(module)
        except ImportError:
            continue
        return "zstd", functools.partial(found.compress, level=_ZSTD_LEVEL)
    return "gzip", lambda body: gzip.compress(body, _GZIP_LEVEL)


def worth_compressing(body: bytes) -> bool:
    """Tell whether compressing a body saves anything."""
    return len(body) >= _COMPRESSED_FROM_BYTES
