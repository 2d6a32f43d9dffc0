"""What the code reads of a request is what the document tells: no parameter, member or word more or less."""

import re

import pytest
import pytest_asyncio

from query_api.http import members
from query_api.http.app import OPERATIONS
from query_api.openapi.document import PARTS, api
from tests.support import rows
from tests.support.api_answers import resolved
from tests.support.query_service import KEY_A, KEY_ORG, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

DESCRIBED = {(one.method, one.path): one for part in PARTS for one in part.operations}
BODIES = [one for one in OPERATIONS if one.method == "POST" and "/v1/" not in one.path]
QUERIES = [one for one in OPERATIONS if "/v1/" in one.path]
# Read of any body whatever it holds, or on purpose not at all.
IGNORED = {"project": {"filters.project_id"}, "org": set()}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        async with query_service(url) as running:
            yield running


class Read(dict):
    """A JSON object that notes which of its members are looked at."""

    def __init__(self, given, names, prefix=""):
        super().__init__({name: self._watched(value, names, f"{prefix}{name}") for name, value in given.items()})
        self._names, self._prefix = names, prefix

    def get(self, name, default=None):
        self._names.add(self._prefix + name)
        return super().get(name, default)

    @staticmethod
    def _watched(value, names, path):
        if isinstance(value, list):
            return [Read(one, names, f"{path}.") if isinstance(one, dict) else one for one in value]
        return Read(value, names, f"{path}.") if isinstance(value, dict) else value


def told(schema, prefix=""):
    """The members of a schema, those of inner objects by their path; and a body that has all inner objects."""
    found = resolved(schema)
    names, body = set(), {}
    for name, one in found.get("properties", {}).items():
        names.add(prefix + name)
        inner = resolved(one)
        within, value = told(inner.get("items", inner), f"{prefix}{name}.")
        names |= within
        if within:
            body[name] = [value] if "items" in inner else value
        elif prefix and (given := sample(inner)) is not None:
            body[name] = given
    return names, body


def sample(schema):
    """A value that an inner object may have there, None where it may stay away."""
    kinds = schema.get("type", [])
    if "enum" in schema:
        return schema["enum"][0]
    return "x" if "string" in kinds else 1 if "number" in kinds else None


@pytest.mark.parametrize("operation", BODIES, ids=lambda one: one.path)
async def test_the_members_that_are_read_are_those_that_are_told(service, monkeypatch, operation):
    """Of the body and of each object in it."""
    described = DESCRIBED[operation.method, operation.path]
    expected, body = told(described.body["application/json"])
    read = set()
    real = members.json_object
    monkeypatch.setattr(members, "json_object", lambda raw, faults: Read(real(raw, faults), read))
    key = KEY_ORG if operation.key == "org" else KEY_A
    await service.post(operation.path.replace("{entity_type}", "tool_calls"), body, key=key)
    assert read == expected - IGNORED[operation.key]


@pytest.mark.parametrize("operation", QUERIES, ids=lambda one: f"{one.method} {one.path}")
async def test_the_parameters_that_are_known_are_those_that_are_told(service, operation):
    """An unknown one is refused with a list of the known: that list, in the document."""
    reply = await service.request(operation.method, operation.path.replace("{id}", "x") + "?nonsense=1", key=KEY_A)
    assert reply.status == 400, reply.body
    (line,) = reply.body["error"]["errors"]
    known = re.fullmatch(r"Error in query.nonsense: unknown parameter; (?:known are (.*)|none is taken here)", line)
    assert known, line
    described = DESCRIBED[operation.method, operation.path]
    names = {one["name"] for one in described.parameters if one["in"] == "query"}
    assert names == {name for name in (known[1] or "").split(", ") if name}


async def test_words_and_bounds_are_those_of_the_code(service):
    """Every enumeration of a parameter takes each of its words and no other; every bound holds on both sides."""
    for one in QUERIES:
        described = DESCRIBED[one.method, one.path]
        for given in described.parameters:
            schema = given["schema"]
            if given["in"] != "query" or one.method != "GET" or one.path.endswith("/stream"):
                continue
            right = [*schema.get("enum", ()), *schema.get("items", {}).get("enum", ())]
            wrong = ["nonsense"] if right else []
            for bound, beyond in (("minimum", -1), ("maximum", 1)):
                if bound in schema:
                    right.append(schema[bound])
                    wrong.append(schema[bound] + beyond)
            for value, status in (*((value, 200) for value in right), *((value, 400) for value in wrong)):
                reply = await service.get(one.path.replace("{id}", "x"), {given["name"]: str(value)})
                assert reply.status == status, (one.path, given["name"], value, reply.body)


async def test_fields_and_operators_of_log_filters_are_those_of_the_code(service):
    """Each pair is taken."""
    schema = api()["components"]["schemas"]["LogFilter"]["properties"]
    pairs = [(field, operator) for field in schema["field"]["enum"] for operator in schema["operator"]["enum"]]
    for field, operator in pairs:
        reply = await service.logs({"filters": [{"field": field, "operator": operator, "value": "x"}]})
        assert reply.status == 200, reply.body
