"""Why a call got no answer, in words that the log shows. Pure."""

from typing import Literal

import msgspec

# What stands as the error's type. `cancelled`: the client said so. `server_exited`, `client_gone`, `interrupted` (this program
# was told to stop) and `killed` (it was killed): the connection ended under the call. Over HTTP also `connection_closed` (the
# answer broke off, or ended without one), `unreachable` and `http_error`. `unanswered`: nothing came for hours, or too much was
# open. `input_required`: the server asked for more input, which never came.
Why = Literal[
    "cancelled",
    "server_exited",
    "client_gone",
    "interrupted",
    "killed",
    "connection_closed",
    "unreachable",
    "http_error",
    "unanswered",
    "input_required",
]


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream, or everything, ended.

    `message` is one sentence for people. `code` is the HTTP status of an answer that holds no JSON-RPC.
    """

    why: Why
    message: str
    code: int | None = None


KILLED = Ending(why="killed", message="connection closed: the recording wrapper was killed before an answer came")
UNANSWERED = Ending(why="unanswered", message="no answer was seen")
INPUT_REQUIRED = Ending(why="input_required", message="the server asked for input, and the call was not continued with it")


def cancelled(reason: str | None) -> Ending:
    """Return the ending of a call that the client took back."""
    return Ending(why="cancelled", message=f"cancelled by the client: {reason}" if reason else "cancelled by the client")


def server_exited(code: int) -> Ending:
    """Return the ending of calls whose server is gone; `code` as `subprocess` has it."""
    how = f"exited with code {code}" if code >= 0 else f"was ended by signal {-code}"
    return Ending(why="server_exited", message=f"connection closed: the server {how} before it answered")
