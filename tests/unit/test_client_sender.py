"""The sender of one client, without a thread."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingest.client import spool as spooling
from ingest.client.batches import Batch
from ingest.client.diagnostics import Seldom
from ingest.client.frames import pack
from ingest.client.options import Options
from ingest.client.sender import Sender
from ingest.client.spool import Spool


def test_what_is_handed_over_after_the_last_look_goes_to_disk(tmp_path: Path) -> None:
    """Between a closing client's last look and the end of its threads, a batch is neither lost nor left locked."""
    released: list[int] = []
    sender = Sender(Options(api_key="ak_x", base_url="http://127.0.0.1:9", spool_folder=tmp_path), release=released.append)
    sender.evacuate()
    sender.take(Batch(number=1, events=[b'{"id":"late"}'], held_bytes=77))
    assert not sender.holds(1)
    assert (sender.spooled, sender.dropped.total(), released) == (1, 0, [77])
    found = Spool(tmp_path, bytes_max=1 << 20, seldom=sender._seldom).claim()
    assert found is not None
    assert [frame.events for frame in found.frames] == [1]
    found.leave()
    sender.stop()
    sender.close()


def test_a_fork_in_the_midst_of_a_first_batch_leaves_the_parent_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child lets go of what it copied; the file, of which nothing is written yet, is the parent's."""
    spool = Spool(tmp_path, bytes_max=1 << 20, seldom=Seldom())
    write = os.write

    def forked(descriptor: int, data: bytes) -> int:
        if (child := os.fork()) == 0:
            spool.forget()
            os._exit(0)
        os.waitpid(child, 0)
        return write(descriptor, data)

    monkeypatch.setattr(spooling.os, "write", forked)
    assert spool.append(pack(b'{"id":"kept"}\n', 1))
    found = spool.claim()
    assert found is not None
    assert [frame.events for frame in found.frames] == [1]
    found.leave()


def test_a_file_that_goes_while_the_folder_is_measured_is_no_fault_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process removes what it has sent at any moment: that is room, and no reason to drop what is to be kept."""
    scandir = os.scandir

    @contextmanager
    def seen_and_gone(folder: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            seen = list(entries)
        for entry in seen:
            os.unlink(entry.path)
        yield iter(seen)

    (tmp_path / "0000000000001-7-00000000.ndjson.gz").write_bytes(b"sent")
    monkeypatch.setattr(spooling.os, "scandir", seen_and_gone)
    spool = Spool(tmp_path, bytes_max=1 << 20, seldom=Seldom())
    assert spool.append(pack(b'{"id":"kept"}\n', 1))
    spool.close()
