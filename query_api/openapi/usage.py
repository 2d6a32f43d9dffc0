"""Routes of usage as the incumbent has them, as the API page tells them. Pure data."""

from typing import Final, Literal

from ingest.contract.openapi import Example, Json, Operation, Part, nullable, parameter, record, ref, text, whole
from query_api.http import usage as code
from query_api.openapi.shared import ABSENT, AWAY, SESSIONS, USAGE_RANGE, VALUES_MAX, either, found

_RANGE: Final = {"from": 1776384000000, "to": 1776470400000}
_MOMENT: Final = {"type": "number", "description": "Epoch milliseconds; fractions are cut."}


def _texts(description: str) -> Json:
    """Describe an array of strings, for which a single string may stand."""
    return {
        "description": f"{description} One string, or an array of at most {VALUES_MAX:,}: any of them. Null and empty: all.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": VALUES_MAX}, {"type": "null"}],
    }


def _question(*, org: bool) -> dict[str, Json]:
    filters = {
        "user_id": _texts('Of these users; `""` finds calls without one.'),
        "session_id": _texts("Of these sessions."),
        "project_id": _texts("Of these projects of the organisation; another's is a 404.")
        if org
        else {"description": "Taken and ignored: the key has decided already."},
    }
    return {
        "from": nullable({**_MOMENT, "description": "Epoch milliseconds, inclusive; fractions are cut."}),
        "to": nullable({**_MOMENT, "description": "Epoch milliseconds, exclusive."}),
        "time_range": nullable(
            record(
                {"from": nullable(_MOMENT), "to": nullable(_MOMENT)},
                optional=("from", "to"),
                description="The same two in an object, as the observability document writes them; flat ones win.",
            )
        ),
        "filters": nullable(record(filters, optional=tuple(filters), description="All must hold.")),
    }


def _summary(*, org: bool) -> Json:
    members = _question(org=org)
    members["entity_types"] = {
        "description": "What to count; null and empty: both.",
        "anyOf": [
            {"type": "string", "enum": list(code.ENTITY_TYPES)},
            {"type": "array", "items": {"type": "string", "enum": list(code.ENTITY_TYPES)}, "maxItems": VALUES_MAX},
            {"type": "null"},
        ],
    }
    return record(members, optional=tuple(members))


def _breakdown(*, org: bool) -> Json:
    groups = sorted({*code.GROUPS_OF["tool_calls"], *code.GROUPS_OF["sessions"], *(("project_id",) if org else ())})
    more = " `project_id` too." if org else ""
    members = _question(org=org)
    members["group_by"] = nullable(
        text(
            f"Of `tool_calls`: {either(code.GROUPS_OF['tool_calls'])}, by default `{code.GROUPS_OF['tool_calls'][0]}`. Of"
            f" `sessions`: {either(code.GROUPS_OF['sessions'])}.{more} An entity that is a grouping takes its own alone.",
            enum=groups,
        )
    )
    members["order_by"] = nullable(text("Ties go by key, ascending.", enum=list(code.ORDERS), default="total_quantity"))
    members["order_direction"] = nullable(text("Keys compare bytewise.", enum=["asc", "desc"], default="desc"))
    members["limit"] = nullable(
        whole(
            "Groups to answer; the totals are of everything, whatever it is.",
            minimum=1,
            maximum=code.LIMIT_MAX,
            default=code.LIMIT_DEFAULT,
        )
    )
    return record(members, optional=tuple(members))


