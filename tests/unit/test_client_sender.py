"""The sender of one client, without a thread."""

from pathlib import Path

from ingest.client.batches import Batch
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
