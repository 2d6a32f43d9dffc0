"""What the coordinator says of the group's offsets, as bytes on the wire, and what is made of it."""

from io import BytesIO

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import GroupLoadInProgressError, KafkaError, NotCoordinatorForGroupError, UnknownTopicOrPartitionError
from aiokafka.protocol.commit import OffsetFetchResponse_v1, OffsetFetchResponse_v3
from aiokafka.structs import OffsetAndMetadata

from processors.group_offsets import offsets_in


def on_the_wire(answer: OffsetFetchResponse_v3) -> OffsetFetchResponse_v3:
    decoded: OffsetFetchResponse_v3 = OffsetFetchResponse_v3.decode(BytesIO(answer.encode()))
    return decoded


@pytest.mark.parametrize(("code", "error"), [(14, GroupLoadInProgressError), (16, NotCoordinatorForGroupError)])
def test_a_coordinator_that_does_not_know_yet_is_not_one_without_offsets(code: int, error: type[KafkaError]) -> None:
    """A code for the whole group, with no partition beside it, is an error and not an answer."""
    with pytest.raises(error):
        offsets_in(on_the_wire(OffsetFetchResponse_v3(0, [], code)))


def test_a_partition_that_cannot_be_told_is_not_one_without_an_offset() -> None:
    """A code for one partition makes the answer an error, whatever is said of the others."""
    with pytest.raises(UnknownTopicOrPartitionError):
        offsets_in(on_the_wire(OffsetFetchResponse_v3(0, [("t", [(0, 5, "", 0), (1, -1, "", 3)])], 0)))


def test_offsets_come_with_their_metadata_and_none_stays_none() -> None:
    """Offsets are given as they were committed; a partition nobody committed is absent."""
    told = offsets_in(on_the_wire(OffsetFetchResponse_v3(0, [("t", [(0, 5, "plan", 0), (1, -1, "", 0)])], 0)))
    assert told == {TopicPartition("t", 0): OffsetAndMetadata(5, "plan")}
    assert offsets_in(OffsetFetchResponse_v1([("t", [(2, 7, "", 0)])])) == {TopicPartition("t", 2): OffsetAndMetadata(7, "")}
