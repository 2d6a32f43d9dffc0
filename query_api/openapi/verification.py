"""The route of the last `toolledger verify`, as the API page tells it. Pure data."""

from typing import Final

from ingest.contract.openapi import Example, Json, Operation, nullable, record, text, whole
from query_api.openapi.shared import AWAY, COMPLETE_UNTIL, found

_OF: Final = {
    "events": "What Kafka took, by its receipts: accepted + duplicates + dead_letters + forwarded.",
    "accepted": "Counted once.",
    "duplicates": "Had come before.",
    "conflicts": "Those of the duplicates that had other content than the first.",
    "dead_letters": "Could not become an event.",
    "forwarded": "Were sent on to the partition of their id, and count there.",
    "rows": "Logs.",
    "calls": "Calls in usage.",
    "purged": "Past their retention, and gone from both: accepted = rows + purged = calls + purged.",
}
_OUTCOME: Final[Json] = record(
    {
        "verified_at": text("When it ended.", format="date-time"),
        "verified_at_ms": whole("The same, epoch ms.", minimum=0),
        "proved": {
            "type": "boolean",
            "description": "Whether nothing at all was found, in any project: nothing missing, nothing counted twice.",
        },
        "totals": nullable(record({name: whole(meaning, minimum=0) for name, meaning in _OF.items()})),
        "findings": {
            "type": "array",
            "items": record(
                {"kind": text("For programs."), "text": text("What is not as it must be."), "action": text("What to do.")}
            ),
        },
        "findings_count": whole("How many findings are of the key's project; `findings` holds the first of them.", minimum=0),
        "ledger_findings_count": whole("How many are of no project: of partitions and their receipts.", minimum=0),
    }
)

VERIFICATION: Final = Operation(
    method="GET",
    path="/v1/verification",
    name="getVerification",
    tag="Usage, in depth",
    summary="What `toolledger verify` found the last time",
    description="When it ran, whether everything was proved, and of totals and findings those of the key's own project."
    " `totals` is null where the project had no events then; `verification` is null where it never ran.",
    answers={200: found("The last one.", record({"verification": nullable(_OUTCOME), "complete_until": COMPLETE_UNTIL}))},
    errors=(400, 401, 403, *AWAY),
    examples=(Example(title="The last proof"),),
)
