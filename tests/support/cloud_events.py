"""Tool executions as CloudEvents, made with the CloudEvents SDK."""

from datetime import UTC, datetime
from typing import Any

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

FORMAT = JSONFormat()
TIME = datetime(2026, 4, 17, 10, 25, tzinfo=UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def execution(**members: Any) -> dict[str, Any]:
    return {"tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 12.5, **members}


def cloud_event(data: Any = None, **attributes: Any) -> CloudEvent:
    """Return a CloudEvent of a tool execution; attributes given replace the usual ones, None leaves one out."""
    usual: dict[str, Any] = {
        "id": "a-1",
        "source": "/agents/mia",
        "type": "tool.executed",
        "time": TIME,
        "datacontenttype": "application/json",
    }
    given = {name: value for name, value in (usual | attributes).items() if value is not None}
    return CloudEvent(given, execution() if data is None else data)
