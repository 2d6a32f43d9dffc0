"""Whose rows a question may see, and the only way to name a table in SQL.

`Tenant` is made from an API key and from nothing else. A `Statement` needs one, refuses text that names a table without the
tenant's condition, and brings the condition's value itself: no query of this service can reach another project's rows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ingest.contract.tables import (
    DEAD_LETTERS,
    PROGRESS,
    TOOL_EXECUTIONS,
    USAGE_CORRECTIONS,
    USAGE_WINDOWS,
    VERIFICATIONS,
    own_value,
)

# Tables with a project in every row. `progress` has none: it tells offsets and times, and only `query_api.progress` reads it.
_TENANT_TABLES: Final = (TOOL_EXECUTIONS, USAGE_WINDOWS, USAGE_CORRECTIONS, DEAD_LETTERS, VERIFICATIONS)
_SOME_PROJECTS: Final = "project_id IN {tenant:Array(String)}"
_ONE_PROJECT: Final = "project_id = {tenant:String}"
_NAMED: Final = re.compile(rf"\b(?:{'|'.join((*_TENANT_TABLES, PROGRESS))})\b")
_BOUND: Final = re.compile(
    rf"\bFROM (?:{'|'.join(_TENANT_TABLES)}) WHERE (?:{re.escape(_ONE_PROJECT)}|{re.escape(_SOME_PROJECTS)})(?! *OR\b)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """The projects a key may read.

    Args:
        projects: at least one; of a project key exactly its own, of an organisation's those it was asked about.
        key_hash: hash of the key, which cursors are bound to.
    """

    projects: tuple[str, ...]
    key_hash: str = field(repr=False)

    def __post_init__(self) -> None:
        assert self.projects, "a tenant without a project would need a query without a condition"

    @property
    def line(self) -> str:
        """Whose questions share turns: those of a project, whichever key asks; of several projects, those of the key."""
        return f"project/{self.projects[0]}" if len(self.projects) == 1 else f"key/{self.key_hash}"

    def rows_of(self, table: str, conditions: Sequence[str] = ()) -> str:
        """Return `FROM table WHERE project_id ... AND (...)`; each condition in brackets, so that none can widen another."""
        assert table in _TENANT_TABLES
        # Equality lets ClickHouse read in the order of the rest of the primary key; a set of one does not.
        condition = _ONE_PROJECT if len(self.projects) == 1 else _SOME_PROJECTS
        return " ".join([f"FROM {table} WHERE {condition}", *(f"AND ({one})" for one in conditions)])


@dataclass(frozen=True, slots=True)
class OwnValues:
    """Values of the tenant's calls: compared with `OWN_ID` or one of `OWN`, bound as Array(String); none is empty."""

    values: tuple[str, ...]

    def bound(self, projects: Sequence[str]) -> list[str]:
        """Return each value with each project's id."""
        return [own_value(project, one) for project in projects for one in self.values]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """SQL text with its values, bound to a tenant.

    Args:
        text: one SELECT without FORMAT or SETTINGS; tables only as `Tenant.rows_of` writes them.
        values: server-side parameters by name; never part of the text.
    """

    tenant: Tenant
    text: str
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        named, bound = len(_NAMED.findall(self.text)), len(_BOUND.findall(self.text))
        assert named == bound, "every table of a statement is named through Tenant.rows_of"
        assert "tenant" not in self.values

    def parameters(self) -> dict[str, Any]:
        """Return all values to bind, the tenant's own among them."""
        projects = self.tenant.projects
        values = {name: value.bound(projects) if isinstance(value, OwnValues) else value for name, value in self.values.items()}
        return {**values, "tenant": projects[0] if len(projects) == 1 else list(projects)}
