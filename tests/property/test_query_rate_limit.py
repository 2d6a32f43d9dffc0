"""The rate limit: a fixed minute a key, counted alike whoever else is there, in bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from query_api.rate_limit import ANNOUNCED_UNLIMITED, RETRY_AFTER_S_MAX, WINDOW_S, RateLimit

# Requests of a few keys, some of them together, some just before and just after a window's end.
pauses = st.sampled_from([0.0, 0.001, 0.5, 1.0, 29.5, 59.0, 59.999, 60.0, 61.0]) | st.floats(0, 100)
arrivals = st.lists(st.tuples(st.sampled_from("abc"), pauses), max_size=60)
limits = st.integers(1, 5)


def played(sent, limit, **more):
    """Every request with its time and what was said to it."""
    under_test, now_s, said = RateLimit(limit, **more), 1000.0, []
    for key, pause_s in sent:
        now_s += pause_s
        said.append((key, now_s, under_test.take(key, now_s=now_s)))
    return under_test, said


@given(sent=arrivals, limit=limits)
def test_a_key_is_refused_after_its_limit_and_not_before(sent, limit):
    """Refused only with its limit taken within the last minute; never more than the limit a window, windows a minute apart."""
    _, said = played(sent, limit)
    taken = {key: [] for key in "abc"}
    for key, at_s, standing in said:
        if standing.retry_after_s:
            assert sum(at_s - WINDOW_S < one <= at_s for one in taken[key]) >= limit
        else:
            taken[key].append(at_s)
    for times in taken.values():
        for index, first_s in enumerate(times):
            for later, last_s in enumerate(times[index:], 1):
                # Windows that the stretch can touch: they begin at least a minute apart.
                assert later <= limit * (int((last_s - first_s) // WINDOW_S) + 2)


@given(sent=arrivals, limit=limits)
def test_remaining_and_retry_after_tell_the_truth(sent, limit):
    """As many more as `remaining` says are taken at once; after Retry-After (twice, where a minute is left) the next one is."""
    for key in "abc":
        under_test, said = played(sent, limit)
        now_s = said[-1][1] if said else 0.0
        standing = under_test.take(key, now_s=now_s)
        if not standing.retry_after_s:
            for left in range(standing.remaining - 1, -1, -1):
                assert under_test.take(key, now_s=now_s).remaining == left
            standing = under_test.take(key, now_s=now_s)
        assert standing.remaining == 0
        assert 1 <= standing.retry_after_s <= RETRY_AFTER_S_MAX
        first = under_test.take(key, now_s=now_s + standing.retry_after_s)
        if first.retry_after_s:
            assert standing.retry_after_s == RETRY_AFTER_S_MAX
            second = under_test.take(key, now_s=now_s + standing.retry_after_s + first.retry_after_s)
            assert second.retry_after_s == 0


@given(sent=arrivals, limit=limits)
def test_keys_do_not_feel_each_other(sent, limit):
    """A key is told the same, whether the others are there or not."""
    _, said = played(sent, limit)
    for key in "abc":
        alone = RateLimit(limit)
        for whose, at_s, standing in said:
            if whose == key:
                assert alone.take(key, now_s=at_s) == standing


@given(sent=st.lists(st.tuples(st.integers(0, 30).map(str), pauses), max_size=80), keys_max=st.integers(1, 4))
def test_memory_is_bounded_by_the_keys_of_the_last_minute(sent, keys_max):
    """A window that is over is forgotten, and with more keys than may be held the oldest one is."""
    under_test, now_s, last = RateLimit(3, keys_max=keys_max), 0.0, {}
    for key, pause_s in sent:
        now_s += pause_s
        under_test.take(key, now_s=now_s)
        last[key] = now_s
        assert len(under_test) <= min(keys_max, sum(now_s - WINDOW_S < at_s for at_s in last.values()))


def test_without_a_limit_all_are_taken_and_nothing_is_held():
    """0 is off; what is announced stays the same."""
    under_test = RateLimit(0)
    said = {under_test.take(str(number % 7), now_s=number / 100) for number in range(1000)}
    assert said == {under_test.untouched()}
    assert under_test.untouched().remaining == ANNOUNCED_UNLIMITED
    assert len(under_test) == 0
