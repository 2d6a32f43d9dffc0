"""What a check found, in words for whoever is on call. Pure."""

from dataclasses import dataclass
from typing import Final, Literal

State = Literal["ok", "warning", "failed"]

_START: Final = ": start it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the answer.

    Args:
        check: what was looked at, one word or two.
        state: `failed` means something does not work, or is about to stop working; a `warning` is worth a look.
        text: what was found.
        fix: what to do about it; empty where all is well.
    """

    check: str
    state: State
    text: str
    fix: str = ""


def ok(check: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(check=check, state="ok", text=text)


def warning(check: str, text: str, fix: str) -> Finding:
    """Return what is worth a look."""
    return Finding(check=check, state="warning", text=text, fix=fix)


def failed(check: str, text: str, fix: str) -> Finding:
    """Return what does not work."""
    return Finding(check=check, state="failed", text=text, fix=fix)


def away(check: str, error: Exception, where: str) -> Finding:
    """Return that a server could not be asked; our own errors say what to do behind a colon.

    Args:
        where: who named its address, in words.
    """
    text, start, rest = (str(error) or type(error).__name__).partition(_START)
    fix = f"start it{rest}" if start else "look at its log, and see that the address is its own"
    return failed(check, f"{text} (address {where})", fix)
