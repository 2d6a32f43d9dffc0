"""Which requests run a tool. Pure.

Judged by the path as an upstream may read it: doubled and trailing slashes, `.` and `..`, percent-encoding and case make no
other route of it, so that no tool runs unrecorded for the way its path was spelled.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

# v3 and v3.1 are what the official clients call; later versions are taken to go on alike.
_VERSION: Final = re.compile(r"v[0-9]+(\.[0-9]+)*")
# `POST /tools/execute/proxy` sends an HTTP request with an account's credentials; it names no tool.
_NO_TOOL: Final = "proxy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What the path of a request that runs a tool says; the tool of a session's execution is named in its body."""

    tool_slug: str = ""
    session_id: str = ""


def execution_of(method: str, raw_path: bytes) -> Execution | None:
    """Return what a request runs, None where it runs no tool.

    Args:
        method: of the request.
        raw_path: as it came, without the query.
    """
    if method != "POST":
        return None
    parts = _segments(raw_path)
    words = [part.lower() for part in parts]
    if len(parts) < 5 or words[0] != "api" or not _VERSION.fullmatch(words[1]):
        return None
    if words[2:4] == ["tools", "execute"] and len(parts) == 5 and words[4] != _NO_TOOL:
        return Execution(tool_slug=parts[4])
    if words[2:4] == ["tool_router", "session"] and len(parts) == 6 and words[5] in ("execute", "execute_meta"):
        return Execution(session_id=parts[4])
    return None


def session_of(method: str, raw_path: bytes) -> bool:
    """Tell whether the answer to a request describes a session: it was created, changed or asked for."""
    parts = [part.lower() for part in _segments(raw_path)]
    return (
        len(parts) in (4, 5)
        and parts[0] == "api"
        and _VERSION.fullmatch(parts[1]) is not None
        and parts[2:4] == ["tool_router", "session"]
        and method in ("POST", "GET", "PATCH")
    )


def _segments(raw_path: bytes) -> list[str]:
    found: list[str] = []
    for raw in raw_path.split(b"/"):
        part = unquote_to_bytes(raw).decode(errors="replace")
        if part == "..":
            found = found[:-1]
        elif part not in ("", "."):
            found.append(part)
    return found
