"""What an event does not say itself: toolkit, HTTP status, failure class. Pure."""

from functools import lru_cache
from typing import Final

from ingest.contract.event import Event, Failure
from processors.failure_class import failure_class, http_status

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


@lru_cache(maxsize=65_536)
def toolkit_of(tool_slug: str, given: str | None) -> str:
    """Return an event's toolkit in lower case: the producer's, else the longest known prefix, else what stands before `_`."""
    if given:
        return given.lower()
    # A tool may begin with underscores; a toolkit does not.
    parts = tool_slug.lower().lstrip("_").split("_")
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
