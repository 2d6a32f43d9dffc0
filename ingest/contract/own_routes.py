"""Which paths under `/api` are answered here; with an upstream set, every other one is its own. Pure."""

from typing import Final

_OWN: Final = (
    "/api/v3.1/logs/tool_execution",
    "/api/v3.1/project/usage",
    "/api/v3.1/org/usage",
    "/api/v3.1/internal/action_execution",
    "/api/v3.1/internal/trigger/log",
    "/api/v3.1/internal/trigger/logs",
)
_BELOW: Final = tuple(f"{path}/" for path in _OWN)


def is_own(path: str) -> bool:
    """Tell whether a decoded path is one of the query service's, or lies below one."""
    return not path.startswith("/api/") or path in _OWN or path.startswith(_BELOW)
