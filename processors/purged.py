"""Events of a time of which retention has taken everything: they would count once more, so they become dead letters. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from ingest.contract.access import Purge, kept_since
from ingest.contract.errors import InvalidEvent
from ingest.contract.event import check_retention
from processors.decode import DeadLetter, Decoded, Record

# What a batch's events are kept in, one beside the other.
_LISTS: Final = (
    "events",
    "project_ids",
    "ids",
    "timestamps_ms",
    "accepted_ms",
    "offsets",
    "indexes",
    "data",
    "metadata",
    "sources",
    "stays",
)


def refuse(decoded: Decoded, records: Sequence[Record], purges: Mapping[str, Sequence[Purge]]) -> None:
    """Turn a batch's events from before what their projects keep into dead letters, in place.

    Args:
        records: the batch's; the time of an event's own record decides, so that it does whenever it is read again.
        purges: by project.
    """
    newest_ms = {
        project_id: max(one.until_ms for one in purges[project_id])
        for project_id in set(decoded.project_ids)
        if purges.get(project_id)
    }
    placed = enumerate(zip(decoded.project_ids, decoded.timestamps_ms, strict=True))
    old = [place for place, (project_id, at_ms) in placed if at_ms < newest_ms.get(project_id, 0)] if newest_ms else []
    # As good as always: nobody sends what is that old.
    if not old:
        return
    by_offset = {record.offset: record for record in records}
    refused = {}
    for place in old:
        project_id, at_ms = decoded.project_ids[place], decoded.timestamps_ms[place]
        record = by_offset[decoded.offsets[place]]
        try:
            check_retention(at_ms, kept_since_ms=kept_since(purges[project_id], record.timestamp_ms))
        except InvalidEvent as error:
            refused[place] = DeadLetter(
                project_id=project_id,
                offset=record.offset,
                index=decoded.indexes[place],
                accepted_ms=decoded.accepted_ms[place],
                reason=error.reason,
                message=error.message,
                key=record.key or b"",
                payload=decoded.raw(place),
            )
    if not refused:
        return
    decoded.dead_letters += refused.values()
    kept = [place for place in range(len(decoded.events)) if place not in refused]
    for name in _LISTS:
        values = getattr(decoded, name)
        setattr(decoded, name, [values[place] for place in kept])
    decoded.replays = {new: decoded.replays[old] for new, old in enumerate(kept) if old in decoded.replays}
