"""The words the API's description (OpenAPI 3.1) is written with, and how its parts become one document. Pure.

Each service describes its own routes as a `Part`, with the limits of its code: ingest's in `ingest.contract.events_api`, the
query service's in `query_api.openapi`. The query service joins and serves them, so that the one address has one document, and
neither service imports the other.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

from ingest.contract.http_errors import ORG_KEY_HEADER, PROJECT_KEY_HEADER, REQUEST_ID_HEADER, slug_of

Json = dict[str, Any]
Key = Literal["project", "org"]

OPENAPI_VERSION: Final = "3.1.0"
JSON_TYPE: Final = "application/json"
COMPLETE_UNTIL_HEADER: Final = "x-complete-until"
# What curl lines say in place of an address and a key: the settings that the command line reads too.
ADDRESS: Final = "$TOOLLEDGER_URL"
_KEY_VARIABLES: Final = {"project": "$TOOLLEDGER_API_KEY", "org": "$TOOLLEDGER_ORG_API_KEY"}
_KEY_HEADERS: Final = {"project": PROJECT_KEY_HEADER, "org": ORG_KEY_HEADER}
_SCHEMES: Final = {"project": "ProjectKey", "org": "OrganizationKey"}
_LINE_CHARS_MAX: Final = 80
# Of every route, whatever it does: told once on the page.
COMMON_ERRORS: Final = (414, 431)
_PLACEHOLDER: Final = re.compile(r"{(\w+)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One request that works as it stands, and what it is answered; a test sends each.

    Args:
        title: what it asks, in a few words.
        path: values of the path's placeholders.
        query: parameters, in order.
        headers: beside the key.
        body: sent as JSON; text is sent as it is; None: no body.
        media: content type of the body.
        status, answer: what comes back; None: see `status` alone.
    """

    title: str
    path: Mapping[str, str] = field(default_factory=dict)
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    media: str = JSON_TYPE
    status: int = 200
    answer: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route.

    Args:
        name: `operationId`; unique.
        tag: where on the page it stands.
        summary: one line. description: Markdown; what the schemas cannot say.
        parameters: of path, query and header, as OpenAPI has them.
        body: schema by content type; none: it takes no body.
        answers: by status, as OpenAPI has them; `errors` of the same status are in addition.
        errors: statuses that are answered with the Error body.
        key: whose key it takes; None: it takes none.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    description: str
    answers: Mapping[int, Json]
    parameters: Sequence[Json] = ()
    body: Mapping[str, Json] = field(default_factory=dict)
    body_required: bool = False
    body_note: str = ""
    errors: Sequence[int] = ()
    key: Key | None = "project"
    examples: Sequence[Example] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Routes and schemas of one service, or of one topic of it."""

    tag: str
    tag_description: str
    operations: Sequence[Operation]
    schemas: Mapping[str, Json] = field(default_factory=dict)


def document(*, title: str, version: str, description: str, parts: Sequence[Part], headers: Mapping[str, Json]) -> Json:
    """Join parts into one OpenAPI document; operations in the order of the parts.

    Args:
        headers: headers of answers by component name, beside those every service sends.
    """
    schemas: Json = {"Error": ERROR_SCHEMA}
    paths: Json = {}
    for part in parts:
        assert not schemas.keys() & part.schemas.keys(), "a schema's name belongs to one part"
        schemas |= part.schemas
        for one in part.operations:
            methods = paths.setdefault(one.path, {})
            assert one.method.lower() not in methods, "a route is described once"
            methods[one.method.lower()] = _operation(one)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {"title": title, "version": version, "description": description, "license": LICENSE},
        # Wherever this document came from.
        "servers": [{"url": "/"}],
        "tags": [{"name": part.tag, "description": part.tag_description} for part in parts],
        "paths": paths,
        "components": {
            "securitySchemes": SECURITY_SCHEMES,
            "parameters": {"RequestId": REQUEST_ID_PARAMETER},
            "headers": {**HEADERS, **headers},
            "responses": {_error_name(status): _error_answer(status) for status in ERROR_TEXTS},
            "schemas": schemas,
        },
    }


def curl(one: Operation, example: Example) -> str:
    """Return the command line that sends an example, for a shell where the address and the key are variables."""
    url = ADDRESS + target(one, example)
    first = f'curl "{url}"' if one.method in ("GET", "POST") and (one.method == "GET") == (example.body is None) else ""
    lines = [first or f'curl -X {one.method} "{url}"']
    if one.key is not None:
        lines.append(f'-H "{_KEY_HEADERS[one.key]}: {_KEY_VARIABLES[one.key]}"')
    lines += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in example.headers.items()]
    if example.body is not None:
        lines.append(f"-H {shlex.quote(f'content-type: {example.media}')}")
        # `-d`, which everybody knows, leaves line breaks out: of JSON they may go.
        data = "-d" if example.media == JSON_TYPE else "--data-binary"
        lines.append(f"{data} {shlex.quote(sent(example))}")
    return " \\\n  ".join(lines)


def target(one: Operation, example: Example) -> str:
    """Return path and query of an example's URL."""
    path = _PLACEHOLDER.sub(lambda found: quote(example.path[found[1]], safe=""), one.path)
    return path + ("?" + urlencode(example.query, safe=":,") if example.query else "")


