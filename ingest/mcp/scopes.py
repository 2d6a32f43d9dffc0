"""In what an id is unique. Pure."""

from typing import Final

# All that goes over one pair of pipes.
WHOLE: Final = ""
_SESSION: Final = "session "
_EXCHANGE: Final = "exchange "


def of_session(session_id: str) -> str:
    """Return the scope of an MCP session."""
    return f"{_SESSION}{session_id}"


def of_exchange(stream: int) -> str:
    """Return the scope of one exchange over HTTP that is of no session."""
    return f"{_EXCHANGE}{stream}"


def session_of(scope: str) -> str | None:
    """Return the MCP session's id, if the scope is one."""
    return scope.removeprefix(_SESSION) if scope.startswith(_SESSION) else None