def _operations(area: Literal["project", "org"]) -> tuple[Operation, ...]:
    org = area == "org"
    path = f"/api/v3.1/{area}/usage"
    whose = "of all projects of the organisation" if org else "of the key's project"
    name = "Org" if org else "Project"
    entities = (*code.ENTITY_TYPES, *code.ENTITY_GROUPS)
    body_note = "No body at all asks the same as `{}`."
    return (
        Operation(
            method="POST",
            path=path + "/summary",
            name=f"post{name}UsageSummary",
            tag="Usage",
            summary=f"Totals {whose}",
            description=USAGE_RANGE,
            body={"application/json": ref(f"{name}UsageSummaryQuestion")},
            body_note=body_note,
            answers={200: found("Each entity asked for, zeros included.", ref("UsageSummary"))},
            errors=(400, 401, 403, 408, 413, 415, *((404,) if org else ()), *AWAY),
            key=area,
            examples=(
                Example(
                    title=f"A day {whose}",
                    body=_RANGE,
                    answer={
                        "entities": {
                            "tool_calls": {"total_quantity": "2", "event_count": 2, "unit": code.UNIT},
                            "sessions": {"total_quantity": "1", "event_count": 1, "unit": code.UNIT},
                        },
                        "instant_charge": "0",
                    },
                ),
                *(() if org else (Example(title="As the observability document has it", body={"time_range": _RANGE}),)),
            ),
        ),
        Operation(
            method="POST",
            path=path + "/{entity_type}",
            name=f"post{name}UsageByEntityType",
            tag="Usage",
            summary=f"Breakdown {whose}",
            description=USAGE_RANGE + " There are no pages: `limit` is the only bound, and the totals are of everything.",
            parameters=(
                parameter(
                    "entity_type",
                    {"type": "string", "enum": list(entities)},
                    "What is counted: `tool_calls` (every call, failed or not) or `sessions` (sessions created); or, as the"
                    f" observability document has it, tool calls by {either(tuple(code.ENTITY_GROUPS))}.",
                    place="path",
                ),
            ),
            body={"application/json": ref(f"{name}UsageQuestion")},
            body_note=body_note,
            answers={200: found("Groups with a call, in the order asked for.", ref("UsageBreakdown"))},
            errors=(400, 401, 403, 408, 413, 415, *((404,) if org else ()), *AWAY),
            key=area,
            examples=(
                Example(
                    title=f"Calls by {'project' if org else 'toolkit'}",
                    path={"entity_type": "tool_calls"},
                    body={
                        **_RANGE,
                        "group_by": "project_id" if org else "toolkit_slug",
                        "order_by": "key",
                        "order_direction": "asc",
                    },
                    answer={
                        "entity_type": "tool_calls",
                        "unit": code.UNIT,
                        "total_quantity": "2",
                        "event_count": 2,
                        "groups": [{"key": "acme", "total_quantity": "2", "event_count": 2}]
                        if org
                        else [{"key": key, "total_quantity": "1", "event_count": 1} for key in ("github", "gmail")],
                    },
                ),
                *(
                    (Example(title="Sessions by user", path={"entity_type": "sessions"}, body=_RANGE),)
                    if org
                    else (
                        Example(
                            title="The ten users who call most",
                            path={"entity_type": "user"},
                            body={"limit": 10},
                        ),
                    )
                ),
            ),
        ),
    )


_QUANTITY: Final = {
    "total_quantity": text("The count as a decimal number in a string.", pattern="^[0-9]+$"),
    "event_count": whole("The same count as a number.", minimum=0),
}
_UNIT: Final = text("What is counted in.", const=code.UNIT)
_ENTITY: Final = record({**_QUANTITY, "unit": _UNIT})

USAGE: Final = Part(
    tag="Usage",
    tag_description="How much. The routes and shapes are those of Composio's Usage API; members of a body that are not known"
    f" here are ignored. Usage and logs always agree: a count here is the number of logs that match. {SESSIONS} {ABSENT}",
    operations=(*_operations("project"), *_operations("org")),
    schemas={
        "ProjectUsageSummaryQuestion": _summary(org=False),
        "OrgUsageSummaryQuestion": _summary(org=True),
        "ProjectUsageQuestion": _breakdown(org=False),
        "OrgUsageQuestion": _breakdown(org=True),
        "UsageSummary": record(
            {
                "entities": record(
                    dict.fromkeys(code.ENTITY_TYPES, _ENTITY),
                    optional=code.ENTITY_TYPES,
                    description="By entity type: those asked for, all by default.",
                ),
                "instant_charge": text("Nothing is charged here.", const="0"),
            }
        ),
        "UsageBreakdown": record(
            {
                "entity_type": text("As asked for."),
                "unit": _UNIT,
                "total_quantity": text("Of everything asked for, not of the groups shown.", pattern="^[0-9]+$"),
                "event_count": whole("The same as a number.", minimum=0),
                "groups": {
                    "type": "array",
                    "maxItems": code.LIMIT_MAX,
                    "items": record({"key": text('`""`: calls without it.'), **_QUANTITY}),
                },
            }
        ),
    },
)
