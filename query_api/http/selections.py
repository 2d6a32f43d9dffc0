"""Which logs, said in a query string.

`status=failed` is equality; a field given several times takes any of its values, as on `/v1/usage`. Everything else is a
`filter=FIELD:OPERATOR:VALUE`, which may come many times and must hold each time; only the first two colons part it.
"""

from typing import Final, cast

from query_api.filters import FIELDS, FILTERS_MAX, OPERATORS, Field, Filter, Operator, refusal
from query_api.http.members import Parameters
from query_api.selection import AnyOf, Selection

FILTER: Final = "filter"
# Parameters that may come more than once.
REPEATED: Final = (FILTER, *FIELDS)
VALUES_MAX: Final = 100
_FORM: Final = f"FIELD:OPERATOR:VALUE with one of {', '.join(OPERATORS)}, as in user_id:contains:42"


def selection_of(asked: Parameters) -> Selection:
    """Read which logs.

    Raises:
        QueryError: 400 for what cannot be asked.
    """
    filters = []
    for given in asked.all(FILTER, most=FILTERS_MAX):
        field, _, rest = given.partition(":")
        operator, colon, value = rest.partition(":")
        if not colon:
            asked.faults.add(FILTER, f"must be {_FORM}")
        elif field not in FIELDS:
            asked.faults.add(FILTER, f"its field must be one of {', '.join(FIELDS)}")
        elif operator not in OPERATORS:
            asked.faults.add(FILTER, f"its operator must be one of {', '.join(OPERATORS)}")
        else:
            _check(asked, FILTER, field, value)
            filters.append(Filter(field=cast(Field, field), operator=cast(Operator, operator), value=value))
    any_of = [AnyOf(field=cast(Field, name), values=values) for name in FIELDS if (values := asked.all(name, most=VALUES_MAX))]
    for one in any_of:
        for value in one.values:
            _check(asked, one.field, one.field, value)
    asked.faults.check()
    return Selection.of(filters, any_of)


def _check(asked: Parameters, name: str, field: str, value: str) -> None:
    if (reason := refusal(field, value)) is not None:
        asked.faults.add(name, reason)
