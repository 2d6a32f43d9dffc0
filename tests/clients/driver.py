"""Make calls with an official Python client and say what it made of the answers; runs in the client's own environment.

A line in: {"client": {...}, "call": "logs.create_tool_execution", "args": [...], "kwargs": {...}, "peek": ["logs.0.id"]}.
With "through": {"call": "create", "kwargs": {...}} the call is made on what that first call returns, as on a session.
A line out: {"result": JSON of the model, "peeked": [[type name, text], ...]}, for a raw call {"status", "headers",
"retries_taken", "result"}, or {"error": {...}}: what a user of the client would find on the exception.
"""

import asyncio
import inspect
import json
import sys
from functools import cache, reduce
from typing import Any

loop = asyncio.new_event_loop()


@cache
def client(told: str) -> Any:
    """Make a client as its documentation says; one for each way it is told to be made."""
    options = json.loads(told)
    kind = options.pop("kind")
    if kind == "sdk":
        from composio import Composio as Sdk

        return Sdk(allow_tracking=False, **options)
    import composio_client

    if kind == "client-1":
        return composio_client.Composio(**options)
    key = options.pop("key")
    made = getattr(composio_client, options.pop("auth"))
    auth = made(**key) if isinstance(key, dict) else made(key)
    if "scope" in options:
        options["scope"] = composio_client.Scope(**options["scope"])
    composio = composio_client.AsyncComposio if kind == "client-async" else composio_client.Composio
    return composio(auth=auth, **options)


def awaited(value: Any) -> Any:
    """Return the value, or what it comes to."""
    return loop.run_until_complete(value) if inspect.isawaitable(value) else value


def step(value: Any, name: str) -> Any:
    """Go one step along a path of attributes, members and indexes."""
    if isinstance(value, list):
        return value[int(name)]
    return value[name] if isinstance(value, dict) else getattr(value, name)


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Make one call."""
    root = client(json.dumps(asked["client"]))
    if "through" in asked:
        through = asked["through"]
        root = awaited(reduce(getattr, through["call"].split("."), root)(**through.get("kwargs", {})))
    call = reduce(getattr, asked["call"].split("."), root)
    got = awaited(call(*asked.get("args", ()), **asked.get("kwargs", {})))
    if "with_raw_response" in asked["call"]:
        headers = {name.lower(): value for name, value in got.headers.items()}
        model = awaited(got.parse())
        raw = {"status": got.status_code, "headers": headers, "retries_taken": got.retries_taken}
    else:
        model, raw = got, {}
    peeked = [reduce(step, path.split("."), model) for path in asked.get("peek", ())]
    told = (
        model if isinstance(model, dict) else model.model_dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    )
    return raw | {
        "result": told,
        "model": type(model).__name__,
        "peeked": [[type(value).__name__, str(value)] for value in peeked],
    }


def failure(error: Exception) -> dict[str, Any]:
    """Say what a user finds on an exception."""
    response = getattr(error, "response", None)
    return {
        "class": type(error).__name__,
        "bases": [f"{base.__module__}.{base.__name__}" for base in type(error).__mro__],
        "text": str(error),
        "status": getattr(error, "status_code", None),
        "details": getattr(error, "details", None),
        "request_id": getattr(error, "request_id", None),
        "headers": {} if response is None else {name.lower(): value for name, value in response.headers.items()},
    }


for line in sys.stdin:
    try:
        said = answer(json.loads(line))
    except Exception as error:  # whatever the client raises is what the test wants to see
        said = {"error": failure(error)}
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
