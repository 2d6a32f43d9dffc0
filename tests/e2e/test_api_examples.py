"""The API page keeps its word: every example runs against a running stack, as a request and as the command line on the page."""

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer

from ingest.contract.openapi import curl, sent, target
from ingest.contract.topics import HEADER_PROJECT, TOOL_EXECUTIONS
from query_api.openapi.document import PARTS
from query_api.openapi.letters import EXAMPLE_ID
from tests.support import api_answers, schemathesis
from tests.support.pipeline import eventually
from tests.support.plain_http import HTTP
from tests.support.stack import Stack
from tests.support.tool_upstream import says_json, tool_upstream_in_thread

pytestmark = [pytest.mark.real, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]

EXAMPLES = [(one, example) for part in PARTS for one in part.operations for example in one.examples]
KEYS = {"project": "x-api-key", "org": "x-org-api-key"}
# What no two runs have in common.
VOLATILE = {"complete_until", "request_id"}


class Running:
    """A stack with a project of an organisation, the example's events in it, and a dead letter."""

    def __init__(self, stack: Stack, org_key: str) -> None:
        self.stack = stack
        self.url = stack.up.ready["url"]
        self.keys = {"project": stack.key, "org": org_key}
        self.letter = ""

    def send(self, one: Any, example: Any) -> httpx.Response:
        headers = dict(example.headers)
        if one.key is not None:
            headers[KEYS[one.key]] = self.keys[one.key]
        content = None
        if example.body is not None:
            headers["content-type"] = example.media
            content = sent(example).encode()
        url = self.url + target(one, example).replace(EXAMPLE_ID, self.letter)
        return HTTP.request(one.method, url, headers=headers, content=content, timeout=60)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # What the examples of running tools are answered.
    ran = {"data": {}, "error": None, "successful": True, "log_id": "log_7fKq2mYdX0aB"}
    with tool_upstream_in_thread(says_json(ran)) as upstream:
        made = Stack(Path(tmp_path_factory.mktemp("stack")), env={"TOOLLEDGER_UPSTREAM": upstream.url})
        made.start()
        yield made
        made.stop()


@pytest.fixture(scope="module")
def keys(stack: Stack) -> str:
    """Make the project's key and return the organisation's."""
    made = json.loads(stack.toolledger("keys", "create", "--project", "acme", "--org", "org_1", "--json"))["key"]
    stack.key = made
    org_key = json.loads(stack.toolledger("keys", "create", "--org", "org_1", "--json"))["key"]
    ask = {"x-org-api-key": org_key}
    url = f"{stack.up.ready['url']}/api/v3.1/org/usage/summary"
    eventually("the keys are in force", lambda: HTTP.post(url, headers=ask).status_code == 200)
    return str(org_key)


async def test_every_example_works_as_it_stands(stack: Stack, keys: str) -> None:
    """In the order of the page: the status and the answer that it shows, and nothing that the schemas do not tell."""
    running = Running(stack, keys)
    wrong = []
    await _poison(stack)
    for one, example in EXAMPLES:
        if one.name == "listDeadLetters":
            running.letter = eventually("the dead letter is there", lambda: _letter(stack))
        reply = running.send(one, example)
        body = reply.json() if reply.headers["content-type"].startswith("application/json") else None
        assert reply.status_code == example.status, (example.title, reply.text)
        api_answers.check(one.method, target(one, example), reply.status_code, reply.headers, body)
        if example.answer is not None:
            expected = json.loads(json.dumps(example.answer).replace(EXAMPLE_ID, running.letter or EXAMPLE_ID))
            if _lasting(body) != _lasting(expected):
                wrong.append((example.title, json.dumps(_lasting(body)), json.dumps(_lasting(expected))))
        if one.name == "sendEvents":
            for log_id in example.answer["ids"]:
                path = f"/api/v3.1/logs/tool_execution/{log_id}"
                eventually("the event is a log", lambda path=path: stack.get(path).status_code == 200)
    assert not wrong, "\n".join("\n".join(one) for one in wrong)
    _commands(running)


async def test_requests_made_from_the_document_are_answered_at_the_public_address(
    stack: Stack, keys: str, tmp_path: Path
) -> None:
    """Events and what is for machines: what ingest answers itself."""
    selection = ("--include-path-regex", "^/v1/(events|traces)|^/(healthz|readyz|metrics|docs)")
    await schemathesis.run(stack.up.ready["url"], stack.key, *selection, folder=tmp_path)


def _commands(running: Running) -> None:
    """Run what the page shows, copied from it, in a shell."""
    page = HTTP.get(f"{running.url}/docs").text
    shown = re.findall(r'<pre tabindex="0">(curl [^<]*)</pre>', page)
    commands = [html.unescape(one) for one in shown]
    assert commands == [curl(*each) for each in EXAMPLES]
    (exported,) = re.findall(r"export TOOLLEDGER_URL=(\S+)", page)
    assert exported == running.url
    if shutil.which("curl") is None:
        pytest.skip("no curl here: the requests were sent, their command lines were not run")
    environment = {"TOOLLEDGER_URL": exported, "TOOLLEDGER_API_KEY": running.keys["project"]}
    environment |= {"TOOLLEDGER_ORG_API_KEY": running.keys["org"], "PATH": os.environ["PATH"]}
    # One shell for all: a process each would take longer than the requests.
    script = "\n".join(f"{one.replace(EXAMPLE_ID, running.letter)} -s -o /dev/null -w '%{{http_code}}\\n'" for one in commands)
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert [int(line) for line in done.stdout.split()] == [example.status for _, example in EXAMPLES], done.stderr


async def _poison(stack: Stack) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stack.up.ready["kafka"])
    await producer.start()
    try:
        await producer.send_and_wait(TOOL_EXECUTIONS, b'{"tool_slug": "GMAIL_SEND_EMAIL",', headers=[(HEADER_PROJECT, b"acme")])
    finally:
        await producer.stop()


def _letter(stack: Stack) -> str:
    found = stack.get("/v1/dead-letters").json()["dead_letters"]
    return str(found[0]["id"]) if found else ""


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(one) for name, one in value.items() if name not in VOLATILE}
    return [_lasting(one) for one in value] if isinstance(value, list) else value
