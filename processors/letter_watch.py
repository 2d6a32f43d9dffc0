"""Watches what turns into dead letters, by partition: metric, one log line when it begins and when it ends, and the stop.

The rule is in `processors.alarm`. Before a batch is planned the ledger asks whether it may be: it may, unless it passes a limit
and the settings say that the partition should stop there.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from ingest.contract import metrics
from ingest.contract.logs import logger
from processors.alarm import AlarmLimits, Watch, judge, recalled
from processors.batch import Prepared

log = logger(__name__)

_WHAT_TO_DO: Final = (
    "see `toolledger dead-letters list`; to go on, stop the producer of it, or raise TOOLLEDGER_DEAD_LETTER_RUN_MAX or"
    " TOOLLEDGER_DEAD_LETTER_RATIO_MAX, or set TOOLLEDGER_DEAD_LETTER_STOP=false, and start the worker again"
)


class Receipts(Protocol):
    """ClickHouse, as far as the watch needs it."""

    async def recent_letters(self, incarnation: str, partition: int) -> Sequence[tuple[int, int, int]]:
        """Return (time of the newest record, events, dead letters) of the last batches, oldest first."""


class LetterWatch:
    """The watches of all partitions of one worker.

    Args:
        stops: whether a partition stops where it passes a limit.
    """

    def __init__(self, receipts: Receipts, *, limits: AlarmLimits, stops: bool) -> None:
        self._receipts = receipts
        self._limits = limits
        self._stops = stops
        # Partition -> (incarnation, what is seen up to here, the watch).
        self._watches: dict[int, tuple[str, int, Watch]] = {}
        self._stopped: dict[int, str] = {}

    async def admits(self, prepared: Prepared) -> bool:
        """Tell whether a batch may be planned; one that is admitted counts as seen.

        Raises:
            StoreUnavailable: the watch had to be recalled from the receipts.
        """
        batch = prepared.batch
        partition = batch.partition
        watch = await self._watch(batch.incarnation, partition, batch.first_offset)
        found = judge(watch, prepared.stretches, self._limits)
        if found.crossed and not watch.alarmed:
            self._say("dead_letter_alarm_began", partition, found.worst)
        if found.crossed and self._stops:
            self._stop(partition, found.worst)
            self._watches[partition] = (batch.incarnation, batch.first_offset, _alarmed(watch))
            return False
        if (watch.alarmed or found.crossed) and not found.after.alarmed:
            self._say("dead_letter_alarm_ended", partition, found.after)
        metrics.DEAD_LETTER_ALARM.labels(str(partition)).set(found.after.alarmed)
        self._watches[partition] = (batch.incarnation, batch.next_offset, found.after)
        return True

    def opened(self, partition: int) -> None:
        """A partition begins anew: it is judged again."""
        self._stopped.pop(partition, None)
        metrics.PARTITION_STOPPED.labels(str(partition)).set(0)

    def closed(self, partition: int) -> None:
        """A partition is somebody else's now, and so is its alarm."""
        self.opened(partition)
        metrics.DEAD_LETTER_ALARM.labels(str(partition)).set(0)

    def stopped(self, partition: int) -> bool:
        """Tell whether a partition waits."""
        return partition in self._stopped

    def reasons(self) -> list[str]:
        """Return which partitions wait, and what to do."""
        return [text for _, text in sorted(self._stopped.items())]

    def warnings(self, partitions: Sequence[int]) -> list[str]:
        """Return which of some partitions turn too much into dead letters."""
        return [
            f"partition {partition}: {_told(watch)}; see `toolledger dead-letters list`"
            for partition, (_, _, watch) in sorted(self._watches.items())
            if partition in partitions and watch.alarmed and partition not in self._stopped
        ]

    async def _watch(self, incarnation: str, partition: int, offset: int) -> Watch:
        """What was seen up to an offset; where another wrote in between, or this worker just started, as receipts tell it."""
        of, seen_until, watch = self._watches.get(partition, ("", -1, Watch()))
        if (of, seen_until) == (incarnation, offset):
            return watch
        return recalled(await self._receipts.recent_letters(incarnation, partition), self._limits)

    def _stop(self, partition: int, watch: Watch) -> None:
        self._stopped[partition] = f"partition {partition} is stopped: {_told(watch)}; {_WHAT_TO_DO}"
        metrics.PARTITION_STOPPED.labels(str(partition)).set(1)
        metrics.DEAD_LETTER_ALARM.labels(str(partition)).set(1)
        log.error("partition_stopped", partition=partition, run=watch.run, ratio=round(watch.ratio, 3), action=_WHAT_TO_DO)

    def _say(self, event: str, partition: int, watch: Watch) -> None:
        project, share = watch.leader()
        say = log.error if event.endswith("began") else log.info
        say(
            event,
            partition=partition,
            run=watch.run,
            ratio=round(watch.ratio, 3),
            most_of_project=project,
            share_of_project=round(share, 3),
            run_max=self._limits.run_max,
            ratio_max=self._limits.ratio_max,
        )


def _alarmed(watch: Watch) -> Watch:
    """The watch in front of a batch that was not admitted: no line is said a second time when it comes again."""
    return Watch(run=watch.run, alarmed=True, slots=watch.slots)


def _told(watch: Watch) -> str:
    project, share = watch.leader()
    of = f", {share:.0%} of them of project {project!r}" if project else ""
    return f"{watch.run:,} dead letters in a row, {watch.ratio:.0%} of the last five minutes' events{of}"
