"""Routes of dead letters, as the API page tells them. Pure data."""

from typing import Final, get_args

from ingest.contract.event import Reason
from ingest.contract.openapi import Example, Operation, Part, answer, parameter, record, ref, text, whole
from query_api.http.letters import LIMIT_DEFAULT, LIMIT_MAX
from query_api.letters import HEAD_BYTES
from query_api.openapi.shared import AWAY, COMPLETE_UNTIL, MOMENT, NEXT_CURSOR, UNDATED, found

_ID: Final = parameter("id", {"type": "string"}, "The dead letter's id, as `GET /v1/dead-letters` tells it.", place="path")
EXAMPLE_ID: Final = "3f2c9f04c5d34c0cb7f6a7d5e0b1a9c2-0-41-0"
_ITEM: Final = {
    "id": text("Its id; that of its event too, once it is replayed."),
    "reason": text("Why it is no event, for programs.", enum=list(get_args(Reason))),
    "message": text("Why, for people."),
    "accepted_at": text("When Kafka took it.", format="date-time"),
    "origin": record(
        {
            "topic": text("Kafka's topic."),
            "partition": whole("Its partition.", minimum=0),
            "offset": whole("The record's offset.", minimum=0),
            "index": whole("Of the item within the record.", minimum=0),
        }
    ),
    "bytes": whole("Its size.", minimum=0),
    "payload": text(f"Its bytes; on a page the first {HEAD_BYTES:,}."),
    "encoding": text("How `payload` is written.", enum=["utf-8", "base64"]),
    "truncated": {"type": "boolean", "description": "Whether `payload` is only the beginning."},
    "replayed": {"type": "boolean", "description": "Whether its event is in the logs by now."},
}

LETTERS: Final = Part(
    tag="Dead letters",
    tag_description="What could not become an event, of the key's project: kept with its bytes, its reason and its origin,"
    " and sent back when it is mended. A replay counts once, also when it is repeated or the event came by itself meanwhile.",
    operations=(
        Operation(
            method="GET",
            path="/v1/dead-letters",
            name="listDeadLetters",
            tag="Dead letters",
            summary="List dead letters",
            description="Newest first by acceptance, then by origin.",
            parameters=(
                parameter("from", {"type": ["string", "number"]}, f"Accepted then or later: {MOMENT}."),
                parameter("to", {"type": ["string", "number"]}, f"Accepted before: {MOMENT}."),
                parameter("reason", {"type": "string", "examples": list(get_args(Reason))}, "Of this reason alone."),
                parameter(
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
                    "Dead letters on a page.",
                ),
                parameter(
                    "cursor",
                    {"type": "string"},
                    "`next_cursor` of the page before, with the same key and parameters, `limit` apart.",
                ),
            ),
            answers={
                200: found(
                    "One page.",
                    record(
                        {
                            "dead_letters": {"type": "array", "items": ref("DeadLetter")},
                            "next_cursor": NEXT_CURSOR,
                            "complete_until": COMPLETE_UNTIL,
                        }
                    ),
                )
            },
            errors=(400, 401, 403, *AWAY),
            examples=(Example(title="The newest ten that are no JSON", query=(("reason", "invalid_json"), ("limit", "10"))),),
        ),
        Operation(
            method="GET",
            path="/v1/dead-letters/{id}",
            name="getDeadLetter",
            tag="Dead letters",
            summary="One dead letter with all of its bytes",
            description="",
            parameters=(_ID,),
            answers={200: found("The dead letter.", record({**_ITEM, "complete_until": COMPLETE_UNTIL}))},
            errors=(400, 401, 403, 404, *AWAY),
            examples=(Example(title="One in full", path={"id": EXAMPLE_ID}),),
        ),
        Operation(
            method="POST",
            path="/v1/dead-letters/{id}/replay",
            name="replayDeadLetter",
            tag="Dead letters",
            summary="Send a dead letter again",
            description="As it is, or with the body in its place. Answered once Kafka has it. It needs a key that may also"
            " send events.",
            parameters=(_ID,),
            body={
                "application/json": {
                    "description": "The mended event, or an array of events; none: the bytes as they are.",
                    "anyOf": [ref("Event"), {"type": "array", "items": ref("Event"), "minItems": 1}],
                }
            },
            answers={
                202: answer(
                    "Kafka has it.",
                    record({"id": text("The dead letter."), "ids": {"type": "array", "items": text("An event's id.")}}),
                    headers=UNDATED,
                )
            },
            errors=(400, 401, 403, 404, 408, 413, 415, *AWAY),
            examples=(
                Example(
                    title="Mended",
                    path={"id": EXAMPLE_ID},
                    body={"tool_slug": "GMAIL_SEND_EMAIL", "status": "failed", "duration_ms": 202, "user_id": "user_123"},
                    status=202,
                    answer={"id": EXAMPLE_ID, "ids": [EXAMPLE_ID]},
                ),
            ),
        ),
    ),
    schemas={"DeadLetter": record(_ITEM)},
)
