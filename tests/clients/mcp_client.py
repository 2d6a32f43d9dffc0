"""Makes the calls it is told with the MCP SDK's client, of either generation, and says what came of each.

`mcp_client.py SCENARIO`: JSON with `command` or `url`, `calls`, each with `tool`, `arguments` and perhaps `cancel_after_s`, and
`handshake`, false for the protocol that has none.
"""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from typing import Any

import anyio
from mcp import ClientSession, StdioServerParameters, stdio_client
from mcp.client import streamable_http


def transport(scenario: dict[str, Any]) -> Any:
    if "url" in scenario:
        return streamable_http.streamable_http_client(scenario["url"])
    program, *arguments = scenario["command"]
    return stdio_client(StdioServerParameters(command=program, args=arguments, env=dict(os.environ)))


async def opened(scenario: dict[str, Any], stack: AsyncExitStack) -> tuple[Any, str]:
    if scenario.get("handshake", True):
        read, write, *_ = await stack.enter_async_context(transport(scenario))
        session = await stack.enter_async_context(ClientSession(read, write))
        await session.initialize()
        return session, "agreed"
    from mcp import Client

    client = await stack.enter_async_context(Client(transport(scenario)))
    return client, client.protocol_version


async def called(session: Any, call: dict[str, Any]) -> dict[str, Any]:
    progress: list[float] = []

    async def on_progress(done: float, *_: Any) -> None:
        progress.append(done)

    said: dict[str, Any] = {"cancelled": True}
    try:
        with anyio.move_on_after(call.get("cancel_after_s")):
            result = await session.call_tool(call["tool"], call.get("arguments", {}), progress_callback=on_progress)
            said = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    except Exception as error:
        said = {"raised": type(error).__name__, "message": str(error)}
    return {**said, "progress": len(progress)}


async def main() -> None:
    scenario = json.loads(sys.argv[1])
    answers = []
    version = ""
    try:
        async with AsyncExitStack() as stack:
            session, version = await opened(scenario, stack)
            for call in scenario["calls"]:
                answers.append(await called(session, call))
    finally:
        print(json.dumps({"version": version, "answers": answers}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
