"""Turns are fair: none is wasted, none is exceeded, nobody is passed over, and nothing is kept of who has gone."""

import asyncio
import itertools
import time
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.errors import QueryError, StoreUnavailable
from query_api.turns import Turns
from query_api.waiting import Queue

TENANTS = "abcd"
# What happens: a tenant asks, its oldest or newest question ends, or one that waits (by its place) gives up.
steps = st.builds(
    lambda crowd, rest: [*(("enter", tenant) for tenant in crowd), *rest],
    # A crowd first, so that most histories have somebody to be unfair to.
    st.lists(st.sampled_from(TENANTS + "aaaa"), min_size=6, max_size=30),
    st.lists(
        st.one_of(
            st.tuples(st.just("enter"), st.sampled_from(TENANTS + "aaaa")),
            st.tuples(st.just("leave"), st.integers(0, 30)),
            st.tuples(st.just("give_up"), st.integers(0, 30)),
            st.tuples(st.just("leave"), st.integers(0, 30)),
        ),
        min_size=4,
        max_size=80,
    ),
)


@given(steps=steps, going_max=st.integers(1, 5), of_tenant_max=st.integers(1, 5), waiting_max=st.integers(0, 9))
def test_turns_are_fair(steps, going_max, of_tenant_max, waiting_max):
    """Against plain lists: bounds hold, no turn lies idle, a tenant's order is kept, and whoever waits has its turn in time."""
    turns = Turns(going_max=going_max, of_tenant_max=of_tenant_max, waiting_max=waiting_max)
    going: list[tuple[str, int]] = []
    waiting: dict[str, list[int]] = defaultdict(list)
    passed_over: dict[str, Counter[str]] = defaultdict(Counter)
    numbers = itertools.count()

    def count(tenant):
        return sum(whose == tenant for whose, _ in going)

    def could_go():
        return [one for one in TENANTS if waiting[one] and count(one) < of_tenant_max]

    for what, argument in steps:
        if what == "enter":
            number = next(numbers)
            free = len(going) < going_max and count(argument) < of_tenant_max
            expected = "go" if free else "full" if len(waiting[argument]) >= waiting_max else "wait"
            assert turns.enter(argument, number) == expected
            if expected == "go":
                going.append((argument, number))
            elif expected == "wait":
                waiting[argument].append(number)
        elif what == "leave" and going:
            tenant, _ = going.pop(argument % len(going))
            candidates = could_go()
            following = turns.leave(tenant)
            assert (following is None) == (not candidates)
            if following is not None:
                whose, number = following
                assert whose in candidates
                assert number == waiting[whose].pop(0), "a tenant's questions go in their order"
                going.append(following)
                passed_over[whose].clear()
                for other in candidates:
                    if other != whose:
                        passed_over[other][whose] += 1
                        assert passed_over[other][whose] <= 1, "each other tenant goes first at most once"
        elif what == "give_up" and any(waiting.values()):
            one, number = [(whose, number) for whose in TENANTS for number in waiting[whose]][
                argument % sum(map(len, waiting.values()))
            ]
            waiting[one].remove(number)
            turns.give_up(one, number)
            turns.give_up(one, number)
        for tenant in TENANTS:
            if tenant not in could_go():
                # Whoever is at its limit, or wants nothing, waits for nobody but itself.
                passed_over[tenant].clear()
            assert turns.at_its_limit(tenant) == (count(tenant) >= min(of_tenant_max, going_max))
            assert count(tenant) <= of_tenant_max
        assert turns.going == len(going) <= going_max
        assert turns.waiting() == sum(map(len, waiting.values()))
        assert len(going) == going_max or not could_go(), "no turn lies idle while someone could take it"
        assert turns.tenants() == len({whose for whose, _ in going} | {one for one in TENANTS if waiting[one]})


def queue(**more):
    """A queue of two turns, one a tenant."""
    return Queue(**{"going_max": 2, "of_tenant_max": 1, "waiting_max": 2, "wait_s_max": 30, "retry_after_s": 3, **more})


@given(
    load=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.none() | st.integers(0, 8)), max_size=25),
    going_max=st.integers(1, 3),
    of_tenant_max=st.integers(1, 3),
)
def test_every_turn_is_given_back(load, going_max, of_tenant_max):
    """Whoever ends, fails or is cancelled, waiting or going: afterwards all turns are free, and within it the bounds held."""

    async def run():
        under_test = queue(going_max=going_max, of_tenant_max=of_tenant_max, waiting_max=100)
        going = Counter()

        async def work(tenant, steps):
            async with under_test.turn(tenant):
                going[tenant] += 1
                try:
                    assert going[tenant] <= of_tenant_max
                    assert going.total() <= going_max
                    for _ in range(steps):
                        await asyncio.sleep(0)
                    if steps == 3:
                        raise ZeroDivisionError
                finally:
                    going[tenant] -= 1

        async def cancelled(task, after):
            for _ in range(after):
                await asyncio.sleep(0)
            task.cancel()

        tasks = [asyncio.create_task(work(tenant, steps)) for tenant, steps, _ in load]
        cancels = [cancelled(task, after) for task, (_, _, after) in zip(tasks, load, strict=True) if after is not None]
        await asyncio.gather(*cancels)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [one for one in ended if isinstance(one, AssertionError)]
        assert (under_test.turns.going, under_test.turns.waiting(), under_test.turns.tenants()) == (0, 0, 0)

    asyncio.run(run())


async def test_who_waits_too_long_is_told_whose_fault_it_is():
    """429 with a time where a tenant's own questions are in the way, "try again" where those of others are."""
    under_test = queue(wait_s_max=0.05)
    async with under_test.turn("a"):
        with pytest.raises(QueryError) as caught:
            async with under_test.turn("a"):
                pass
        assert (caught.value.status, caught.value.retry_after_s) == (429, 3)
        async with under_test.turn("b"):
            with pytest.raises(StoreUnavailable):
                async with under_test.turn("c"):
                    pass
    assert under_test.turns.tenants() == 0


async def test_many_whose_time_ends_at_once_are_told_the_same():
    """Also in the moment in which a turn comes free: what they waited for are questions of their own tenant."""
    under_test = queue(waiting_max=20, wait_s_max=0.05)

    async def ask():
        async with under_test.turn("a"):
            return 200

    async with under_test.turn("a"):
        asked = [asyncio.create_task(ask()) for _ in range(20)]
        await asyncio.sleep(0)
        # Nothing else of this loop runs meanwhile: the time of all ends in its next round.
        time.sleep(0.1)  # noqa: ASYNC251 - that is the point
    ended = await asyncio.gather(*asked, return_exceptions=True)
    told = Counter(200 if one == 200 else getattr(one, "status", one) for one in ended)
    assert set(told) == {200, 429}
    assert told[429] > 10
    assert under_test.turns.tenants() == 0


async def test_a_tenant_with_too_many_waiting_is_refused_at_once():
    """Without a wait, and without a place taken from others."""
    under_test = queue(waiting_max=2)
    async with under_test.turn("a"):
        waiting = [asyncio.create_task(under_test.turn("a").__aenter__()) for _ in range(2)]
        while under_test.turns.waiting() < 2:  # noqa: ASYNC110 - tasks of this loop, which only need their turn in it
            await asyncio.sleep(0)
        with pytest.raises(QueryError) as caught:
            async with under_test.turn("a"):
                pass
        assert caught.value.status == 429
        async with under_test.turn("b"):
            pass
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert under_test.turns.tenants() == 0
