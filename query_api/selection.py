"""Which logs somebody follows or exports: filters that must all hold, and fields of which any value will do. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from query_api.filters import Field, Filter, any_equal, conditions

_PARAMETER: Final = re.compile(r"\{(\w+):")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnyOf:
    """One of these values must be the field's; as `==`, so absent and empty are the same."""

    field: Field
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which logs; order and repeats do not matter, so that equal selections are equal.

    Args:
        filters: all must hold.
        any_of: of each, one value must be the field's.
    """

    filters: tuple[Filter, ...] = ()
    any_of: tuple[AnyOf, ...] = ()

    @staticmethod
    def of(filters: Sequence[Filter], any_of: Sequence[AnyOf] = ()) -> "Selection":
        """Return the selection in its one spelling."""
        single = [Filter(field=one.field, operator="==", value=one.values[0]) for one in any_of if len(set(one.values)) == 1]
        several = [AnyOf(field=one.field, values=tuple(sorted(set(one.values)))) for one in any_of if len(set(one.values)) > 1]
        return Selection(
            filters=tuple(sorted({*filters, *single})), any_of=tuple(sorted(several, key=lambda one: (one.field, one.values)))
        )

    def conditions(self, prefix: str = "") -> tuple[list[str], dict[str, Any]]:
        """Return SQL conditions that must all hold, and the values they refer to.

        Args:
            prefix: of the values' names, so that several selections can be asked for in one statement.
        """
        texts, values = _named(self.filters, prefix)
        for number, one in enumerate(self.any_of):
            text, named = any_equal(one.field, one.values, f"{prefix}a{number}")
            texts.append(text)
            values |= named
        return texts, values

    def told(self) -> list[Any]:
        """Return what cursors are bound to, as plain values."""
        return [
            [[one.field, one.operator, one.value] for one in self.filters],
            [[one.field, *one.values] for one in self.any_of],
        ]


def _named(filters: Sequence[Filter], prefix: str) -> tuple[list[str], dict[str, Any]]:
    texts, values = conditions(filters)
    # A condition's only braces are those of parameters: what is asked for is never part of the text.
    renamed = [_PARAMETER.sub(rf"{{{prefix}\1:", text) for text in texts]
    return renamed, {f"{prefix}{name}": value for name, value in values.items()}
