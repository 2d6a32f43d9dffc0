"""From a call and how it ended to the event that the ledger keeps. Pure.

What the upstream says of a call is believed: its `log_id` becomes the event's id, its `successful` or `result_type` the status,
its error the error. Where it says nothing, the HTTP status decides.
"""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

import msgspec

from ingest.contract.event import DURATION_MS_MAX, IDENTIFIER_CHARS_MAX
from ingest.gateway.payloads import Body, clip, flag_of, kept, text_of
from ingest.gateway.routes import Execution

# Request and answer of one event, which may have a mebibyte together with all else.
PART_BYTES_MAX: Final = 448 * 1024
_ERROR_CHARS_MAX: Final = 4_000
# Credentials by what they are, whatever their members are called.
_CREDENTIALS: Final = ("custom_auth_params", "custom_connection_data")
_REDACTED: Final = msgspec.Raw(b'"[redacted]"')
_SOURCES: Final = frozenset({"sdk", "mcp", "api", "cli"})

_encode = msgspec.json.Encoder().encode

Trouble = Literal["unreachable", "timed_out", "broke_off", "interrupted"]
# What a failure without an answer is called in the log, as its type.
_TYPES: Final[Mapping[Trouble, str]] = {
    "unreachable": "upstream_unreachable",
    "timed_out": "upstream_timeout",
    "broke_off": "upstream_broke_off",
    "interrupted": "gateway_stopped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What is known of a call when it goes on.

    Args:
        execution: what its path says.
        project_id: where it is recorded.
        own_id: the id it gets where the upstream gives none.
        began_ms: epoch ms.
        request_id: of the request.
        headers: of the request, lower-case names.
        body: of the request.
        upstream: the address it goes to.
        user_of_session: the session's user, where that is known.
    """

    execution: Execution
    project_id: str
    own_id: str
    began_ms: int
    request_id: str
    headers: Mapping[bytes, bytes]
    body: Body
    upstream: str
    user_of_session: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended: with an answer, or with a trouble instead of one.

    Args:
        duration_ms: from the first byte sent to the last byte had.
        status: of the answer; 0 where there is none.
        body: of the answer.
        trouble: what came instead of an answer, or in the midst of it.
        message: says it in words.
        request_id: that the upstream's answer names; the caller sees it in place of ours.
        promised: the answer's head went out with the id of ours (`id_of`) before the end was known.
    """

    duration_ms: float
    status: int = 0
    body: Body = field(default_factory=lambda: Body(raw=b"", size=0))
    trouble: Trouble | None = None
    message: str = ""
    request_id: str = ""
    promised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What is to be recorded: the event, its id, and whether the upstream gave that."""

    id: str
    event: bytes
    from_upstream: bool


class _Judgement(msgspec.Struct, frozen=True, kw_only=True):
    failed: bool
    message: str = ""
    code: str = ""
    type: str = ""


def retry_id(project_id: str, idempotency_key: str, execution: Execution) -> str:
    """Return the id of a call that names itself by an `Idempotency-Key`: the same for each try of it."""
    seed = f"{project_id}\0{idempotency_key}\0{execution.tool_slug}\0{execution.session_id}\0gateway"
    return "log_" + urlsafe_b64encode(hashlib.sha256(seed.encode(errors="replace")).digest()[:9]).decode()


def record(call: Call, ending: Ending) -> Recording | None:
    """Return what to record of a call; None where no tool was named, or none was to run yet (it waits for the user's input)."""
    asked = call.body.members() or {}
    tool_slug = call.execution.tool_slug or text_of(asked.get("tool_slug")) or text_of(asked.get("slug"))
    answered = ending.body.members() if ending.status else None
    if not tool_slug or (answered is not None and text_of(answered.get("result_type")) == "input_required"):
        return None
    judged = _judge(ending, answered)
    given = "" if answered is None else _header_safe(_identifier(text_of(answered.get("log_id"))))
    event_id = given or id_of(call, ending.status, None if ending.promised else ending.trouble)
    request, request_cut = kept(_without_credentials(call.body, asked), bytes_max=PART_BYTES_MAX)
    response, response_cut = kept(ending.body, bytes_max=PART_BYTES_MAX) if ending.status else (msgspec.Raw(b"null"), False)
    gateway: dict[str, Any] = {"upstream": call.upstream, "status": ending.status or None}
    if cut := [name for name, is_cut in (("request", request_cut), ("response", response_cut)) if is_cut]:
        gateway["truncated"] = cut
    user = text_of(asked.get("user_id")) or text_of(asked.get("entity_id")) or call.user_of_session
    members: dict[str, Any] = {
        "id": event_id,
        "timestamp": call.began_ms,
        "tool_slug": clip(tool_slug, IDENTIFIER_CHARS_MAX),
        "status": "failed" if judged.failed else "success",
        "duration_ms": min(round(ending.duration_ms, 3), DURATION_MS_MAX),
        "user_id": _identifier(user),
        "session_id": _identifier(call.execution.session_id),
        "connected_account_id": _identifier(text_of(asked.get("connected_account_id"))),
        "error": _error(judged) if judged.failed else None,
        "context": _present(request_id=_identifier(ending.request_id or call.request_id), trace_id=_trace_id(call.headers)),
        "source": _source(call.headers),
        "metadata": {"gateway": gateway} | _told(asked, answered or {}),
        "data": {"request": request, "response": response},
    }
    event = _encode({name: value for name, value in members.items() if value not in ("", None)})
    return Recording(id=event_id, event=event, from_upstream=bool(given))


def without_payload(recording: Recording, why: str) -> bytes:
    """Return the event without request and answer, for one that was refused with them."""
    members = msgspec.json.decode(recording.event, type=dict[str, msgspec.Raw])
    members["data"] = msgspec.Raw(_encode({"note": f"not kept: {why}"}))
    return _encode(members)


def id_of(call: Call, status: int, trouble: Trouble | None = None) -> str:
    """Return the id of ours: the call's own where it ran, one beside it where it came to nothing.

    A try that failed on the way and the next, with the same `Idempotency-Key`, that did not, are two things that happened: with
    one id the first would stand for both.
    """
    if 0 < status < 300 and trouble is None:
        return call.own_id
    digest = hashlib.sha256(f"{call.own_id}\0{trouble or status}".encode()).digest()
    return "log_" + urlsafe_b64encode(digest[:9]).decode()


def _judge(ending: Ending, answered: Mapping[str, msgspec.Raw] | None) -> _Judgement:
    if ending.trouble is not None:
        code = "504" if ending.trouble == "timed_out" else ""
        return _Judgement(failed=True, message=ending.message, code=code, type=_TYPES[ending.trouble])
    if ending.status >= 300:
        return _refused(ending, answered or {})
    if answered is not None:
        return _said(answered)
    if ending.body.json and ending.body.whole and not ending.body.unread and ending.body.raw.strip():
        message = f"the upstream's answer (HTTP {ending.status}) is no JSON object"
        return _Judgement(failed=True, message=message, type="unreadable_answer")
    return _Judgement(failed=False)


def _said(answered: Mapping[str, msgspec.Raw]) -> _Judgement:
    """Judge by what the answer says of the tool."""
    result = text_of(answered.get("result_type"))
    if result == "blocked":
        reason = _members(answered.get("reason"))
        message = text_of(answered.get("message")) or "a session hook stopped the call"
        return _Judgement(failed=True, message=message, type=text_of(reason.get("type")) or "blocked")
    said = _error_members(answered.get("error"))
    successful = flag_of(answered.get("successful"))
    if successful is None:
        successful = {"completed": True, "failed": False}.get(result, not any(said))
    if successful:
        return _Judgement(failed=False)
    message, code, kind = said
    data = _members(answered.get("data"))
    message = message or text_of(data.get("message")) or text_of(data.get("error")) or "the tool failed without saying why"
    return _Judgement(failed=True, message=message, code=code or text_of(data.get("status_code")), type=kind)


def _refused(ending: Ending, answered: Mapping[str, msgspec.Raw]) -> _Judgement:
    """Judge an answer of 300 and above; the code is its HTTP status, by which failures are told apart."""
    message, _, kind = _error_members(answered.get("error"))
    for name in ("message", "detail"):
        message = message or text_of(answered.get(name))
    if not message and not answered and not ending.body.json and not ending.body.unread:
        message = " ".join(ending.body.raw[:_ERROR_CHARS_MAX].decode(errors="replace").split())
    try:
        phrase = HTTPStatus(ending.status).phrase
    except ValueError:
        phrase = "an unknown status"
    if ending.status < 400:
        message, kind = f"the upstream answered with a redirect ({ending.status} {phrase}), which is not followed", "redirect"
    return _Judgement(failed=True, message=message or f"{ending.status} {phrase}", code=str(ending.status), type=kind)


def _error_members(raw: msgspec.Raw | None) -> tuple[str, str, str]:
    """Return message, code and type of an error, whether a text or an object."""
    if text := text_of(raw):
        return text, "", ""
    error = _members(raw)
    kind = text_of(error.get("slug")) or text_of(error.get("type")) or text_of(error.get("name"))
    return text_of(error.get("message")), text_of(error.get("code")), kind


def _error(judged: _Judgement) -> dict[str, str]:
    return _present(
        message=clip(judged.message, _ERROR_CHARS_MAX),
        code=clip(judged.code, IDENTIFIER_CHARS_MAX),
        type=clip(judged.type, IDENTIFIER_CHARS_MAX),
    )


def _members(raw: msgspec.Raw | None) -> Mapping[str, msgspec.Raw]:
    return {} if raw is None else Body(raw=bytes(raw), size=0).members() or {}


def _without_credentials(body: Body, asked: Mapping[str, msgspec.Raw]) -> Body:
    if not asked and any(name.encode() in body.raw for name in _CREDENTIALS):
        # They show by their place alone, which what is no JSON object does not have.
        return Body(raw=b"", size=body.size, unread="it is no JSON object and may hold credentials")
    if not any(name in asked for name in _CREDENTIALS):
        return body
    return Body(raw=_encode({**asked, **{name: _REDACTED for name in _CREDENTIALS if name in asked}}), size=body.size)


def _told(asked: Mapping[str, msgspec.Raw], answered: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    """Return what calls and answers say beside the rest that a log has a place for."""
    charge = answered.get("instant_charge")
    return _present(
        tool_version=_identifier(text_of(asked.get("version"))),
        account=_identifier(text_of(asked.get("account"))),
        instant_charge=_identifier(text_of(charge) or text_of(_members(charge).get("amount"))),
    )


def _source(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """Tell where a call came from by what official clients say of themselves."""

    def header(*names: bytes) -> str:
        return next((headers[name].decode("latin-1").strip() for name in names if headers.get(name)), "")

    said = header(b"x-source").lower()
    library = header(b"x-client-library", b"x-sdk-version", b"x-stainless-lang")
    host = said if said in _SOURCES else "sdk" if library or "sdk" in said else "api"
    language = header(b"x-client-language", b"x-stainless-lang").lower()
    agent = header(b"user-agent")
    if not language and agent.startswith("Composio/"):
        language = {"JS": "javascript", "Python": "python"}.get(agent[len("Composio/") :].split(" ")[0], "")
    return _present(host=host, framework=_identifier(header(b"x-framework")), language=_identifier(language))


def _present(**members: str) -> dict[str, str]:
    return {name: value for name, value in members.items() if value}


def _header_safe(text: str) -> str:
    """Return an id that a header can hold; one with control characters, or of spaces alone, is none."""
    return text if text.isprintable() and text.strip() == text else ""


def _trace_id(headers: Mapping[bytes, bytes]) -> str:
    # W3C Trace Context: version-traceid-parentid-flags.
    parts = headers.get(b"traceparent", b"").decode("latin-1").strip().split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 and parts[1].isalnum() else ""


def _identifier(text: str) -> str:
    """Return an identifier that fits; a longer one is none of ours to cut, because it would name something else."""
    return text if len(text) <= IDENTIFIER_CHARS_MAX else ""
