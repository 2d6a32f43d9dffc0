"""Filters of logs: the incumbent's ten fields and ours, four operators, as SURFACE section 6 reads them. Pure.

`==` and `!=` compare exactly. `contains` and `not_contains` compare after full Unicode case folding of both sides, by the
engine's tables: `STRASSE` finds `straße`, `ς` finds `Σ`, `fi` the ligature. Nothing is a wildcard, and composed and decomposed
accents differ, because a filter is literal. The dotted capital `İ` folds to `i` and a combining dot, as Unicode has it outside
Turkish. (positionCaseInsensitiveUTF8 would be four times as fast, but misses `ß` and the `Σ` at a word's end.)

`text` stands for a log's message and its error's: it is equal to what one of them is, and contains what one of them contains.
`failure_pattern` is the message of a group of failures, so that `==` finds the logs of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from ingest.contract.event import IDENTIFIER_CHARS_MAX
from ingest.contract.tables import OWN, OWN_FAILED_USER, OWN_ID
from query_api.tenant import OwnValues

Field = Literal[
    "tool_slug",
    "toolkit_slug",
    "connected_account_id",
    "auth_config_id",
    "status",
    "user_id",
    "session_id",
    "sandbox_id",
    "request_id",
    "log_id",
    # Ours; the ten above are CONTRACT 2.1.
    "trace_id",
    "parent_log_id",
    "parent_tool_slug",
    "failure_class",
    "error_code",
    "error_type",
    "message",
    "error_message",
    "failure_pattern",
    "text",
]
Operator = Literal["==", "!=", "contains", "not_contains"]

FIELDS: Final[tuple[str, ...]] = get_args(Field)
OPERATORS: Final[tuple[str, ...]] = get_args(Operator)
# SURFACE 6. More conditions than fields times operators say the same thing twice.
FILTERS_MAX: Final = 50
# No stored field is longer: an identifier has at most 256 characters, and lowering a slug at most triples it. What is longer
# is answered without asking, so that no value can grow the request to ClickHouse without bound.
VALUE_CHARS_MAX: Final = 3 * IDENTIFIER_CHARS_MAX
# Messages have no such bound, so a longer value for one of these is refused. A pattern has at most as many.
TEXTS: Final = frozenset(("message", "error_message", "failure_pattern", "text"))
TEXT_CHARS_MAX: Final = 1000

# Columns kept as numbers into a dictionary: what is worked out of each value once must not hide it in an `if`.
_FEW_VALUES: Final = frozenset(("tool_slug", "toolkit_slug", "status", "failure_class", "parent_tool_slug"))
_COLUMNS: Final = {"log_id": ("id",), "text": ("message", "error_message")}

# By what an equal value of a field is found; an empty one is not, because it stands in many calls.
_INDEXED: Final = {"log_id": OWN_ID, **OWN}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Filter:
    """One condition; absent and empty are the same in `value` and in the row."""

    field: Field
    operator: Operator
    value: str


_FAILED: Final = Filter(field="status", operator="==", value="failed")


def refusal(field: str, value: str) -> str | None:
    """Return why a value cannot be asked for, None if it can."""
    if field in TEXTS and len(value) > TEXT_CHARS_MAX:
        return f"has {len(value)} characters; of {field} at most {TEXT_CHARS_MAX} are taken: ask for a part of it with contains"
    return None


def conditions(filters: Sequence[Filter]) -> tuple[list[str], dict[str, Any]]:
    """Return SQL conditions that must all hold, and the values they refer to.

    Returns:
        Conditions in a stable order without repeats, and parameters named `f0`, `f1`, ...
    """
    texts: list[str] = []
    values: dict[str, Any] = {}
    for one in sorted(set(filters)):
        if len(one.value) > VALUE_CHARS_MAX and one.field not in TEXTS:
            if one.operator in ("==", "contains"):
                texts.append("0")
            continue
        assert refusal(one.field, one.value) is None, "whoever makes a filter of a request asks `refusal` first"
        name = f"f{len(values)}"
        indexed = _INDEXED.get(one.field) if one.operator == "==" else None
        if indexed is not None and (one.value or indexed == OWN_ID):
            # Of a user's failures only these are looked for, and not among all of their calls.
            failures = one.field == "user_id" and _FAILED in filters
            values[name] = OwnValues((one.value,))
            texts.append(f"{OWN_FAILED_USER if failures else indexed} IN {{{name}:Array(String)}}")
            continue
        values[name] = one.value
        columns = _COLUMNS.get(one.field, (one.field,))
        # One of several columns is enough to be equal or to contain, and all must differ or not contain; a log without any text
        # is the one whose columns are all empty.
        every = one.operator in ("!=", "not_contains") if one.value else one.operator in ("==", "not_contains")
        parts = [_condition(column, one.operator, f"{{{name}:String}}") for column in columns]
        texts.append((" AND " if every else " OR ").join(parts))
    return texts, values


def any_equal(field: Field, values: Sequence[str], name: str) -> tuple[str, dict[str, Any]]:
    """Return the SQL condition that a field is equal to one of some values, and what it refers to: one parameter, however many.

    A term for each value would be more text than ClickHouse takes, where several tails are looked for at once.
    """
    # Longer ones equal nothing that is stored.
    allowed = [value for value in values if field in TEXTS or len(value) <= VALUE_CHARS_MAX]
    full = [value for value in allowed if value]
    given = f"{{{name}:Array(String)}}"
    columns = _COLUMNS.get(field, (field,))
    indexed = _INDEXED.get(field)
    found = [f"{column} IN {given}" for column in columns] if indexed is None else [f"{indexed} IN {given}"]
    if len(full) < len(allowed):
        found.append(" AND ".join(f"{column} = ''" for column in columns))
    return " OR ".join(f"({one})" for one in found), {name: full if indexed is None else OwnValues(tuple(full))}


def _condition(column: str, operator: Operator, parameter: str) -> str:
    if operator == "==":
        return f"{column} = {parameter}"
    if operator == "!=":
        return f"{column} != {parameter}"
    return f"position({folded(column)}, caseFoldUTF8({parameter})) {'>' if operator == 'contains' else '='} 0"


def folded(column: str) -> str:
    """Return the SQL of a column with its case folded."""
    if column in _FEW_VALUES:
        return f"caseFoldUTF8({column})"
    # Folding by Unicode costs seven times as much as lowering ASCII, which most values are and where both agree.
    return f"if(isValidASCII({column}), lower({column}), caseFoldUTF8({column}))"
