"""The document tells of every route there is, and the page shows all of the document without asking anybody for anything."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import jsonschema_rs
import pytest

from ingest.contract import events_api, traces_api
from ingest.contract.gateway_api import GATEWAY
from ingest.contract.openapi import curl, pretty, sent, target
from ingest.contract.own_routes import is_own
from ingest.gateway.routes import execution_of
from ingest.http.app import IngestApp
from ingest.http.health import HealthRoutes
from query_api.http.app import OPERATIONS
from query_api.openapi import page_routes
from query_api.openapi.document import PARTS, api
from query_api.openapi.page import POLICY, STYLE, page
from query_api.openapi.page import _text as render

ROOT = Path(__file__).parents[2]
DOCUMENT = api()
DESCRIBED = [one for part in PARTS for one in part.operations]
PAGE = page(DOCUMENT)


def references(value):
    if isinstance(value, dict):
        yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from references(one)


def test_the_document_tells_of_every_route_and_of_no_other():
    """A route without a description, and a description without a route, both fail."""
    served = {(one.method, one.path.replace(":path", ""), one.key) for one in OPERATIONS}
    app = IngestApp(events=None, traces=None, health=HealthRoutes(control=None, publisher=None), forwarder=None)
    ingest = {path: methods for path, (methods, _) in app._routes.items()}
    own = {(page_routes.DOCUMENT, None), (page_routes.PAGE, None)}
    gateway = {one.path for one in GATEWAY.operations}
    elsewhere = ingest.keys() | gateway
    told = {
        (one.method, one.path, one.key) for one in DESCRIBED if one.path not in elsewhere and (one.path, one.key) not in own
    }
    for path in gateway:
        filled = path.format(tool_slug="A", session_id="s")
        assert execution_of("POST", filled.encode()) is not None
        assert not is_own(filled)
    assert told == served
    of_ingest = {
        one.path: one.method for part in (events_api.EVENTS, traces_api.TRACES, events_api.MACHINES) for one in part.operations
    }
    assert of_ingest.keys() == ingest.keys()
    assert all(method in ingest[path] for path, method in of_ingest.items())
    assert own == {(one.path, one.key) for one in page_routes.DESCRIPTIONS.operations}


def test_every_schema_is_one_and_every_reference_leads_somewhere():
    """Schemas are valid JSON Schema 2020-12, names are unique, references resolve."""
    for name in references(DOCUMENT):
        found = DOCUMENT
        for part in name.removeprefix("#/").split("/"):
            found = found[part]
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        jsonschema_rs.Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    names = [one.name for one in DESCRIBED]
    assert len(set(names)) == len(names)
    assert {tag["name"] for tag in DOCUMENT["tags"]} == {one.tag for one in DESCRIBED}
    for one in DESCRIBED:
        placeholders = set(re.findall(r"{(\w+)}", one.path))
        assert placeholders == {given["name"] for given in one.parameters if given["in"] == "path"}


@pytest.mark.parametrize("operation", DESCRIBED, ids=lambda one: one.name)
def test_examples_are_what_the_schemas_say(operation):
    """Bodies and answers of examples fit their schemas; each operation has one."""
    assert operation.examples
    for example in operation.examples:
        told = operation.answers.get(example.status, {})
        assert told or example.status in operation.errors
        for schema, value in (
            (operation.body.get(example.media), example.body),
            (next(iter(told.get("content", {}).values()), {}).get("schema"), example.answer),
        ):
            if value is not None:
                whole = {**(schema or {}), "components": DOCUMENT["components"]}
                jsonschema_rs.validate(whole, value, validate_formats=True)


def test_every_slug_of_the_code_is_told():
    """A program may go by each."""
    sources = [path.read_text() for folder in ("ingest", "query_api") for path in (ROOT / folder).rglob("*.py")]
    used = {
        slug for text in sources for slug in re.findall(r'"((?:Query|Ingest|DeadLetter|Export|Logs|Upstream)_[A-Z]\w+)"', text)
    }
    told = DOCUMENT["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["slug"]["description"]
    assert "Query_TooSlow" in used
    assert used == set(re.findall(r"`([A-Z][a-z]\w*_\w+)`", told)) - {"HTTP_Unauthorized"}


@pytest.mark.parametrize(
    "choice",
    [
        "Ranges are half-open everywhere",
        "equal is empty",
        "Newest first by timestamp, then by id descending: a total order",
        "Absent, null and the empty string are one thing",
        "so that == and != part the logs in two",
        "Nobody is not an active user",
        "== and != are exact. contains and not_contains look for a substring without regard to case (Unicode)",
        "no character is a wildcard",
        "All must hold. Fields may repeat",
        'contains "" matches all',
        "A whole number is taken in any spelling (100.0); 2.5 is not",
        "Unknown members are ignored on the routes under /api, and tolerated in events",
        "An unknown parameter under /v1 is a 400",
        "error of a failed call, else info",
        "TOOL failed: <error message>",
        "and nested tool.slug and toolkit.slug",
        "A session is created at its first call in the project (smallest timestamp, then id)",
        "sessions add up over groups and days",
        "Each entity asked for, zeros included",
        "Ties go by key, ascending",
        "the totals are of everything",
        "within 1 % of a duration that exists; null without a call",
        "an IANA name, as Europe/Berlin; an unknown one is a 400",
        "From 2015-01-01 to 24 hours ahead",
        "never guessed",
        "gets them from its place in the log, the same after any replay",
        "the longest known prefix of the tool slug, else what stands before its first underscore",
        "byte for byte as sent, but for secrets",
        "has the flat message that the incumbent's clients read",
        "the same id counts once, and the first one accepted wins",
        "One that differs from the key's project is refused",
        "Unless the deployment sets a limit there is none, and the headers stay as they are",
        "At most 366 days",
    ],
)
def test_each_choice_where_the_contract_is_silent_stands_on_the_page(choice):
    """In words that a search finds."""
    text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", PAGE.replace("<wbr>", ""))).split())
    assert choice in text


def test_the_page_holds_everything():
    """Each operation, parameter, member of a body and example stands on the page, ready to be copied."""
    text = html.unescape(PAGE)
    for one in DESCRIBED:
        assert f'<article id="{one.name}">' in PAGE
        assert one.summary in text
        for given in one.parameters:
            assert f"<code>{given['name']}</code>" in PAGE
            assert render(given["description"]) in PAGE
        for example in one.examples:
            assert f'<pre tabindex="0">{curl(one, example)}</pre>' in text
            if example.answer is not None:
                assert pretty(example.answer) in text
                assert json.loads(pretty(example.answer)) == json.loads(json.dumps(example.answer))
    for schema in DOCUMENT["components"]["schemas"].values():
        for name in schema.get("properties", {}):
            assert f"<code>{name}</code>" in PAGE


def test_the_page_asks_nobody_for_anything():
    """No script, no image, no address but its own; its style is the one that the policy names by hash."""
    assert not re.search(r"<(script|img|link|iframe|object|embed|form|base)\b|\bon\w+=|\bstyle=|javascript:", PAGE)
    assert set(re.findall(r'(?:href|src|action)="?([^"> ]+)', PAGE)) - {"openapi.json"} == {
        f"#{name}" for name in re.findall(r'href="?#([^"> ]+)', PAGE)
    }
    for name in re.findall(r'href="?#([^"> ]+)', PAGE):
        assert f'id="{name}"' in PAGE, f"a link to {name} leads nowhere"
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert f"<style>{STYLE}</style>" in PAGE
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    assert POLICY.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert "unsafe" not in POLICY


def test_a_command_line_quotes_what_a_shell_would_read():
    """A quote in a body does not end the argument; a path's value is percent-encoded as one segment."""
    post = next(one for one in DESCRIBED if one.name == "postLogsToolExecution")
    example = post.examples[0]
    quoted = type(example)(title="t", body={"filters": [{"value": "it's $HOME"}]})
    assert """'{"filters": [{"value": "it'"'"'s $HOME"}]}'""" in curl(post, quoted)
    assert json.loads(sent(quoted)) == quoted.body
    detail = next(one for one in DESCRIBED if one.name == "getLogsToolExecutionById")
    assert target(detail, type(example)(title="t", path={"id": "log/a b?c"})).endswith("/log%2Fa%20b%3Fc")
