"""How far files were sent, kept beside the cache: an interrupted send goes on where it stopped, and nothing counts twice.

Two things are kept of a file, for the place it is sent to: how far all is answered, and the seed that the ids of its events
without one are made from. The seed stays as long as the file is the same or has only grown, so that sending again, from
anywhere, makes the same ids. Losing what is kept costs time, not counts: the seed of an unchanged file can be made again.
"""

import contextlib
import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from deploy.cli.send_input import Mark
from deploy.embedded.process import cache_folder
from ingest.contract.errors import ConfigurationError

_SAMPLE_BYTES: Final = 64 * 1024
# As long as an id is known for sure by default (seven days), and some more.
_KEPT_S: Final = 30 * 24 * 3600.0
_VERSION: Final = 1


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What tells one state of a file from another: its size, when it was written, and its beginning."""

    size: int
    modified_ns: int
    head: str


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one file: all before `offset` of its text, and `number` lines or items, is answered.

    `sample` is of the bytes before it, so that a file that has grown is told from another; of a compressed one there is none.
    """

    version: int = _VERSION
    identity: Identity
    seed: str
    offset: int
    number: int
    kind: str = "line"
    sample: str = ""
    accepted: int = 0
    rejected: int = 0
    finished: bool = False

    @property
    def mark(self) -> Mark:
        return Mark(offset=self.offset, number=self.number)


def identity_of(path: str) -> Identity:
    """Look at a file.

    Raises:
        OSError: it is gone.
    """
    with open(path, "rb") as file:
        told = os.fstat(file.fileno())
        return Identity(size=told.st_size, modified_ns=told.st_mtime_ns, head=_digest(file.read(_SAMPLE_BYTES)))


def random_seed() -> str:
    """Make a seed that nobody had before."""
    return uuid.uuid4().hex


def fresh(identity: Identity, *, anew: bool = False) -> State:
    """Begin a file.

    Args:
        anew: its events without an id are new calls, even if it was sent before.
    """
    told = f"{identity.size} {identity.modified_ns} {identity.head}"
    seed = random_seed() if anew else _digest(told.encode())
    return State(identity=identity, seed=seed, offset=0, number=0)


def go_on(kept: State | None, identity: Identity, path: str, *, anew: bool) -> tuple[State, str]:
    """Decide where a send begins, and what to tell of it.

    Returns:
        The state to begin with, and a remark for people, mostly none.

    Raises:
        ConfigurationError: it was interrupted, and the file has been changed since: only people can know what to do.
    """
    if anew or kept is None or kept.version != _VERSION:
        return fresh(identity, anew=anew), ""
    if kept.identity == identity:
        if kept.finished:
            return msgspec.structs.replace(fresh(identity), seed=kept.seed), ""
        return kept, f"going on behind {kept.kind} {kept.number:,}" if kept.offset else ""
    if identity.size > kept.identity.size and _begins_alike(kept, path):
        grown = msgspec.structs.replace(kept, identity=identity, finished=False)
        if kept.finished:
            # What was counted is told already; the last batch, which has room, is sent again and makes the same ids.
            grown = msgspec.structs.replace(grown, accepted=0, rejected=0)
        return grown, f"it has grown; going on behind {kept.kind} {kept.number:,}"
    if kept.finished:
        return fresh(identity), "it was sent before and has been changed since: its events without an id are new calls"
    raise ConfigurationError(
        f"{path} has been changed since its send was interrupted behind {kept.kind} {kept.number:,}: up to there its events"
        " without an id would count twice; put the file back, or send it as a new one with --anew"
    )


class Kept:
    """The state of one file, in a file of its own, held by one process at a time."""

    def __init__(self, folder: Path, target: str, path: str) -> None:
        name = _digest(f"{target}\0{os.path.realpath(path)}".encode())
        self._path = folder / f"{name}.json"
        self._lock: IO[bytes] | None = None
        self._saved_at = float("-inf")

    @classmethod
    def of(cls, target: str, path: str) -> "Kept":
        """Return what is kept of a file for a place it is sent to."""
        return cls(cache_folder() / "send", target, path)

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Keep other processes from sending the same file there.

        Raises:
            ConfigurationError: one is at it, or the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._path.with_suffix(".lock").open("wb")
        except OSError as error:
            raise ConfigurationError(
                f"{self._path.parent} cannot be written ({error.strerror}), where progress is kept: name a folder that can in"
                f" TOOLLEDGER_CACHE, or, without resuming: toolledger send - < {name}"
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigurationError(f"{name} is being sent by another process: wait for it, or end it first") from None
            yield

    def read(self) -> State | None:
        """Return what was kept; None where there is nothing that can be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=State)
        except (OSError, msgspec.DecodeError):
            return None

    def save(self, state: State) -> None:
        """Replace what is kept, whole or not at all."""
        self.begin(state)
        self._saved_at = time.monotonic()

    def begin(self, state: State) -> None:
        """Save before anything is answered; what is answered first is then saved at once."""
        new = self._path.with_suffix(".new")
        new.write_bytes(msgspec.json.encode(state))
        new.replace(self._path)

    def is_due(self, every_s: float) -> bool:
        """Tell whether it was saved longer ago than that."""
        return time.monotonic() - self._saved_at >= every_s

    def tidy(self) -> None:
        """Forget files that nobody has sent for a month."""
        oldest = time.time() - _KEPT_S
        for one in self._path.parent.iterdir():
            with contextlib.suppress(OSError):
                if one.stat().st_mtime < oldest:
                    one.unlink()


def sample_before(path: str, offset: int) -> str:
    """Return a digest of the bytes that end at an offset of a file."""
    with open(path, "rb") as file:
        start = max(0, offset - _SAMPLE_BYTES)
        file.seek(start)
        return _digest(file.read(offset - start))


def _begins_alike(kept: State, path: str) -> bool:
    """Tell whether what was read of a file is still its beginning, as far as samples can tell."""
    head_bytes = min(_SAMPLE_BYTES, kept.identity.size)
    with open(path, "rb") as file:
        same_head = _digest(file.read(head_bytes)) == kept.identity.head
    return same_head and bool(kept.sample) and sample_before(path, kept.offset) == kept.sample


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
