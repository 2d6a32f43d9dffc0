"""What an event does not say itself: toolkit, HTTP status, failure class; and which texts of real upstream APIs lead where."""

import pytest

from ingest.contract.event import Event, Failure
from processors.enrich import failure_of, toolkit_of


@pytest.mark.parametrize(
    ("slug", "given", "toolkit"),
    [
        ("GMAIL_SEND_EMAIL", None, "gmail"),
        ("GOOGLE_CALENDAR_CREATE_EVENT", None, "google_calendar"),
        ("GOOGLE_UNHEARD_OF", None, "google"),
        ("SEARCH", None, "search"),
        ("GMAIL_SEND_EMAIL", "Mail", "mail"),
        ("_internal_lookup", None, "internal"),
        ("__GOOGLE_CALENDAR_FIND", None, "google_calendar"),
        ("___", None, ""),
    ],
)
def test_the_toolkit_is_the_producers_else_the_longest_known_prefix(slug: str, given: str | None, toolkit: str) -> None:
    """Multi-word toolkits are known; what is not known stands before the first underscore."""
    assert toolkit_of(slug, given) == toolkit


def failed(error: str | Failure | None, message: str | None = None) -> tuple[int, str]:
    event = Event(tool_slug="T", status="failed", duration_ms=1, error=error, message=message)
    return failure_of(event)[3:]


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        ("401 Unauthorized: Request had invalid authentication credentials", 401, "unauthorized"),
        (Failure(message="Token has been expired or revoked", code="invalid_grant"), 0, "unauthorized"),
        ("403 Forbidden: missing_scope, needed chat:write", 403, "forbidden"),
        (Failure(message="Insufficient OAuth scopes", code=403), 403, "forbidden"),
        ("422 Unprocessable Entity: Validation Failed", 422, "invalid_input"),
        (Failure(message="title is required", type="ValidationError", code=400), 400, "invalid_input"),
        ("Tool not found: GMAIL_SEND_MAIL", 0, "tool_not_found"),
        (Failure(message="Tool GMAIL_X not found", code=404), 404, "tool_not_found"),
        ("No connected account found for this user and toolkit", 0, "no_connected_account"),
        ("429 Too Many Requests: ratelimited", 429, "rate_limited"),
        (Failure(message="Quota exceeded for quota metric 'Queries'", code="RESOURCE_EXHAUSTED"), 0, "rate_limited"),
        ("502 Bad Gateway from upstream", 502, "upstream_error"),
        ("HTTP 500: Internal Server Error", 500, "upstream_error"),
        ("Request timed out after 30000 ms", 0, "timeout"),
        (Failure(message="", type="ReadTimeout"), 0, "timeout"),
        ("504 Gateway Timeout", 504, "timeout"),
        ("connect ECONNREFUSED 10.0.0.1:443", 0, "network"),
        ("getaddrinfo ENOTFOUND api.example.com", 0, "network"),
        ("Error: flight HAT030 not available on date 2024-05-13", 0, "other"),
        ("Error: payment amount does not add up, total price is 422, but paid 401", 0, "other"),
        (None, 0, "other"),
    ],
)
def test_a_failure_has_a_status_and_a_class(error: str | Failure | None, status: int, expected: str) -> None:
    """Status codes, types and texts as upstream APIs give them; numbers in prose are no status."""
    assert failed(error) == (status, expected)


def test_a_success_has_no_failure() -> None:
    """Whatever an error member says, a call that succeeded is in no class."""
    event = Event(tool_slug="T", status="success", duration_ms=1, error="401")
    assert failure_of(event) == ("401", "", "", 0, "")
