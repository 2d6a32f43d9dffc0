"""Hold every answer of a route against what `/openapi.json` says of it, and more strictly: no member beyond it."""

import copy
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs

from query_api.openapi.document import api

# Answered by each service in its own way; the document tells of ingest's.
MACHINES = ("/healthz", "/readyz", "/metrics")
# For people: files, which no document describes.
PAGE = "/"
PAGE_FILES = "/dashboard/"


def check(method: str, path: str, status: int, headers: Mapping[str, str], body: Any) -> None:
    """Fail if an answer is not as documented: its status, its headers, its body.

    Args:
        path: as sent, with or without a query.
        headers: found without regard to case.
        body: parsed JSON, None for any other.
    """
    path = path.partition("?")[0]
    if path in MACHINES or method == "HEAD" or path == PAGE or path.startswith(PAGE_FILES):
        return
    template = route_of(path)
    if template is None or method.lower() not in api()["paths"][template]:
        assert status in (404, 405), (method, path, status)
        assert _validator(None, status).is_valid(body), (method, path, body)
        return
    told = api()["paths"][template][method.lower()]["responses"].get(str(status))
    assert told is not None, f"{method} {template} does not tell of {status}: {body}"
    described = resolved(told)
    for name, given in described.get("headers", {}).items():
        _check_header(name, resolved(given), headers)
    if "application/json" not in described.get("content", {}):
        return
    assert headers["content-type"].partition(";")[0] == "application/json"
    faults = list(_validator((template, method.lower()), status).iter_errors(body))
    assert not faults, f"{method} {template} {status}: {faults[0].message} at {faults[0].instance_path}: {body}"


def route_of(path: str) -> str | None:
    """Return the documented path that takes a path: a literal one, else the one that says most of it."""
    if path in api()["paths"]:
        return path
    taking = [template for template in api()["paths"] if "{" in template and _pattern(template).fullmatch(path)]
    return max(taking, key=len, default=None)


def resolved(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference."""
    found: Any = given
    if "$ref" in given:
        found = api()
        for name in given["$ref"].removeprefix("#/").split("/"):
            found = found[name]
    return found


@lru_cache
def _pattern(template: str) -> re.Pattern[str]:
    # The id of a log may hold slashes.
    last = template.endswith("{id}")
    return re.compile(re.sub(r"\\{\w+\\}", ".+" if last else "[^/]+", re.escape(template)))


def _check_header(name: str, told: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    value = headers.get(name)
    if value is None:
        assert not told.get("required"), f"the header {name} is missing"
        return
    kind = told["schema"].get("type")
    typed: Any = int(value) if kind == "integer" else value
    jsonschema_rs.validate(told["schema"], typed, validate_formats=True)


@lru_cache
def _validator(operation: tuple[str, str] | None, status: int) -> jsonschema_rs.Draft202012Validator:
    schema: Any = {"$ref": "#/components/schemas/Error"}
    if operation is not None:
        template, method = operation
        described = resolved(api()["paths"][template][method]["responses"][str(status)])
        schema = described["content"]["application/json"]["schema"]
    whole = _closed({**copy.deepcopy(schema), "components": copy.deepcopy(api()["components"])})
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def _closed(schema: Any) -> Any:
    """Close every object that tells its members, but those that say they are open."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _closed(value) for name, value in schema.items()}
    if isinstance(found.get("properties"), dict) and "type" in found:
        found.setdefault("additionalProperties", False)
    return found
