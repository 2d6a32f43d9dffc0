"""The same calls on each official client, in the words of each; and events with the truth about them."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.official_clients import Client

RECORDED = Path(__file__).parents[1] / "data" / "airline_tool_calls.ndjson"
# All of the recording, and nothing of anything else.
FROM_MS, TO_MS = 1_793_404_800_000, 1_793_923_200_000
# What must be percent-encoded in a path, also where it looks like a path or an escape itself.
AWKWARD_IDS = ("log/a b?c#d", "lög_%41+&=;,", "a/../b", "%2F", "\U0001d11e", "log_-jRTWClpBoVo")

# Nearly as large as an event may be.
_LARGE = "large " * 150_000

Body = Mapping[str, Any]
Event = Mapping[str, Any]
Said = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a client calls the operations."""

    listing: str
    listed: str
    search: str = ""
    detail: str = ""
    summary: str = ""
    breakdown: str = ""
    org_summary: str = ""
    org_breakdown: str = ""


_PYTHON = Names(
    search="logs.create_tool_execution",
    detail="logs.retrieve_tool_execution",
    summary="project.usage.retrieve_summary",
    breakdown="project.usage.retrieve",
    org_summary="org.usage.retrieve_summary",
    org_breakdown="org.usage.retrieve",
    listing="_internal.logs.tools.list",
    listed="_internal.logs.tools.retrieve",
)
NAMES = {
    "rc22": _PYTHON,
    "rc22-strict": _PYTHON,
    "rc22-async": _PYTHON,
    "sdk": Names(
        search="logs.search",
        detail="logs.get",
        summary="experimental.usage.summary",
        breakdown="experimental.usage.breakdown",
        listing="client.logs.tools.list",
        listed="client.logs.tools.retrieve",
    ),
    "js": Names(
        search="logs.createToolExecution",
        detail="logs.retrieveToolExecution",
        summary="project.usage.retrieveSummary",
        breakdown="project.usage.retrieve",
        org_summary="org.usage.retrieveSummary",
        org_breakdown="org.usage.retrieve",
        listing="logs.tools.list",
        listed="logs.tools.retrieve",
    ),
    "old": Names(listing="logs.tools.list", listed="logs.tools.retrieve"),
}


class Api:
    """One client with one key (or, of several kinds, a key each) at one address."""

    def __init__(self, kind: str, client: Client, *, url: str, key: str | Mapping[str, str], **options: Any) -> None:
        self.kind = kind
        self.names = NAMES[kind]
        self._client = client
        organization = isinstance(key, str) and key.startswith("oak_")
        match kind:
            case "sdk":
                self._options = {"kind": "sdk", "api_key": key, "base_url": url, **options}
            case "old":
                self._options = {"kind": "client-1", "api_key": key, "base_url": url, **options}
            case "js":
                self._options = {"orgApiKey" if organization else "apiKey": key, "baseURL": url, **options}
            case _:
                auth = "OrganizationAuth" if organization else "ProjectAuth"
                strict = {"_strict_response_validation": True} if kind == "rc22-strict" else {}
                of = "client-async" if kind == "rc22-async" else "client"
                self._options = {"kind": of, "auth": auth, "key": key, "base_url": url, **strict, **options}

    def raw(self, name: str, *path: str, body: Body | None = None, **more: Any) -> Said:
        """Make a call by the client's own name; return all that is said of it."""
        if self.kind == "js":
            return self._client.call(name, *path, *([] if body is None else [body]), options=self._options)
        return self._client.call(name, *path, options=self._options, kwargs=_python(body or {}), **more)

    def ask(self, name: str, *path: str, body: Body | None = None) -> Any:
        """Make a call that must succeed; return what the client made of the answer."""
        said = self.raw(getattr(self.names, name), *path, body=body)
        assert "error" not in said, said
        return said["result"]

    def error(self, name: str, *path: str, body: Body | None = None) -> Said:
        """Make a call that must fail; return what a user finds on the exception."""
        said = self.raw(getattr(self.names, name), *path, body=body)
        assert "error" in said, said
        return dict(said["error"])


