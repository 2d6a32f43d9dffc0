"""Routes of older clients, as the API page tells them. Pure data."""

from typing import Any, Final

from ingest.contract.openapi import Example, Json, Operation, Part, answer, nullable, parameter, record, ref, text, whole
from query_api.http.internal import CONDITIONS_MAX, LIMIT_DEFAULT, LIMIT_MAX, TRIGGER_STATUS, TRIGGER_TIMES
from query_api.internal_items import FIELDS, OPERATIONS
from query_api.openapi.shared import AWAY, UNDATED, either, found

_PATH: Final = "/api/v3.1/internal"
_MOMENT: Final = {"type": "number", "description": "Epoch milliseconds; fractions are cut."}
_RANGE: Final = {
    "from": nullable({**_MOMENT, "description": "Epoch milliseconds, inclusive; absent: all that is retained."}),
    "to": nullable({**_MOMENT, "description": "Epoch milliseconds, exclusive."}),
}
_LIMIT: Final = nullable(whole("Logs on a page.", minimum=1, maximum=LIMIT_MAX, default=LIMIT_DEFAULT))
_ID: Final = parameter("id", {"type": "string"}, "The log's id, percent-encoded.", place="path")
_OPEN: Final[Json] = {"type": "object", "additionalProperties": True}

_LISTING: Final = {
    "cursor": nullable(
        {
            "type": "number",
            "description": "`nextCursor` of the page before, with the same conditions; 0, null and absent: the newest.",
        }
    ),
    "limit": _LIMIT,
    "case_sensitive": {
        "type": ["boolean", "null"],
        "description": "Of all operations; null: `==` and `!=` exact, `contains` and `not_contains` without regard to case."
        " A log's id equals exactly in any case.",
    },
    **_RANGE,
    "search_params": {
        "type": ["array", "null"],
        "maxItems": CONDITIONS_MAX,
        "items": ref("InternalCondition"),
        "description": "All must hold, but that of several `==` on one field any does: a list comes as one condition a value.",
    },
}
_TRIGGERS: Final = {
    "time": nullable(text("How far back.", enum=list(TRIGGER_TIMES))),
    "status": nullable(text("Of these.", enum=list(TRIGGER_STATUS))),
    "limit": _LIMIT,
    **_RANGE,
}
_CHARGED: Final = {
    "credentialSource": text("As the producer's `metadata.credential_source`."),
    "instantCharge": text("As the producer's `metadata.instant_charge`."),
}
_ITEM: Final = {
    "id": text("The log's id."),
    "actionKey": text("The tool."),
    "appKey": text("The toolkit."),
    "app": record({"icon": text("Empty."), "name": text("The toolkit.")}),
    "connectedAccountId": text('The connection; `""`: none.'),
    "entityId": text('The user; `""`: nobody.'),
    "status": text("How it ended.", enum=["success", "failed"]),
    "executionTime": {"type": "number", "description": "How long it took, ms."},
    "minimalResponse": text("The log's message."),
    "createdAt": whole("Start of the call, epoch ms."),
    "metadata": {**_OPEN, "description": "As of the log."},
    **_CHARGED,
}
_DETAIL: Final = {
    "actionLogId": text("The log's id."),
    "actionId": text("The tool."),
    "status": text("How it ended.", enum=["success", "error"]),
    "app": record({"name": text("The toolkit."), "uniqueId": text("The toolkit."), "icon": text("Empty.")}),
    "version": text("Empty."),
    "connection": record({"id": text("The connection."), "entity": text("The user.")}),
    "session": record({"id": text("The session.")}, optional=("id",)),
    "executionMetadata": {**_OPEN, "description": "As of the log."},
    "steps": {
        "type": "array",
        "items": record(
            {
                "type": text("The one step there is.", const="tool_execution"),
                "startTime": {"type": "number", "description": "Epoch ms."},
                "endTime": {"type": "number", "description": "Epoch ms."},
                "totalDuration": {"type": "number", "description": "ms."},
                "status": text("How it ended.", enum=["success", "failure"]),
                "message": text("The log's message."),
            }
        ),
    },
    "payloadReceived": {**_OPEN, "description": "`data.request`; what is no object stands in `value`."},
    "startTime": {"type": "number", "description": "Epoch ms."},
    "endTime": {"type": "number", "description": "Epoch ms."},
    "totalDuration": text("ms, in a string."),
    "response": {**_OPEN, "description": "`data.response`, likewise."},
    "error": record(
        {"message": text("What went wrong."), "code": text("Its code."), "type": text("Its type.")},
        optional=("message", "code", "type"),
    ),
    **_CHARGED,
}
_FIELD: Final = record(
    {
        "id": text("As `field` of a condition."),
        "displayName": text("For people."),
        "type": text("Its type.", const="string"),
        "regex": text("What its values look like."),
    },
    optional=("regex",),
)
_EXAMPLE: Final[dict[str, Any]] = {"search_params": [{"field": "execution_status", "operation": "==", "value": "failed"}]}

