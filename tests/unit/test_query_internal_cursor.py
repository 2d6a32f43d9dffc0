"""The number cursor of the older listing: what it can hold, and where pages end."""

from query_api.internal_logs import EXTRA_ROWS, Cursor, cut, open_end, parse

T0 = 1_776_384_000_000


def row(at_ms, landmark):
    return ["id", at_ms, landmark]


def test_a_cursor_survives_a_double():
    """From the oldest event that is taken to 2049 it is a whole number below 2^53, with any landmark."""
    for at_ms in (1_420_066_800_000, T0, 2_500_000_000_000):
        for landmark in (0, 1, 8191):
            number = Cursor(at_ms=at_ms, landmark=landmark).number()
            assert number < 2**53
            assert parse(float(number)) == Cursor(at_ms=at_ms, landmark=landmark)


def test_numbers_that_are_no_cursors():
    """Page numbers, epoch times in seconds and milliseconds, fractions, and what a double cannot hold."""
    for number in (0, 1, 2, 1000, -1, T0, T0 // 1000, 1.5, 2**53, 10**300):
        assert parse(number) is None


def test_a_page_ends_at_a_millisecond_or_behind_a_row_that_can_be_named():
    """It is longer where it must be, never shorter, and the last one has no cursor."""
    assert cut([], 2, frozenset()) == (0, None)
    assert cut([row(5, 1), row(5, 1)], 2, frozenset()) == (2, None)
    border = [row(5, 1), row(5, 2), row(4, 3)]
    assert open_end(border, 2) is None
    assert cut(border, 2, frozenset()) == (2, Cursor(at_ms=5, landmark=0))
    inside = [row(5, 1), row(5, 2), row(5, 3), row(5, 2), row(4, 9)]
    assert open_end(inside, 2) == 5
    assert cut(inside, 2, frozenset((1, 2, 3))) == (2, Cursor(at_ms=5, landmark=2))
    assert cut(inside, 2, frozenset((1, 3))) == (3, Cursor(at_ms=5, landmark=3))
    assert cut(inside, 2, frozenset((1,))) == (4, Cursor(at_ms=5, landmark=0))
    assert cut(inside[:4], 2, frozenset((1,))) == (4, None)


def test_a_page_that_would_grow_without_end_is_none():
    """No row within what was read can be named, and there is more."""
    rows = [row(5, 7)] * (2 + 1 + EXTRA_ROWS)
    assert cut(rows, 2, frozenset()) is None
    assert cut(rows[:-1], 2, frozenset()) == (len(rows) - 1, None)