def _python(body: Body) -> dict[str, Any]:
    """Spell members as Python has to."""
    return {
        "from_" if name == "from" else name: _python(value) if name == "time_range" and value else value
        for name, value in body.items()
    }


def pages(ask: Callable[[Any], Any], rows: str, following: str, first: Any) -> list[list[dict[str, Any]]]:
    """Follow cursors to the end; return each page's rows."""
    found, cursor = [], first
    while True:
        page = ask(cursor)
        found.append(page[rows])
        cursor = page.get(following)
        if cursor is None:
            return found


def recorded(prefix: str = "") -> list[dict[str, Any]]:
    """Return the recorded events with the members that the recording has not, so that every filter finds something.

    Args:
        prefix: of ids, to have the same calls in another project.
    """
    events = [json.loads(line) for line in RECORDED.read_bytes().splitlines()]
    for index, event in enumerate(events):
        event["id"] = prefix + event["id"]
        event |= {"metadata": {"credential_source": "custom_auth", "instant_charge": "0.0001", "turn": index}}
        if index % 3:
            event |= {"connected_account_id": f"ca_{index % 7}", "auth_config_id": f"ac_{index % 4}"}
        if index % 5 == 0:
            event |= {
                "sandbox_id": f"sb_{index % 2}%",
                "parent": {"log_id": "log_0", "tool_slug": "COMPOSIO_MULTI_EXECUTE_TOOL"},
            }
    return events


def awkward() -> list[dict[str, Any]]:
    """Return events whose ids are hard to address, beside the recording in time."""
    event = recorded()[0]
    return [event | {"id": name, "timestamp": FROM_MS + index} for index, name in enumerate(AWKWARD_IDS)]


def odd() -> list[dict[str, Any]]:
    """Return events that are taken though few would send them: what is in them must not keep a client from reading a page."""
    texts = ("", " ", "\0", "ü\U0001d11e\u2028", "\x7f\x1b[31m", "x" * 200, '"\\/', "null", "1e999")
    anything = (_LARGE, None, 0, -0.0, 1e308, 2**53, True, [], {}, [[{}]], *texts)
    events = []
    for index, value in enumerate(anything):
        text, large = texts[index % len(texts)], value == _LARGE
        events.append(
            {
                "id": f"odd_{index}{text}"[:200],
                "timestamp": FROM_MS - 1_000_000 + index,
                "tool_slug": text.strip() or "T",
                "status": "failed" if index % 2 else "success",
                "duration_ms": (0, 0.001, 1e9, 3)[index % 4],
                "user_id": text,
                "session_id": text,
                "message": text or None,
                "error": (None, text, {"message": text, "code": index, "type": text})[index % 3],
                "context": {"trace_id": text, "request_id": None},
                "source": {"host": text},
                "parent": (None, {"log_id": text}, {"tool_slug": "P"})[index % 3],
                "metadata": {}
                if large
                else dict.fromkeys(("credential_source", "instant_charge", "recipe_id", "tool", text), value),
                "data": {"request": value} if large else {"request": value, "response": value, text: value},
            }
        )
    return events


def value_of(event: Event, field: str) -> str:
    """Return what a filter field means."""
    if field == "log_id":
        return str(event["id"])
    if field == "request_id":
        return str(event["context"]["request_id"])
    return str(event.get(field, ""))


def holds(event: Event, field: str, operator: str, wanted: str) -> bool:
    """Decide a filter the plain way."""
    value = value_of(event, field)
    contained = wanted.casefold() in value.casefold()
    return {"==": value == wanted, "!=": value != wanted, "contains": contained, "not_contains": not contained}[operator]


def newest_first(events: Iterable[Event]) -> list[str]:
    """Return ids in the order of logs."""
    ordered = sorted(events, key=lambda event: (event["timestamp"], event["id"].encode()), reverse=True)
    return [event["id"] for event in ordered]


def first_calls(events: Sequence[Event]) -> list[Event]:
    """Return the call that created each session."""
    first: dict[str, Event] = {}
    for event in sorted(events, key=lambda event: (event["timestamp"], event["id"].encode())):
        if event.get("session_id"):
            first.setdefault(event["session_id"], event)
    return list(first.values())
