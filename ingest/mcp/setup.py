"""What the recorder is told at its beginning."""

from typing import Literal

import msgspec


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """One run's settings.

    `fallback` names the toolkit where the server does not say its name. `run_id` is the session of calls that have no other.
    """

    url: str
    api_key: str
    transport: Literal["stdio", "http"]
    fallback: str
    run_id: str
    user: str | None = None
    session: str | None = None
    toolkit: str | None = None
    host: str | None = None
