"""The API page: the OpenAPI document as one HTML page, for people. Pure.

Made here rather than by a script in the browser: it is there at once, reads without JavaScript, prints, can be searched as a
whole, and asks nobody for anything, so that its Content-Security-Policy allows nothing but its own style sheet.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any, Final

from markdown_it import MarkdownIt

from ingest.contract.openapi import COMMON_ERRORS, pretty

Json = Mapping[str, Any]

STYLE: Final = files(__package__).joinpath("page.css").read_text()
_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
# Nothing is loaded, run, sent or framed; the style is this one, by its hash.
POLICY: Final = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

# Raw HTML in a description is shown, not obeyed.
_markdown = MarkdownIt("commonmark", {"html": False})
_COMMON: Final = frozenset(str(status) for status in COMMON_ERRORS)
# Deeper members are told by their type alone.
_DEPTH_MAX: Final = 6


def page(document: Json) -> str:
    """Return the page of a document."""
    info = document["info"]
    tags = [tag["name"] for tag in document["tags"]]
    operations = [
        (path, method, one)
        for path, methods in document["paths"].items()
        for method, one in methods.items()
        if isinstance(one, dict)
    ]
    by_tag = {tag: [each for each in operations if tag in each[2]["tags"]] for tag in tags}
    navigation = "".join(_navigation(tag, by_tag[tag]) for tag in tags)
    body = "".join(
        f'<section id="{_anchor(tag["name"])}"><h2>{escape(tag["name"])}</h2>{_text(tag["description"])}'
        + "".join(_operation(document, *each) for each in by_tag[tag["name"]])
        + "</section>"
        for tag in document["tags"]
    )
    errors = _errors(document)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(info["title"])}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<style>{STYLE}</style></head>\n<body><nav><details open><summary>{escape(info['title'])}</summary>"
        f'<ul><li><a href="#start">Start here</a></li><li><a href="#errors">Errors</a></li></ul>{navigation}'
        f'<ul><li><a href="openapi.json">openapi.json</a></li></ul></details></nav>\n<main><section id="start">'
        f"<h1>{escape(info['title'])}</h1><p class=quiet>version {escape(info['version'])}, "
        f"OpenAPI {escape(document['openapi'])}</p>{_text(info['description'])}</section>{errors}{body}</main></body></html>\n"
    )


def _navigation(tag: str, operations: Iterable[tuple[str, str, Json]]) -> str:
    items = "".join(
        f'<li><a href="#{escape(one["operationId"])}">{_method(method)}{escape(one["summary"])}</a></li>'
        for _, method, one in operations
    )
    return f'<h2><a href="#{_anchor(tag)}">{escape(tag)}</a></h2><ul>{items}</ul>'


def _operation(document: Json, path: str, method: str, one: Json) -> str:
    name = escape(one["operationId"])
    schemes = [scheme for given in one["security"] for scheme in given]
    keys = " or ".join(f"<code>{escape(document['components']['securitySchemes'][each]['name'])}</code>" for each in schemes)
    parts = [
        f'<article id="{name}"><h3><a href="#{name}">{escape(one["summary"])}</a></h3>',
        f"<p class=route>{_method(method)}<code>{_breakable(path)}</code></p>{_text(one['description'])}",
        f"<p class=quiet>{f'Key in {keys}' if keys else 'No key'}</p>",
    ]
    parts += [
        f'<h4>{escape(sample["label"])}</h4><pre tabindex="0">{escape(sample["source"])}</pre>{_answered(one, sample["label"])}'
        for sample in one["x-codeSamples"]
    ]
    for title, place in (("In the path", "path"), ("Parameters", "query"), ("Headers", "header")):
        # Those that every route takes are told once, at the start.
        listed = [each for each in one["parameters"] if each.get("in") == place]
        if listed:
            parts.append(f"<h4>{title}</h4><dl>{''.join(_parameter(document, each) for each in listed)}</dl>")
    body = one.get("requestBody")
    if body is not None:
        parts.append(f"<h4>Body</h4>{_text(body.get('description', ''))}{_content(document, body['content'])}")
    answers = "".join(_answer(document, *each) for each in one["responses"].items() if each[0] not in _COMMON)
    parts.append(f"<h4>Answers</h4>{answers}</article>")
    return "".join(parts)


def _parameter(document: Json, one: Json) -> str:
    needed = " <b>required</b>" if one.get("required") and one["in"] != "path" else ""
    kind = _kind(document, one["schema"])
    return f"<dt><code>{escape(one['name'])}</code> <i>{kind}</i>{needed}</dt><dd>{_text(one['description'])}</dd>"


def _content(document: Json, content: Json) -> str:
    return "".join(
        f"<p class=quiet>{escape(media)}: {_kind(document, given['schema'])}</p>{_text(given['schema'].get('description', ''))}"
        f"{_members(document, given['schema'], 0)}"
        for media, given in content.items()
    )


def _answer(document: Json, status: str, given: Json) -> str:
    found = _resolved(document, given)
    content = found.get("content", {})
    error = "$ref" in given
    shape = " <a href=#errors>Error body</a>" if error else ""
    line = f"<b>{escape(status)}</b> {_inline(found['description'])}{shape}"
    if error or not content:
        return f"<p class=answer>{line}</p>"
    headers = ", ".join(f"<code>{escape(name)}</code>" for name in found.get("headers", {}))
    inside = f"{_content(document, content)}<p class=quiet>headers: {headers}</p>"
    return f"<details class=answer><summary>{line}</summary>{inside}</details>"


def _answered(one: Json, label: str) -> str:
    """Return the answer of an example, where the document has it."""
    for status, given in one["responses"].items():
        for content in given.get("content", {}).values():
            for example in content.get("examples", {}).values():
                if example["summary"] == label:
                    told = pretty(example["value"])
                    return f'<p class=quiet>answers {escape(status)}</p><pre tabindex="0">{escape(told)}</pre>'
    return ""


def _errors(document: Json) -> str:
    schema = document["components"]["schemas"]["Error"]
    example = pretty(schema["example"])
    texts = "".join(
        f"<p class=answer><b>{escape(status)}</b> {_inline(text)}</p>"
        for status, text in sorted(_error_texts(document).items())
    )
    shown = f'{_members(document, schema, 0)}<pre tabindex="0">{escape(example)}</pre>'
    return f'<section id="errors"><h2>Errors</h2>{_text(schema["description"])}{texts}{shown}</section>'


def _error_texts(document: Json) -> dict[str, str]:
    found = {}
    for methods in document["paths"].values():
        for one in methods.values():
            for status, given in one["responses"].items():
                if "$ref" in given:
                    found[status] = _resolved(document, given)["description"]
    return found


def _members(document: Json, schema: Json, depth: int) -> str:
    """Return the members of an object, or of the objects an array or a choice holds."""
    found = _resolved(document, schema)
    if "anyOf" in found:
        return "".join(
            _members(document, one, depth) for one in found["anyOf"] if "array" not in _types(_resolved(document, one))
        )
    if "items" in found:
        return _members(document, found["items"], depth)
    members = found.get("properties")
    if not members or depth > _DEPTH_MAX:
        return ""
    required = found.get("required", ())
    rows = []
    for name, one in members.items():
        told = _resolved(document, one)
        optional = "" if name in required else "<i>, optional</i>"
        rows.append(
            f"<dt><code>{escape(name)}</code> <i>{_kind(document, one)}</i>{optional}</dt>"
            f"<dd>{_text(one.get('description', told.get('description', '')))}{_members(document, one, depth + 1)}</dd>"
        )
    return f"<dl>{''.join(rows)}</dl>"


def _kind(document: Json, schema: Json) -> str:
    """Return what a value is, in a few words."""
    found = _resolved(document, schema)
    if "anyOf" in found:
        return " or ".join(dict.fromkeys(_kind(document, one) for one in found["anyOf"]))
    words = []
    if "const" in found:
        words.append(f"<code>{escape(json.dumps(found['const']))}</code>")
    elif "enum" in found:
        words.append("one of " + ", ".join(f"<code>{escape(json.dumps(one))}</code>" for one in found["enum"]))
    elif "array" in _types(found):
        null = " or null" if "null" in _types(found) else ""
        words.append(f"array of {_kind(document, found['items'])}{null}" if "items" in found else "array")
    else:
        words.append(" or ".join(_types(found)) or "anything")
    low, high = found.get("minimum"), found.get("maximum")
    if low is not None and high is not None:
        words.append(f"{low:,} to {high:,}")
    elif low is not None:
        words.append(f"at least {low:,}")
    for name, text in (("maxLength", "at most {:,} characters"), ("maxItems", "at most {:,}")):
        if name in found:
            words.append(text.format(found[name]))
    if "format" in found:
        words.append(escape(found["format"]))
    if "default" in found:
        words.append(f"default <code>{escape(json.dumps(found['default']))}</code>")
    return ", ".join(words)


def _types(schema: Json) -> list[str]:
    given = schema.get("type", [])
    return [given] if isinstance(given, str) else list(given)


def _resolved(document: Json, given: Json) -> Json:
    """Follow a reference within the document."""
    while "$ref" in given:
        found: Any = document
        for name in given["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        given = found
    return given


@lru_cache(maxsize=1024)
def _text(markdown: str) -> str:
    return str(_markdown.render(markdown)) if markdown else ""


def _inline(markdown: str) -> str:
    return str(_markdown.renderInline(markdown))


def _method(method: str) -> str:
    return f'<span class="method {escape(method.lower())}">{escape(method.upper())}</span> '


def _breakable(path: str) -> str:
    """Let a long path break behind its slashes, on a narrow screen."""
    return escape(path).replace("/", "/<wbr>")


def _anchor(tag: str) -> str:
    return escape(tag.lower().replace(" ", "-").replace(",", ""))
