"""Filters become conditions with bound values; what they find is tested on the engine."""

import pytest

from ingest.contract.tables import OWN
from query_api.filters import FIELDS, FILTERS_MAX, OPERATORS, TEXT_CHARS_MAX, VALUE_CHARS_MAX, Filter, conditions, refusal
from query_api.live.hub import together
from query_api.selection import AnyOf, Selection
from query_api.tenant import OwnValues

USER = "if(user_id = '', '', concat(project_id, ' ', user_id))"


def test_each_operator_has_its_condition():
    """`==` and `!=` compare as stored, `contains` after folding both sides."""
    texts, values = conditions(
        [Filter(field="user_id", operator="==", value="a"), Filter(field="log_id", operator="!=", value="b")]
    )
    assert texts == ["id != {f0:String}", f"{USER} IN {{f1:Array(String)}}"]
    assert values == {"f0": "b", "f1": OwnValues(("a",))}
    texts, values = conditions([Filter(field="log_id", operator="==", value="b")])
    assert texts == ["concat(project_id, ' ', id) IN {f0:Array(String)}"]
    assert values == {"f0": OwnValues(("b",))}
    assert conditions([Filter(field="session_id", operator="==", value="")])[0] == ["session_id = {f0:String}"]
    assert conditions([Filter(field="session_id", operator="!=", value="x")])[0] == ["session_id != {f0:String}"]
    texts, _ = conditions([Filter(field="tool_slug", operator="contains", value="x")])
    assert texts == ["position(caseFoldUTF8(tool_slug), caseFoldUTF8({f0:String})) > 0"]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_value_never_becomes_text(field, operator):
    """Whatever a value holds, only its parameter stands in the SQL."""
    value = "'; DROP TABLE tool_executions --{x:String}"
    texts, values = conditions([Filter(field=field, operator=operator, value=value)])
    assert "DROP" not in texts[0]
    indexed = ("log_id", "user_id", "session_id", "trace_id", "request_id")
    assert values == {"f0": OwnValues((value,)) if field in indexed and operator == "==" else value}


def test_the_same_filter_twice_is_asked_once_in_a_stable_order():
    """Order and repeats of filters change nothing."""
    first = Filter(field="user_id", operator="==", value="a")
    second = Filter(field="status", operator="==", value="failed")
    assert conditions([first, second, first]) == conditions([second, first])


def test_failures_of_a_user_are_asked_of_their_own_index():
    """And not of that of their calls; of a user that is one: calls without a user are no few."""
    failed = Filter(field="status", operator="==", value="failed")
    texts, values = conditions([failed, Filter(field="user_id", operator="==", value="a")])
    assert texts == ["status = {f0:String}", f"if(status = 'failed', {USER}, '') IN {{f1:Array(String)}}"]
    assert values == {"f0": "failed", "f1": OwnValues(("a",))}
    for other in (
        [Filter(field="user_id", operator="==", value="a")],
        [failed, Filter(field="user_id", operator="==", value="")],
        [failed, Filter(field="user_id", operator="!=", value="a")],
        [Filter(field="status", operator="==", value="success"), Filter(field="user_id", operator="==", value="a")],
    ):
        assert not any(text.startswith("if(status") for text in conditions(other)[0])


def test_a_value_longer_than_any_field_is_answered_without_asking():
    """It equals nothing and is contained in nothing, so the other two operators hold for every row."""
    value = "x" * (VALUE_CHARS_MAX + 1)
    for operator, expected in (("==", ["0"]), ("contains", ["0"]), ("!=", []), ("not_contains", [])):
        assert conditions([Filter(field="user_id", operator=operator, value=value)]) == (expected, {})


def test_a_text_may_stand_in_either_message_and_must_be_missing_in_both():
    """`text` asks two columns: one is enough to equal, none may be equal."""
    asked = {operator: conditions([Filter(field="text", operator=operator, value="x")])[0] for operator in ("==", "!=")}
    assert asked == {
        "==": ["message = {f0:String} OR error_message = {f0:String}"],
        "!=": ["message != {f0:String} AND error_message != {f0:String}"],
    }
    assert conditions([Filter(field="text", operator="==", value="")])[0] == [
        "message = {f0:String} AND error_message = {f0:String}"
    ]


def test_only_a_text_has_a_longest_value():
    """Of an identifier any length can be answered, because none is stored that is longer."""
    long = "x" * (TEXT_CHARS_MAX + 1)
    assert {field for field in FIELDS if refusal(field, long)} == {"message", "error_message", "failure_pattern", "text"}
    assert not any(refusal(field, long[1:]) for field in FIELDS)


def test_any_of_many_values_is_one_condition_whatever_their_number():
    """Tails of a project are asked for in one statement, which ClickHouse takes up to 128 KiB: values must not lengthen it."""
    many = Selection.of([], [AnyOf(field=field, values=tuple(f"v{number}" for number in range(100))) for field in FIELDS])
    few = Selection.of([], [AnyOf(field=field, values=("v0", "v1")) for field in FIELDS])
    assert many.conditions("s0")[0] == few.conditions("s0")[0]
    assert sum(map(len, many.conditions("s0")[0])) < 4_000


def test_tails_that_are_asked_for_together_make_no_longer_text_than_clickhouse_takes():
    """Selections of many filters are parted by their length, all of them and in their order; small ones by number."""
    large = [
        Selection.of(
            [Filter(field="user_id", operator="contains", value=f"{number}-{each}") for each in range(FILTERS_MAX)], []
        )
        for number in range(40)
    ]
    small = [Selection.of([Filter(field="user_id", operator="==", value=f"{number}")], []) for number in range(40)]
    for selections, most in ((large, 31), (small, 32)):
        groups = list(together(selections))
        assert [one for group in groups for one in group] == selections
        assert max(map(len, groups)) <= most
        texts = [sum(len(text) for one in group for text in one.conditions("s00")[0]) for group in groups]
        assert max(texts) < 60_000
    assert len(list(together(small))) == 2


def test_any_of_with_the_empty_value_finds_logs_without():
    """No text at all, and not one empty text of two; of an indexed field the index holds no empty value."""
    texts, values = Selection.of(
        [], [AnyOf(field="text", values=("", "x")), AnyOf(field="user_id", values=("", "u"))]
    ).conditions()
    assert texts == [
        "(message IN {a0:Array(String)}) OR (error_message IN {a0:Array(String)}) OR (message = '' AND error_message = '')",
        f"({OWN['user_id']} IN {{a1:Array(String)}}) OR (user_id = '')",
    ]
    assert values == {"a0": ["x"], "a1": OwnValues(("u",))}
