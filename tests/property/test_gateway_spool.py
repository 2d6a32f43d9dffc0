"""What the spool was given and is not settled is there for the next process, whatever the order of things."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ingest.contract.errors import ConfigurationError
from ingest.gateway import spool as module
from ingest.gateway.spool import Entry, Segment, Spool

LIMIT = 200_000


class Spooling(RuleBasedStateMachine):
    """A process that writes, settles and reads back, is killed at any moment, and finds what it left behind."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.spool = Spool(self.folder, bytes_max=LIMIT)
        self.number = 0
        self.in_memory: list[tuple[Entry, Segment]] = []
        self.on_disk: set[Entry] = set()

    @rule(size=st.sampled_from([0, 10, 3_000, 50_000]), deferred=st.booleans(), project=st.sampled_from(["p", "ü" * 50]))
    def append(self, size: int, deferred: bool, project: str) -> None:
        self.number += 1
        entry = Entry(project, f"log_{self.number}", b"x" * size)
        segment = self.spool.append(entry, deferred=deferred)
        if segment is None:
            # Only at its limit.
            assert self.spool._bytes + size + 500 > LIMIT
        elif deferred:
            self.on_disk.add(entry)
        else:
            self.in_memory.append((entry, segment))

    @precondition(lambda self: self.in_memory)
    @rule(count=st.integers(1, 5))
    def settle(self, count: int) -> None:
        for _, segment in self.in_memory[:count]:
            self.spool.settle(segment)
        del self.in_memory[:count]

    @rule(bytes_max=st.sampled_from([1, 5_000, 10**6]))
    def take(self, bytes_max: int) -> None:
        segment, entries, _ = self.spool.take(bytes_max)
        assert self.on_disk.issuperset(entries)
        assert bool(entries) == bool(self.on_disk)
        self.on_disk -= set(entries)
        assert segment is not None or not entries
        self.in_memory += [(entry, segment) for entry in entries if segment is not None]

    @rule(torn=st.binary(max_size=40))
    def die(self, torn: bytes) -> None:
        """The next process finds all that was not settled; it may find more, which then counts once by its id."""
        left = self.on_disk | {entry for entry, _ in self.in_memory}
        segments = [segment for _, segment in self.in_memory] + list(self.spool._deferred)
        segments += [self.spool._open] if self.spool._open is not None else []
        for segment in {id(one): one for one in segments}.values():
            module.os.write(segment.descriptor, torn)
            module.os.close(segment.descriptor)
        self.spool = Spool(self.folder, bytes_max=LIMIT)
        found: set[Entry] = set()
        self.in_memory = []
        while True:
            segment, entries, former = self.spool.take(20_000)
            if not entries:
                break
            assert former
            assert segment is not None
            found |= set(entries)
            self.in_memory += [(entry, segment) for entry in entries]
        assert found >= left
        self.on_disk = set()

    @invariant()
    def nothing_is_left_of_what_is_settled(self) -> None:
        files = list(self.folder.glob("*.entries"))
        assert sum(file.stat().st_size for file in files) == self.spool._bytes
        if not self.in_memory and not self.on_disk:
            assert self.spool._bytes == 0
            assert len(files) <= 1

    def teardown(self) -> None:
        for _, segment in self.in_memory:
            self.spool.settle(segment)


Spooling.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_spool = Spooling.TestCase


def test_segments_of_a_process_that_lives_are_its_own(tmp_path: Path) -> None:
    first = Spool(tmp_path, bytes_max=LIMIT)
    first.append(Entry("p", "a", b"{}"), deferred=True)
    second = Spool(tmp_path, bytes_max=LIMIT)
    assert second.take(100)[1] == []
    assert first.take(100)[1] == [Entry("p", "a", b"{}")]


def test_a_full_disk_refuses_and_breaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written half is cut off; what comes after it can be read."""
    spool = Spool(tmp_path, bytes_max=LIMIT)
    spool.append(Entry("p", "a", b"{}"), deferred=True)
    write = module.os.write

    def half(descriptor: int, data: memoryview) -> int:
        write(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "write", half)
    assert spool.append(Entry("p", "b", b"{}"), deferred=True) is None
    monkeypatch.undo()
    spool.append(Entry("p", "c", b"{}"), deferred=True)
    assert [entry.id for entry in spool.take(10**6)[1]] == ["a", "c"]


def test_a_folder_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="name another folder"):
        Spool(tmp_path / "file", bytes_max=LIMIT)
