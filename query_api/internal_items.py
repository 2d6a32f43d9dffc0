"""Rows of logs in the shapes of the older endpoints (CONTRACT 8). Pure.

Members that clients of this shape require but no event has are there and empty: `icon`, `version`.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import orjson

from query_api import log_items

_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

# Fields of `search_params`: as the vendor's command line spells them, as an older one did, and as the public search does.
FIELDS: Final = {
    "action_key": "tool_slug",
    "toolkit_key": "toolkit_slug",
    "connected_account_id": "connected_account_id",
    "auth_config_id": "auth_config_id",
    "execution_status": "status",
    "user_id": "user_id",
    "log_id": "id",
    "tool_router_session_id": "session_id",
    "session_id": "session_id",
    "actionKey": "tool_slug",
    "appKey": "toolkit_slug",
    "connectedAccountId": "connected_account_id",
    "entityId": "user_id",
    "tool_slug": "tool_slug",
    "toolkit_slug": "toolkit_slug",
    "status": "status",
    "sandbox_id": "sandbox_id",
    "request_id": "request_id",
}
OPERATIONS: Final = {"==": "==", "!=": "!=", "contains": "contains", "not_contains": "not_contains", "eq": "==", "neq": "!="}

_SHOWN: Final = (
    ("action_key", "Tool"),
    ("toolkit_key", "Toolkit"),
    ("execution_status", "Status"),
    ("user_id", "User ID"),
    ("session_id", "Session ID"),
    ("connected_account_id", "Connected account ID"),
    ("auth_config_id", "Auth config ID"),
    ("sandbox_id", "Sandbox ID"),
    ("request_id", "Request ID"),
    ("log_id", "Log ID"),
)


def fields() -> dict[str, Any]:
    """Return what can be searched, one spelling of each."""
    known: list[dict[str, str]] = [{"id": name, "displayName": shown, "type": "string"} for name, shown in _SHOWN]
    for one in known:
        if one["id"] == "execution_status":
            one["regex"] = "^(success|failed)$"
    return {"fields": {"action_execution": known}}


def item(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one log of a listing."""
    return {
        "id": values["id"],
        "actionKey": values["tool_slug"],
        "appKey": values["toolkit_slug"],
        "app": {"icon": "", "name": values["toolkit_slug"]},
        "connectedAccountId": values["connected_account_id"],
        "entityId": values["user_id"],
        "status": values["status"],
        "executionTime": values["duration_ms"],
        "minimalResponse": values["message"],
        "createdAt": values["toUnixTimestamp64Milli(timestamp)"],
        "metadata": log_items.metadata(values, texts=("instant_charge", "recipe_id")),
    } | _charged(values)


def detail(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return one log in full."""
    start_ms, duration_ms = values["toUnixTimestamp64Milli(timestamp)"], values["duration_ms"]
    failed = values["status"] == "failed"
    stored = values["data"]
    data = _parts(stored) if stored[:1] == "{" else {}
    step = {
        "type": "tool_execution",
        "startTime": start_ms,
        "endTime": start_ms + duration_ms,
        "totalDuration": duration_ms,
        "status": "failure" if failed else "success",
        "message": values["message"],
    }
    return {
        "actionLogId": values["id"],
        "actionId": values["tool_slug"],
        "status": "error" if failed else "success",
        "app": {"name": values["toolkit_slug"], "uniqueId": values["toolkit_slug"], "icon": ""},
        "version": "",
        "connection": {"id": values["connected_account_id"], "entity": values["user_id"]},
        "session": {"id": values["session_id"]} if values["session_id"] else {},
        "executionMetadata": log_items.metadata(values),
        "steps": [step],
        "payloadReceived": _object(data.get("request")),
        "startTime": start_ms,
        "endTime": start_ms + duration_ms,
        "totalDuration": f"{duration_ms:.15g}",
        "response": _object(data.get("response")),
        "error": _error(values),
    } | _charged(values)


def _object(value: msgspec.Raw | None) -> Any:
    """Return an object as it was stored; what is none becomes the member `value` of one, absent and null an empty one."""
    text = b"" if value is None else bytes(value)
    if not text or text == b"null":
        return {}
    return orjson.Fragment(text) if text[:1] == b"{" else {"value": orjson.Fragment(text)}


def _error(values: Mapping[str, Any]) -> dict[str, str]:
    names = {"message": "error_message", "code": "error_code", "type": "error_type"}
    return {name: values[column] for name, column in names.items() if values[column]}


def _charged(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the two members that stand beside the metadata here, where the producer gave them."""
    given = log_items.typed_members(values["metadata"])
    spelled = {"credential_source": "credentialSource", "instant_charge": "instantCharge"}
    return {spelled[name]: value for name, value in given.items()}