INTERNAL: Final = Part(
    tag="Older clients",
    tag_description="What older clients and the vendor's command line call. The same logs as above, in another shape; new"
    " programs use the routes above. Members of a body that are not known here are ignored.",
    operations=(
        Operation(
            method="POST",
            path=_PATH + "/action_execution/logs",
            name="postInternalActionExecutionLogs",
            tag="Older clients",
            summary="List logs",
            description="Newest first. A page may be a few logs longer than its limit where many share a millisecond; where"
            " tens of thousands do, which a cursor that is a number cannot tell apart, it is 400. Of very large logs a page"
            " holds fewer, and `nextCursor` leads on.",
            body={"application/json": record(_LISTING, optional=tuple(_LISTING))},
            body_note="No body at all asks the same as `{}`.",
            answers={
                200: found(
                    "One page.",
                    record(
                        {
                            "data": {"type": "array", "items": ref("InternalLog")},
                            "nextCursor": nullable(whole("Send it as `cursor`; null: this is the last page.")),
                        }
                    ),
                )
            },
            errors=(400, 401, 403, 408, 413, 415, *AWAY),
            examples=(Example(title="Newest failures", body={"cursor": 0, "limit": 3, **_EXAMPLE}),),
        ),
        Operation(
            method="GET",
            path=_PATH + "/action_execution/fields",
            name="getInternalActionExecutionFields",
            tag="Older clients",
            summary="What a listing can be searched by",
            description="",
            answers={
                200: answer(
                    "One spelling of each field.",
                    record({"fields": record({"action_execution": {"type": "array", "items": _FIELD}})}),
                    headers=UNDATED,
                )
            },
            errors=(401, 403, *AWAY),
            examples=(Example(title="Fields"),),
        ),
        Operation(
            method="GET",
            path=_PATH + "/action_execution/log/{id}",
            name="getInternalActionExecutionLog",
            tag="Older clients",
            summary="One log in full",
            description="",
            parameters=(_ID,),
            answers={200: found("The log.", ref("InternalLogDetail"))},
            errors=(400, 401, 403, 404, *AWAY),
            examples=(Example(title="The failed call, as older clients have it", path={"id": "log_-jRTWClpBoVo"}),),
        ),
        Operation(
            method="POST",
            path=_PATH + "/trigger/logs",
            name="postInternalTriggerLogs",
            tag="Older clients",
            summary="List trigger logs: none",
            description="Only tool executions are recorded here. A wrong question is refused all the same.",
            body={"application/json": record(_TRIGGERS, optional=tuple(_TRIGGERS))},
            answers={200: answer("None.", record({"data": {"type": "array", "maxItems": 0}}), headers=UNDATED)},
            errors=(400, 401, 403, 408, 413, 415, *AWAY),
            examples=(Example(title="Triggers of a day", body={"time": "1d", "status": "all"}, answer={"data": []}),),
        ),
        Operation(
            method="GET",
            path=_PATH + "/trigger/log/{id}",
            name="getInternalTriggerLog",
            tag="Older clients",
            summary="One trigger log: always a 404",
            description="",
            parameters=(_ID,),
            answers={},
            errors=(401, 403, 404, *AWAY),
            examples=(Example(title="No trigger log", path={"id": "log_of_a_trigger"}, status=404),),
        ),
    ),
    schemas={
        "InternalCondition": record(
            {
                "field": text(f"One of {either(tuple(FIELDS))}.", enum=list(FIELDS)),
                "operation": nullable(text("`eq` is `==`, `neq` is `!=`; absent: `==`.", enum=list(OPERATIONS))),
                "value": nullable(text('Taken literally; absent: `""`.')),
            },
            optional=("operation", "value"),
            description="One condition.",
        ),
        "InternalLog": record(_ITEM, optional=tuple(_CHARGED)),
        "InternalLogDetail": record(_DETAIL, optional=tuple(_CHARGED)),
    },
)
