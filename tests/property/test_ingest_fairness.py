"""Keys that share ingest: nobody starves, nobody takes all, and bounds hold whatever comes in whatever order."""

import asyncio
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.fairness import Rotation, Shares
from ingest.http.turns import KafkaTurns, LoopTurns

KEYS = "abcd"
keys = st.sampled_from(KEYS)


@given(st.lists(st.tuples(keys, st.integers(1, 100), st.booleans()), max_size=60))
def test_what_is_held_never_passes_the_bound_and_leaves_room_for_whoever_comes(steps: list[tuple[str, int, bool]]) -> None:
    """A key that asks for as little as is set aside by the rule always gets it; what is given back is forgotten."""
    shares = Shares(1024)
    held: list[tuple[str, int]] = []
    for key, size, gives_back in steps:
        if gives_back and held:
            shares.give_back(*held.pop(0))
        elif shares.has_room(key, size):
            shares.take(key, size)
            held.append((key, size))
        assert shares.bytes_held == sum(each for _, each in held) <= 1024
        # Four keys at their limits leave a thirty-second for a fifth.
        assert shares.has_room("newcomer", 1024 // 32)
    for key, size in held:
        shares.give_back(key, size)
    assert shares.bytes_held == 0
    assert not shares._held


@given(st.lists(keys, min_size=1, max_size=40))
def test_a_ticket_is_passed_over_at_most_once_by_each_other_key(order: list[str]) -> None:
    """And tickets of one key stay in their order."""
    rotation: Rotation[int] = Rotation()
    for number, key in enumerate(order):
        rotation.put(key, number)
    served: list[tuple[str, int]] = []
    while (found := rotation.first(lambda _key, _ticket: True)) is not None:
        rotation.take(found[0])
        served.append(found)
    assert Counter(key for key, _ in served) == Counter(order)
    for key in set(order):
        numbers = [number for owner, number in served if owner == key]
        assert numbers == sorted(numbers)
        places = [place for place, (owner, _) in enumerate(served) if owner == key]
        assert all(later - earlier <= len(set(order)) for earlier, later in pairwise(places))
    assert not rotation


@given(st.lists(st.tuples(keys, st.integers(1, 3000)), min_size=1, max_size=30))
def test_everything_gets_its_turn_at_kafka_and_never_more_than_fits(wanted: list[tuple[str, int]]) -> None:
    """Also what is larger than all there is; one key never has more than half on the way."""

    async def run() -> None:
        turns = KafkaTurns(1000)
        loop = asyncio.get_running_loop()
        going: Counter[str] = Counter()

        async def one(key: str, size: int) -> None:
            held = await turns.enter(key, size, deadline=loop.time() + 60)
            going[key] += held
            assert going[key] <= 500
            assert going.total() <= 1000
            await asyncio.sleep(0)
            going[key] -= held
            turns.leave(key, held)

        await asyncio.gather(*(one(key, size) for key, size in wanted))
        assert turns._shares.bytes_held == 0
        assert not turns._waiting

    asyncio.run(run())


async def test_whoever_gives_up_waiting_holds_nothing_and_stops_nobody() -> None:
    """By its deadline, or because its client went away."""
    turns = KafkaTurns(1000)
    loop = asyncio.get_running_loop()
    held = {key: await turns.enter(key, size, deadline=loop.time() + 60) for key, size in (("a", 500), ("b", 400))}
    with pytest.raises(TimeoutError):
        await turns.enter("c", 500, deadline=loop.time())
    waiting = asyncio.create_task(turns.enter("c", 500, deadline=loop.time() + 60))
    await asyncio.sleep(0)
    # `c` wants more than is free, and whoever comes behind it has to wait, until there is nobody in front.
    behind = asyncio.create_task(turns.enter("d", 100, deadline=loop.time() + 60))
    await asyncio.sleep(0)
    waiting.cancel()
    held["d"] = await behind
    assert turns._shares.bytes_held == 1000
    for key, size in held.items():
        turns.leave(key, size)
    assert turns._shares.bytes_held == 0


async def test_the_loop_looks_at_other_keys_between_the_pieces_of_one() -> None:
    """However many pieces of one key wait, another key's goes after at most one more of them."""
    turns = LoopTurns(100)
    done: list[str] = []

    async def piece(key: str) -> None:
        await turns.turn(key, 100)
        done.append(key)

    flood = [asyncio.create_task(piece("a")) for _ in range(20)]
    await asyncio.sleep(0)
    before = len(done)
    await piece("b")
    assert len(done) - before <= 4
    await asyncio.gather(*flood)
    assert Counter(done) == {"a": 20, "b": 1}


async def test_small_work_goes_at_once_and_a_spent_turn_is_over_with_the_next() -> None:
    """Nothing is scheduled below the bound; at the bound the next turn of the loop begins anew."""
    turns = LoopTurns(1000)
    for _ in range(100):
        await turns.turn("a", 10)
    assert turns._spent == 1000
    await asyncio.sleep(0)
    assert turns._spent == 0
    await asyncio.wait_for(turns.turn("a", 5000), 60)
    await asyncio.wait_for(turns.turn("a", 5000), 60)
    assert not turns._waiting
