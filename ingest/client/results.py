"""What `execute` returns."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of a call.

    `data`: what the tool returned, the object itself; None where it failed. `error`: what went wrong, in words, or None.
    `log_id`: finds the call's log. `exception`: what the tool raised, to be looked at or raised again.
    """

    data: Any = None
    error: str | None = None
    log_id: str
    exception: BaseException | None = field(default=None, repr=False)

    @property
    def successful(self) -> bool:
        """Whether there was no error."""
        return self.error is None
