"""Parameters of a query string: numbers in any spelling, and faults that say what is known."""

import pytest

from ingest.contract.errors import QueryError
from query_api.http.members import AT_MS_MAX, Parameters


def parameters(*items: tuple[str, str]) -> Parameters:
    return Parameters(items, known=("from",), repeated=())


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1776421500000", 1_776_421_500_000),
        ("+1776421500000", 1_776_421_500_000),
        ("1776421500000.9", 1_776_421_500_000),
        ("1.7764215e12", 1_776_421_500_000),
        ("0" * 5_000 + "17", 17),
        ("-" + "0" * 5_000 + "17", 0),
        ("0", 0),
        ("-0", 0),
        ("9" * 5_000, AT_MS_MAX),
        ("9" * 300, AT_MS_MAX),
        ("1e999", AT_MS_MAX),
        ("-1e999", 0),
        (str(AT_MS_MAX - 1), AT_MS_MAX - 1),
        ("2026-04-17T10:25:00Z", 1_776_421_500_000),
    ],
)
def test_an_instant_in_any_spelling(text: str, instant: int) -> None:
    asked = parameters(("from", text))
    assert asked.instant("from") == instant
    asked.faults.check()


def test_a_parameter_that_is_not_known_is_told_with_those_that_are() -> None:
    with pytest.raises(QueryError, match="unknown parameter; known are from"):
        parameters(("a", "1")).faults.check()
    with pytest.raises(QueryError, match="unknown parameter; none is taken here"):
        Parameters([("a", "1")], known=(), repeated=()).faults.check()