def sent(example: Example) -> str:
    """Return an example's body as it is sent."""
    return example.body if isinstance(example.body, str) else pretty(example.body)


def pretty(value: Any, indent: str = "") -> str:
    """Return JSON for people: what fits stays on one line, what does not has a line a member."""
    line = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(line) <= _LINE_CHARS_MAX or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        members = [f"{json.dumps(name, ensure_ascii=False)}: {pretty(one, inner)}" for name, one in value.items()]
    else:
        members = [pretty(one, inner) for one in value]
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return f"{begin}\n{inner}" + f",\n{inner}".join(members) + f"\n{indent}{end}"


def ref(name: str) -> Json:
    """Refer to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def answer(description: str, schema: Json | None = None, *, headers: Sequence[str] = (), media: str = JSON_TYPE) -> Json:
    """Describe an answer that is no error.

    Args:
        headers: names of header components beside the request id.
    """
    named = {name: {"$ref": f"#/components/headers/{component}"} for component, name in _named(("RequestId", *headers))}
    content = {} if schema is None else {"content": {media: {"schema": schema}}}
    return {"description": description, "headers": named, **content}


def parameter(name: str, schema: Json, description: str, *, place: str = "query", **more: Any) -> Json:
    """Describe a parameter; those of a path are required."""
    required = {"required": True} if place == "path" else {}
    return {"name": name, "in": place, "description": description, **required, "schema": schema, **more}


def record(members: Mapping[str, Json], *, optional: Sequence[str] = (), description: str = "") -> Json:
    """Describe an object whose members are all there, but for the optional ones."""
    required = [name for name in members if name not in optional]
    told = {"description": description} if description else {}
    return {"type": "object", **told, "properties": dict(members), **({"required": required} if required else {})}


def text(description: str, **more: Any) -> Json:
    """Describe a string."""
    return {"type": "string", "description": description, **more}


def whole(description: str, **more: Any) -> Json:
    """Describe a whole number."""
    return {"type": "integer", "description": description, **more}


def nullable(schema: Json) -> Json:
    """Allow null as well, which means the same as absent."""
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        words = {"enum": [*schema["enum"], None]} if "enum" in schema else {}
        return {**schema, "type": [*kinds, "null"], **words}
    told = {"description": schema["description"]} if "description" in schema else {}
    inner = {name: value for name, value in schema.items() if name != "description"}
    return (
        {**told, "anyOf": [*inner["anyOf"], {"type": "null"}]}
        if "anyOf" in inner
        else {**told, "anyOf": [inner, {"type": "null"}]}
    )


def _operation(one: Operation) -> Json:
    found: Json = {
        "operationId": one.name,
        "tags": [one.tag],
        "summary": one.summary,
        "description": one.description,
        "security": [] if one.key is None else [{_SCHEMES[one.key]: []}],
        "parameters": [*one.parameters, {"$ref": "#/components/parameters/RequestId"}],
    }
    if one.body:
        content = {media: {"schema": schema, **_request_examples(one, media)} for media, schema in one.body.items()}
        told = {"description": one.body_note} if one.body_note else {}
        found["requestBody"] = {**told, "required": one.body_required, "content": content}
    answers: Json = {}
    for status, described in one.answers.items():
        answers[str(status)] = _with_examples(described, [example for example in one.examples if example.status == status])
    for status in sorted({*one.errors, *COMMON_ERRORS} - set(one.answers)):
        answers[str(status)] = {"$ref": f"#/components/responses/{_error_name(status)}"}
    found["responses"] = answers
    found["x-codeSamples"] = [
        {"lang": "Shell", "label": example.title, "source": curl(one, example)} for example in one.examples
    ]
    return found


def _request_examples(one: Operation, media: str) -> Json:
    given = {
        _example_name(example): {"summary": example.title, "value": example.body}
        for example in one.examples
        if example.media == media and example.body is not None
    }
    return {"examples": given} if given else {}


def _with_examples(described: Json, examples: Sequence[Example]) -> Json:
    given = {_example_name(one): {"summary": one.title, "value": one.answer} for one in examples if one.answer is not None}
    if not given or "content" not in described:
        return described
    media, content = next(iter(described["content"].items()))
    return {**described, "content": {**described["content"], media: {**content, "examples": given}}}


def _example_name(example: Example) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", example.title).strip("_").lower()


def _named(components: Sequence[str]) -> list[tuple[str, str]]:
    return [(component, HEADER_NAMES[component]) for component in components]


def _error_name(status: int) -> str:
    return slug_of(status).removeprefix("HTTP_")


def _error_answer(status: int) -> Json:
    headers = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
    if status in (429, 503):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status in (500, 504):
        headers["x-should-retry"] = {"$ref": "#/components/headers/ShouldRetry"}
    return {"description": ERROR_TEXTS[status], "headers": headers, "content": {JSON_TYPE: {"schema": ref("Error")}}}


LICENSE: Final = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
SECURITY_SCHEMES: Final = {
    "ProjectKey": {
        "type": "apiKey",
        "in": "header",
        "name": PROJECT_KEY_HEADER,
        "description": "A project's key (`ak_...`), made with `toolledger keys create --project P`. All a request sees,"
        " counts or writes is that project's. A key's scope may be reading alone or sending events alone.",
    },
    "OrganizationKey": {
        "type": "apiKey",
        "in": "header",
        "name": ORG_KEY_HEADER,
        "description": "An organisation's key (`oak_...`), made with `toolledger keys create --org O`, for usage of all its"
        " projects.",
    },
}
REQUEST_ID_PARAMETER: Final = parameter(
    REQUEST_ID_HEADER,
    {"type": "string"},
    "An id of your own for this request, 1 to 128 characters of `A-Za-z0-9_.:/+=@-`. It comes back and stands in the service's"
    " log. Anything else is replaced by a fresh one.",
    place="header",
)
HEADER_NAMES: Final = {
    "RequestId": REQUEST_ID_HEADER,
    "CompleteUntil": COMPLETE_UNTIL_HEADER,
    "RetryAfter": "Retry-After",
    "ShouldRetry": "x-should-retry",
    "RateLimit": "X-RateLimit",
    "RateLimitRemaining": "X-RateLimit-Remaining",
    "RateLimitWindowSize": "X-RateLimit-Window-Size",
    "CacheControl": "cache-control",
}
HEADERS: Final = {
    "RequestId": {
        "description": "Names this request; the same as `error.request_id`, and as what was sent if that was sane.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.:/+=@-]{1,128}$"},
    },
    "RetryAfter": {
        "description": "Seconds to wait before trying again.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "ShouldRetry": {
        "description": "There where asking the same again is no use; official clients then do not.",
        "schema": {"type": "string", "const": "false"},
    },
}
ERROR_TEXTS: Final = {
    400: "Something in the request is wrong: `errors` has a line for each fault, `message` the first. Also a question that"
    " would cost too much (`Query_TooLarge`), with how to narrow it.",
    401: "No key, a wrong or revoked one, or more than one credential: exactly one is taken.",
    403: "The key is good, but not for this: what it may do, a project's where an organisation's is taken, or another project"
    " than `x-project-id` names.",
    404: "There is no such thing, or it is another project's: which of the two is not told.",
    408: "The body did not come in time.",
    413: "The body is larger than is taken; `message` names the limit.",
    414: "The URL with its headers is longer than is taken; `message` names the limit.",
    431: "The headers are longer than is taken; `message` names the limit.",
    415: "The content type or encoding is not understood.",
    429: "Too many requests, or too much in work at once. Beside the Error body the object has the flat `message` that the"
    " incumbent's clients read.",
    500: "A fault of the service; its log has it under the request id.",
    502: "The query service, or the upstream, broke off before it answered, or the upstream could not be reached.",
    503: "Something is away for now (ClickHouse, Kafka, keys not read yet, too many questions at once). Nothing was done;"
    " try again.",
    504: "The question took too long (`Query_TooSlow`, with how to narrow it), or no answer came in time.",
}
ERROR_SCHEMA: Final = {
    **record(
        {
            "error": record(
                {
                    "message": text("What was wrong and what to do, for people."),
                    "code": whole("10,000 + status."),
                    "slug": text(
                        "For programs: `HTTP_` and the status' name, as in `HTTP_Unauthorized`, or one of `Query_TooSlow`,"
                        " `Query_TooLarge`, `Query_TooManyAtOnce`, `Query_Failed`, `Query_Unavailable`, `Query_BrokeOff`,"
                        " `DeadLetter_NoEvent`, `Ingest_NothingAccepted`, `Ingest_KafkaUnavailable`, `Ingest_Starting`,"
                        " `Upstream_Unreachable`, `Upstream_BrokeOff`, `Upstream_TimedOut`, `Upstream_Interrupted`,"
                        " `Upstream_NoWebsockets`.",
                        pattern="^[A-Za-z]+_[A-Za-z]+$",
                    ),
                    "status": whole("The HTTP status.", minimum=400, maximum=599),
                    "request_id": text("The same as the header `x-request-id`; the service's log has it."),
                    "suggested_fix": text("One sentence."),
                    "errors": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "One line a fault, with its place: `Error in payload.filters.0.field: ...`.",
                    },
                },
                optional=("suggested_fix", "errors"),
            ),
            "message": text("With a 429 only: `error.message` again, where the incumbent's clients look for it."),
        },
        optional=("message",),
        description="What every answer of 400 and above holds, whichever service it comes from.",
    ),
    "example": {
        "error": {
            "message": "Validation error while processing request. Error in payload.limit: must be a whole number from 1 to"
            " 100, got 0",
            "code": 10400,
            "slug": "HTTP_BadRequest",
            "status": 400,
            "request_id": "req_5c1e2f3a4b00002a",
            "suggested_fix": "Please check the payload.",
            "errors": ["Error in payload.limit: must be a whole number from 1 to 100, got 0"],
        }
    },
}
