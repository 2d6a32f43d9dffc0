"""The number cursor of the older listing: what it can hold, and where pages end."""

from query_api.internal_logs import EXTRA_ROWS, Behind, Cursor, cut, following, last, parse

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


def test_a_page_that_ends_with_its_millisecond_needs_no_landmark():
    """It is named by that millisecond, and the last page by nothing."""
    for rows in ([], [row(5, 1), row(5, 1)]):
        assert last(rows, 2) is None
        assert following(rows, 2) is None
    border = [row(5, 1), row(5, 2), row(4, 3)]
    assert last(border, 2) is None
    assert following(border, 2) == Cursor(at_ms=5, landmark=0)


def test_a_page_within_a_millisecond_ends_behind_a_row_that_can_be_named():
    """It is longer where it must be, never shorter, and at the latest ends with the millisecond."""
    assert last([row(5, 1), row(5, 2), row(5, 3)], 2) == Behind(at_ms=5, id="id")
    inside = [row(5, 2), row(5, 3), row(5, 2)]
    assert cut(inside, frozenset((1, 2, 3))) == (1, Cursor(at_ms=5, landmark=2))
    assert cut(inside, frozenset((1, 3))) == (2, Cursor(at_ms=5, landmark=3))
    assert cut(inside, frozenset((1,))) == (3, Cursor(at_ms=5, landmark=0))


def test_a_page_that_would_grow_without_end_is_none():
    """No row within what was read can be named, and there is more."""
    rows = [row(5, 7)] * (1 + EXTRA_ROWS + 1)
    assert cut(rows, frozenset()) is None
    assert cut(rows[:-1], frozenset()) == (len(rows) - 1, Cursor(at_ms=5, landmark=0))
