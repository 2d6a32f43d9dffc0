"""Why calls fail and what to do about it, by failure class: the one table that API, command line and pages show. Pure.

Classes are given by the worker (`processors.enrich`). Source of the first five causes: the observability document. The words
are for whoever is on call, and each action can be taken with what the answer holds.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cause:
    """What most likely lies behind a failure, and what to do next."""

    likely_cause: str
    action: str


_OTHER: Final = "other"
CAUSES: Final = {
    "unauthorized": Cause(
        "The user's connected account token has expired or been revoked.",
        "Have the user connect the account again. If all users of the toolkit are hit at once, check the client id and secret"
        " of its auth config.",
    ),
    "forbidden": Cause(
        "The OAuth scopes granted don't include the required permission, or the user may not do this in the upstream service.",
        "Add the missing scope to the auth config and have the user connect again. If the scope is there, an administrator of"
        " the upstream service must grant the right.",
    ),
    "invalid_input": Cause(
        "Tool input validation failed: the agent sent arguments that the tool or its upstream does not take.",
        "Compare data.request of the example log with the tool's input schema, and mend the prompt, the schema or the caller.",
    ),
    "tool_not_found": Cause(
        "The tool slug is misspelled or not available in the session.",
        "Look the slug up in the toolkit's list of tools, and see that the session allows the toolkit.",
    ),
    "no_connected_account": Cause(
        "The user hasn't authenticated with the required toolkit, or the connection was removed.",
        "Send the user a link to connect an account for this toolkit, then repeat the call.",
    ),
    "rate_limited": Cause(
        "The upstream service takes no more calls for now: a rate limit or a quota is used up.",
        "Wait as long as the upstream says (Retry-After), then send less at a time. If it lasts, ask for a larger quota.",
    ),
    "upstream_error": Cause(
        "The upstream service failed on its own side (HTTP 5xx or the like).",
        "Look at the status page of the upstream service. Repeat what may safely be repeated, with growing pauses.",
    ),
    "timeout": Cause(
        "The upstream service did not answer in time: it is slow, or the call asks for too much at once.",
        "Repeat what may safely be repeated and ask for less at once. If all its tools are slow, see its status page.",
    ),
    "network": Cause(
        "No connection to the upstream service came about, or it broke: name resolution, TLS, a proxy or a firewall.",
        "From the machine that runs the tool, check DNS, the proxy, outgoing firewall rules and the address's certificate.",
    ),
    _OTHER: Cause(
        "The tool or its upstream refused the call for a reason of its own, which the message tells.",
        "Read the message, and data.request and data.response of the example log.",
    ),
}


# What a failure of no class says of itself: the first that stands in its message, in lower case.
_SAID: Final = (
    (
        ("already exist", "conflict", "duplicate", "already been", "was modified"),
        Cause(
            "What the call makes or changes is there already, or was changed by somebody else meanwhile.",
            "Have the agent read the present state before it writes, and repeat the change on that.",
        ),
    ),
    (
        ("not found", "does not exist", "doesn't exist", "no such", "could not find", "cannot find", "unknown", "404"),
        Cause(
            "What the call names is not there (any more), or the connected account may not see it.",
            "Check the id or name in data.request of the example log. If it is right, share the item with the account.",
        ),
    ),
)


def cause_of(failure_class: str, message: str = "") -> Cause:
    """Return the cause of a class, and within `other` of what the message says; a class unknown here is as `other`."""
    known = CAUSES.get(failure_class, CAUSES[_OTHER])
    if known is not CAUSES[_OTHER]:
        return known
    lowered = message.lower()
    return next((cause for parts, cause in _SAID if any(part in lowered for part in parts)), known)
