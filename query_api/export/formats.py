"""Rows of an export as NDJSON, CSV or Parquet. Pure.

NDJSON holds logs as the API shows them. CSV (RFC 4180) and Parquet are flat, with the same columns; what a log has not is an
empty cell, or null. In CSV a text that a spreadsheet would take for a formula gets an apostrophe in front.
"""

import csv
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, get_args

import orjson
import zstandard

from query_api import log_items
from query_api.export.sql import Export
from query_api.live.pages import one_line
from query_api.store import Row

Format = Literal["ndjson", "csv", "parquet"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
MEDIA_TYPES: Final[Mapping[Format, str]] = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8; header=present",
    "parquet": "application/vnd.apache.parquet",
}
# OWASP, CSV injection, and what some programs pass over, or read as one of these: NUL, line feeds, full-width forms.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_TIMESTAMP: Final = "timestamp"
_NUMBERS: Final = ("duration_ms", "http_status")
# A group of rows is what a reader of Parquet takes at once, and what is held here.
_GROUP_ROWS: Final = 24_000
_GROUP_BYTES: Final = 16 * 1024 * 1024


class Encoder(Protocol):
    """Makes a file of rows, piece by piece."""

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return what some rows add to the file."""

    def end(self) -> bytes:
        """Return what makes it whole."""


def encoder(kind: Format, export: Export) -> Encoder:
    """Return a new encoder."""
    made: dict[Format, Callable[[Export], Encoder]] = {"ndjson": Ndjson, "csv": Csv, "parquet": Parquet}
    return made[kind](export)


class Ndjson:
    """A log a line, as the API shows it: with payloads as a detail, without as a search does."""

    def __init__(self, export: Export) -> None:
        self._columns = export.columns
        self._shown = log_items.detail if export.data else log_items.item

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return lines."""
        values = (dict(zip(self._columns, row, strict=True)) for row in rows)
        return b"".join(one_line(orjson.dumps(self._shown(one))) + b"\n" for one in values)

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class Csv:
    """Lines with a header, UTF-8, CRLF."""

    def __init__(self, export: Export) -> None:
        self._columns = flat_columns(export)
        self._text = io.StringIO(newline="")
        self._writer = csv.writer(self._text, lineterminator="\r\n")
        self._writer.writerow(self._columns)

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return lines, with the header before the first."""
        self._writer.writerows([_cell(name, value) for name, value in zip(self._columns, row, strict=True)] for row in rows)
        return self.end()

    def end(self) -> bytes:
        """Return what was not taken yet: the header of a file without rows."""
        lines = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return lines.encode()


class Parquet:
    """Columns in groups of rows, packed with zstd."""

    def __init__(self, export: Export) -> None:
        # Only who exports Parquet pays for loading it: 0.3 s and 40 MB.
        import pyarrow as pa  # noqa: PLC0415
        import pyarrow.parquet as pq  # noqa: PLC0415

        self._arrow = pa
        self._schema = pa.schema([pa.field(name, _arrow_type(pa, name)) for name in flat_columns(export)])
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(pa.PythonFile(self._sink, "w"), self._schema, compression="zstd")
        self._held: list[Any] = []

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return a group once there are rows for one."""
        columns = [
            self._arrow.array([_value(field.name, value) for value in column], field.type)
            for field, column in zip(self._schema, zip(*rows, strict=True), strict=True)
        ]
        self._held.append(self._arrow.Table.from_arrays(columns, schema=self._schema))
        full = sum(one.num_rows for one in self._held) >= _GROUP_ROWS or sum(one.nbytes for one in self._held) >= _GROUP_BYTES
        return self._group() if full else b""

    def end(self) -> bytes:
        """Return the last group and the footer."""
        last = self._group() if self._held else b""
        self._writer.close()
        return last + self._sink.taken()

    def _group(self) -> bytes:
        self._writer.write_table(self._arrow.concat_tables(self._held).combine_chunks())
        self._held = []
        return self._sink.taken()


class _Sink(io.RawIOBase):
    """A file that is given away while it is written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._size += len(part)
        return len(part)

    def tell(self) -> int:
        return self._size

    def taken(self) -> bytes:
        """Return what was written since the last call."""
        taken = b"".join(self._parts)
        self._parts = []
        return taken


class Packed:
    """Another encoder's file, packed for the way."""

    def __init__(self, inner: Encoder, coding: str) -> None:
        self._inner = inner
        self._packer: Any = (
            zlib.compressobj(level=4, wbits=31) if coding == "gzip" else zstandard.ZstdCompressor(level=3).compressobj()
        )

    def rows(self, rows: Sequence[Row]) -> bytes:
        """Return what some rows add."""
        return bytes(self._packer.compress(self._inner.rows(rows)))

    def end(self) -> bytes:
        """Return what makes it whole."""
        return bytes(self._packer.compress(self._inner.end()) + self._packer.flush())


CODINGS: Final = ("zstd", "gzip")


def coding(accepted: str, kind: Format) -> str | None:
    """Return how a file is packed for the way, None for not at all; Parquet is packed in itself."""
    if kind == "parquet":
        return None
    wanted = {}
    for one in accepted.lower().split(","):
        name, _, quality = one.partition(";")
        wanted[name.strip()] = quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return next((name for name in CODINGS if wanted.get(name)), None)


def flat_columns(export: Export) -> tuple[str, ...]:
    """Return the columns of CSV and Parquet, in the order of rows."""
    return tuple(_TIMESTAMP if "timestamp" in name else name for name in export.columns)


def _cell(name: str, value: Any) -> Any:
    if name == _TIMESTAMP:
        return log_items.iso(value)
    if name in _NUMBERS:
        return "" if name == "http_status" and not value else value
    return f"'{value}" if value.startswith(_FORMULA) else value


def _value(name: str, value: Any) -> Any:
    return value if name in (_TIMESTAMP, "duration_ms") else value or None


def _arrow_type(arrow: Any, name: str) -> Any:
    types = {_TIMESTAMP: arrow.timestamp("ms", "UTC"), "duration_ms": arrow.float64(), "http_status": arrow.uint16()}
    return types.get(name, arrow.string())
