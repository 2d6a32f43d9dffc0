"""Made-up tool calls of a small company: several toolkits, users who work in sessions, and the failures people really meet.

Pure: the same seed and the same times give the same calls. Failures follow the documented patterns (401 expired or revoked
token, 403 missing scope, 422 invalid input, unknown tool, no connected account) and what upstream services answer besides
(429, 5xx, timeouts), each with an error body in the shape of that upstream.
"""

import random
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Json = dict[str, Any]
_ID_ALPHABET: Final = string.ascii_letters + string.digits + "-_"
# A session of an agent is a handful of calls within a minute or two.
_SESSION_CALLS: Final = (2, 14)
_USERS: Final = tuple(f"user_{number:03d}" for number in range(1, 25))
_FRAMEWORKS: Final = (("openai", "python"), ("langchain", "python"), ("vercel", "typescript"), ("crewai", "python"))
_SESSIONS_OPEN_MAX: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to fail: how often, what the tool's caller is told, and what the upstream said."""

    weight: float
    message: str
    code: int | str | None = None
    kind: str | None = None
    body: Any = None
    duration_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool: how long it takes in the middle, how often it fails, and what it is asked and answers."""

    slug: str
    toolkit: str
    weight: float
    median_ms: float
    failing: float
    ask: Callable[[random.Random], Json]
    answer: Callable[[random.Random], Json]


def _google_error(code: int, status: str, message: str) -> Json:
    return {"error": {"code": code, "message": message, "status": status, "errors": [{"message": message, "domain": "global"}]}}


# What any tool may meet, whatever its upstream.
_COMMON: Final = (
    Fault(weight=2, message="No connected account found for this user and toolkit", code="ConnectedAccountNotFound"),
    Fault(weight=1.5, message="Request timed out after 30000 ms", kind="TimeoutError", duration_ms=30_000),
)
_FAULTS: Final[Mapping[str, tuple[Fault, ...]]] = {
    "gmail": (
        Fault(
            weight=5,
            message="401 Unauthorized: Request had invalid authentication credentials",
            code=401,
            body=_google_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        ),
        Fault(
            weight=3,
            message="403 Forbidden: Request had insufficient authentication scopes",
            code=403,
            body=_google_error(403, "PERMISSION_DENIED", "Request had insufficient authentication scopes."),
        ),
        Fault(
            weight=2,
            message="429 Too Many Requests: User-rate limit exceeded",
            code=429,
            body=_google_error(429, "RESOURCE_EXHAUSTED", "User-rate limit exceeded. Retry after 2 s"),
        ),
    ),
    "google_calendar": (
        Fault(
            weight=4,
            message="422 Unprocessable Entity: The specified time range is empty",
            code=422,
            body=_google_error(422, "INVALID_ARGUMENT", "The specified time range is empty."),
        ),
        Fault(
            weight=3,
            message="401 Unauthorized: Token has been expired or revoked",
            code=401,
            body={"error": "invalid_grant", "error_description": "Token has been expired or revoked."},
        ),
    ),
    "github": (
        Fault(
            weight=4,
            message="403 Forbidden: Resource not accessible by integration",
            code=403,
            body={"message": "Resource not accessible by integration", "status": "403"},
        ),
        Fault(
            weight=4,
            message="422 Unprocessable Entity: Validation Failed",
            code=422,
            body={
                "message": "Validation Failed",
                "errors": [{"resource": "Issue", "field": "title", "code": "missing_field"}],
                "status": "422",
            },
        ),
    ),
    "slack": (
        Fault(
            weight=4,
            message="403 Forbidden: missing_scope, needed chat:write",
            code=403,
            body={"ok": False, "error": "missing_scope", "needed": "chat:write", "provided": "channels:read"},
        ),
        Fault(weight=3, message="429 Too Many Requests: ratelimited", code=429, body={"ok": False, "error": "ratelimited"}),
    ),
    "notion": (
        Fault(
            weight=4,
            message="401 Unauthorized: API token is invalid",
            code=401,
            body={"object": "error", "status": 401, "code": "unauthorized", "message": "API token is invalid."},
        ),
        Fault(
            weight=3,
            message="502 Bad Gateway from upstream",
            code=502,
            body="<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>",
        ),
    ),
    "hubspot": (
        Fault(
            weight=4,
            message="422 Unprocessable Entity: Property values were not valid",
            code=422,
            body={
                "status": "error",
                "message": "Property values were not valid",
                "category": "VALIDATION_ERROR",
                "errors": [{"message": "Email address nobody is invalid", "code": "INVALID_EMAIL"}],
            },
        ),
        Fault(
            weight=2,
            message="500 Internal Server Error from upstream",
            code=500,
            body={"status": "error", "message": "internal error", "category": "INTERNAL_ERROR"},
        ),
    ),
}
_WORDS: Final = ("quarterly report", "launch plan", "invoice", "standup notes", "roadmap", "offsite", "contract draft", "demo")


def _pick(rng: random.Random) -> str:
    return rng.choice(_WORDS)


def _number(rng: random.Random) -> int:
    return rng.randint(1, 9_999)


_TOOLS: Final = (
    Tool(
        slug="GMAIL_SEND_EMAIL",
        toolkit="gmail",
        weight=10,
        median_ms=210,
        failing=0.09,
        ask=lambda rng: {"recipient_email": f"person{_number(rng)}@example.com", "subject": _pick(rng), "body": "As agreed."},
        answer=lambda rng: {"id": f"{rng.getrandbits(64):016x}", "labelIds": ["SENT"]},
    ),
    Tool(
        slug="GMAIL_FETCH_EMAILS",
        toolkit="gmail",
        weight=12,
        median_ms=340,
        failing=0.05,
        ask=lambda rng: {"query": f"subject:{_pick(rng)}", "max_results": rng.randint(1, 25)},
        answer=lambda rng: {"messages": [{"id": f"{rng.getrandbits(64):016x}", "subject": _pick(rng)} for _ in range(3)]},
    ),
    Tool(
        slug="GOOGLE_CALENDAR_CREATE_EVENT",
        toolkit="google_calendar",
        weight=6,
        median_ms=260,
        failing=0.1,
        ask=lambda rng: {"summary": _pick(rng), "duration_minutes": rng.choice((0, 15, 30, 60))},
        answer=lambda rng: {"id": f"{rng.getrandbits(52):013x}", "status": "confirmed"},
    ),
    Tool(
        slug="GITHUB_CREATE_ISSUE",
        toolkit="github",
        weight=7,
        median_ms=420,
        failing=0.08,
        ask=lambda rng: {"owner": "example", "repo": "website", "title": _pick(rng)},
        answer=lambda rng: {"number": _number(rng), "state": "open"},
    ),
    Tool(
        slug="GITHUB_LIST_PULL_REQUESTS",
        toolkit="github",
        weight=8,
        median_ms=300,
        failing=0.03,
        ask=lambda rng: {"owner": "example", "repo": "website", "page": rng.randint(1, 4)},
        answer=lambda rng: {"pull_requests": [{"number": _number(rng), "title": _pick(rng)} for _ in range(4)]},
    ),
    Tool(
        slug="SLACK_SEND_MESSAGE",
        toolkit="slack",
        weight=11,
        median_ms=150,
        failing=0.06,
        ask=lambda rng: {"channel": "#general", "text": f"The {_pick(rng)} is ready."},
        answer=lambda rng: {"ok": True, "ts": f"{_number(rng)}.{_number(rng):06d}"},
    ),
    Tool(
        slug="NOTION_SEARCH_PAGES",
        toolkit="notion",
        weight=6,
        median_ms=480,
        failing=0.07,
        ask=lambda rng: {"query": _pick(rng)},
        answer=lambda rng: {"results": [{"title": _pick(rng), "id": f"{rng.getrandbits(128):032x}"}], "has_more": False},
    ),
    Tool(
        slug="HUBSPOT_CREATE_CONTACT",
        toolkit="hubspot",
        weight=5,
        median_ms=390,
        failing=0.1,
        ask=lambda rng: {"email": f"person{_number(rng)}@example.com", "lifecycle_stage": "lead"},
        answer=lambda rng: {"id": str(_number(rng)), "archived": False},
    ),
)
# An agent's slip of the pen: a slug that no session offers.
_MISSPELT: Final = (("GMAIL_SEND_MAIL", "gmail"), ("SLACK_POST_MESSAGE", "slack"))
_MISSPELT_SHARE: Final = 0.01


@dataclass(slots=True)
class _Session:
    id: str
    user_id: str
    framework: str
    language: str
    calls_left: int
    toolkits: list[str] = field(default_factory=list)


class Simulator:
    """A source of events; holds the sessions that are open."""

    def __init__(self, seed: int | None = None) -> None:
        """Start without sessions. Two with one seed, asked at the same times, give the same events; None is a fresh seed."""
        self._rng = random.Random(seed)  # noqa: S311 - made-up calls are no secret
        self._sessions: list[_Session] = []

    def next(self, now_ms: int) -> Json:
        """Return one event that ends at `now_ms`, ready for `POST /v1/events`."""
        rng = self._rng
        session = self._session()
        tool = rng.choices(_TOOLS, [tool.weight for tool in _TOOLS])[0]
        duration_ms = round(rng.lognormvariate(0, 0.45) * tool.median_ms, 1)
        event: Json = {
            "id": self._id("log_"),
            "tool_slug": tool.slug,
            "toolkit_slug": tool.toolkit,
            "user_id": session.user_id,
            "session_id": session.id,
            "connected_account_id": f"ca_{tool.toolkit}_{session.user_id}",
            "context": {"trace_id": f"{rng.getrandbits(128):032x}", "request_id": self._id("req_")},
            "source": {"framework": session.framework, "language": session.language, "host": "sdk"},
        }
        request, response = {"payload": tool.ask(rng)}, {"body": {"successful": True, "data": tool.answer(rng)}}
        fault = self._fault(tool)
        if rng.random() < _MISSPELT_SHARE:
            slug, toolkit = rng.choice(_MISSPELT)
            event |= {"tool_slug": slug, "toolkit_slug": toolkit}
            fault = Fault(weight=0, message=f"Tool not found: {slug}", code="ToolNotFound", duration_ms=4)
        if fault is not None:
            duration_ms = fault.duration_ms or round(duration_ms * 0.6, 1)
            error = {"message": fault.message, "code": fault.code, "type": fault.kind}
            event["error"] = {name: value for name, value in error.items() if value is not None}
            response = (
                {"body": fault.body} if fault.body is not None else {"body": {"successful": False, "error": fault.message}}
            )
        event |= {
            "status": "success" if fault is None else "failed",
            "duration_ms": duration_ms,
            "timestamp": now_ms - int(duration_ms),
            "data": {"request": request, "response": response},
        }
        return event

    def _fault(self, tool: Tool) -> Fault | None:
        if self._rng.random() >= tool.failing:
            return None
        faults = (*_FAULTS[tool.toolkit], *_COMMON)
        return self._rng.choices(faults, [fault.weight for fault in faults])[0]

    def _session(self) -> _Session:
        rng = self._rng
        if not self._sessions or (len(self._sessions) < _SESSIONS_OPEN_MAX and rng.random() < 0.1):
            framework, language = rng.choice(_FRAMEWORKS)
            calls = rng.randint(*_SESSION_CALLS)
            # A few users do most of the work, as everywhere.
            user = _USERS[min(int(rng.paretovariate(0.6)) - 1, len(_USERS) - 1)]
            self._sessions.append(_Session(self._id("trs_"), user, framework, language, calls))
        session = rng.choice(self._sessions)
        session.calls_left -= 1
        if session.calls_left <= 0:
            self._sessions.remove(session)
        return session

    def _id(self, prefix: str) -> str:
        return prefix + "".join(self._rng.choices(_ID_ALPHABET, k=12))
