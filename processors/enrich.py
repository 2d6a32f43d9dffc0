"""What an event does not say itself: toolkit, level, message, HTTP status, failure class. Pure.

Failure classes and their causes: SURFACE 7; the patterns beyond the documented ones come from what upstream APIs answer.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from ingest.contract.event import Event, Failure

# Toolkits whose slug holds an underscore: the part before the first one is not their name.
# Source: the toolkit names in public catalogues of agent tools.
MULTI_WORD_TOOLKITS: Final = frozenset(
    {
        "active_campaign", "agency_zoom", "ai_ml_api", "apify_mcp", "azure_devops", "bitwarden_sm", "brave_search",
        "composio_search", "contact_out", "digital_ocean", "dynamics_365", "eleven_labs", "excel_online", "google_ads",
        "google_admin", "google_analytics", "google_calendar", "google_chat", "google_classroom", "google_contacts",
        "google_docs", "google_drive", "google_forms", "google_maps", "google_meet", "google_photos", "google_search_console",
        "google_sheets", "google_slides", "google_tasks", "help_scout", "mail_chimp", "microsoft_excel", "microsoft_graph",
        "microsoft_outlook", "microsoft_teams", "microsoft_todo", "more_trees", "new_relic", "on_page", "one_drive",
        "one_note", "pipe_drive", "power_bi", "quick_books", "retell_ai", "sage_intacct", "send_grid", "share_point",
        "star_trek", "text_razor", "tool_router", "trip_advisor", "word_press", "you_search", "zoho_bigin", "zoho_books",
        "zoho_crm", "zoho_desk", "zoho_inventory", "zoho_invoice", "zoho_mail",
    }
)  # fmt: skip
_LONGEST: Final = max(name.count("_") for name in MULTI_WORD_TOOLKITS) + 1

_BY_STATUS: Final[Mapping[int, str]] = {
    400: "invalid_input",
    401: "unauthorized",
    403: "forbidden",
    407: "unauthorized",
    408: "timeout",
    422: "invalid_input",
    429: "rate_limited",
    504: "timeout",
}

# In order: the first that fits decides. Each is a claim about the error's type, code or text.
_PATTERNS: Final = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("tool_not_found", r"\b(tool|action|function)\b[^.]{0,80}\b(not found|does not exist|unknown)|unknown (tool|action)\b"
                           r"|no such tool|toolnotfound"),
        ("no_connected_account", r"no (active )?connected account|connected ?account ?not ?found|not connected to"
                                 r"|no connection found for"),
        ("rate_limited", r"rate.?limit|too many requests|quota (was )?exceeded|throttl|resource.?exhausted"),
        ("timeout", r"time[d]?.?out|deadline.?exceeded|etimedout"),
        ("unauthorized", r"\bunauthori[sz]ed\b|invalid.?(api.?key|credentials|token|grant)"
                         r"|(token|credentials?) (has |have |is )?(been )?(expired|revoked)"
                         r"|authentication (failed|required)|unauthenticated|not authenticated"),
        ("forbidden", r"\bforbidden\b|permission.?denied|insufficient.{0,20}(scope|permission|privilege)|access.?denied"
                      r"|not authori[sz]ed to"),
        ("network", r"econnrefused|econnreset|enotfound|connection (refused|reset|aborted|error)|getaddrinfo|dns\b"
                    r"|name or service not known|network (is )?unreachable|ssl(error)?\b|certificate verify failed"
                    r"|remote end closed"),
        ("upstream_error", r"internal server error|bad gateway|service unavailable|upstream.{0,20}error"),
        ("invalid_input", r"unprocessable|validation (error|failed)|invalid (input|argument|parameter|request|value)"
                          r"|missing required|required (field|parameter|property)|must be a\b|is not a valid"),
    )
)  # fmt: skip
_STATUS_IN_TEXT: Final = re.compile(
    r"(?:^|status(?: code)?[ :=]+|http[ /:]+(?:\d\.\d )?|error[ :]+|code[ :=]+|\()([45]\d\d)\b", re.IGNORECASE
)


@lru_cache(maxsize=65_536)
def toolkit_of(tool_slug: str, given: str | None) -> str:
    """Return an event's toolkit in lower case: the producer's, else the longest known prefix, else what stands before `_`."""
    if given:
        return given.lower()
    parts = tool_slug.lower().split("_")
    for words in range(min(_LONGEST, len(parts) - 1), 1, -1):
        name = "_".join(parts[:words])
        if name in MULTI_WORD_TOOLKITS:
            return name
    return parts[0]


def failure_of(event: Event) -> tuple[str, str, str, int, str]:
    """Return (error message, code, type, HTTP status or 0, failure class) of an event, empty where there is nothing."""
    error = event.error
    if error is None:
        message, code, kind = "", "", ""
    elif isinstance(error, Failure):
        message, code, kind = error.message or "", "" if error.code is None else str(error.code), error.type or ""
    else:
        message, code, kind = error, "", ""
    if event.status != "failed":
        return message, code, kind, 0, ""
    text = message or event.message or ""
    status = http_status(code, kind, text)
    return message, code, kind, status, failure_class(code, kind, text, status)


def http_status(code: str, kind: str, message: str) -> int:
    """Return the HTTP status a failure names, 0 if it names none."""
    if len(code) == 3 and code.isdigit() and code[0] in "45":
        return int(code)
    found = _STATUS_IN_TEXT.search(code) or _STATUS_IN_TEXT.search(kind) or _STATUS_IN_TEXT.search(message)
    return int(found[1]) if found else 0


@lru_cache(maxsize=16_384)
def failure_class(code: str, kind: str, message: str, status: int) -> str:
    """Return one of the classes of SURFACE 7. What the text says in so many words wins over a bare status: a 404 that names
    a missing tool is a missing tool."""
    for text in (f"{kind} {code}", message):
        for name, pattern in _PATTERNS[:2]:
            if pattern.search(text):
                return name
    by_status = _BY_STATUS.get(status) or ("upstream_error" if status >= 500 else "")
    if by_status:
        return by_status
    for text in (f"{kind} {code}", message):
        for name, pattern in _PATTERNS[2:]:
            if pattern.search(text):
                return name
    return "invalid_input" if 400 <= status < 500 and status != 404 else "other"
