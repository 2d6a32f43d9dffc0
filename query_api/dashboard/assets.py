"""The page's files, read and packed once."""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

INDEX: Final = "index.html"
_MEDIA: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file.

    Args:
        packed: the same in gzip, for those who take it.
        etag: of what is in it, so that a browser asks again and gets it only when it has changed.
    """

    body: bytes
    packed: bytes
    media: str
    etag: str


@lru_cache(maxsize=1)
def assets() -> Mapping[str, Asset]:
    """Return all files by their path within the page."""
    return {path: asset(body, media) for path, body, media in _files(files(__package__) / "page", "")}


def asset(body: bytes, media: str) -> Asset:
    """Make an asset of a file's bytes."""
    return Asset(
        body=body,
        packed=gzip.compress(body, 6, mtime=0),
        media=media,
        etag=f'"{hashlib.sha256(body).hexdigest()[:16]}"',
    )


def _files(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes, str]]:
    for each in folder.iterdir():
        suffix = "." + each.name.rpartition(".")[2]
        if each.is_dir():
            yield from _files(each, f"{prefix}{each.name}/")
        elif suffix in _MEDIA:
            yield prefix + each.name, each.read_bytes(), _MEDIA[suffix]
