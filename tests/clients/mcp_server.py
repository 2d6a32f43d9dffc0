"""A server made with the MCP SDK, of either generation: `mcp_server.py stdio` or `mcp_server.py http PORT`."""

import asyncio
import os
import sys
from typing import Any

try:
    from mcp.server.mcpserver import Context, MCPServer
except ImportError:
    from mcp.server.fastmcp import Context
    from mcp.server.fastmcp import FastMCP as MCPServer


def tools(server: Any) -> None:
    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @server.tool()
    def fail(why: str) -> str:
        """Fail."""
        raise ValueError(why)

    @server.tool()
    async def wait(ctx: Context, steps: int) -> str:
        """Take a while, and say how far it is."""
        for step in range(steps):
            await ctx.report_progress(step, steps)
            await asyncio.sleep(0.05)
        return "done"

    @server.tool()
    def leave() -> str:
        """End the process."""
        os._exit(7)


def main() -> None:
    name = "Weather-Desk"
    if sys.argv[1] == "stdio":
        server = MCPServer(name)
        tools(server)
        server.run("stdio")
        return
    port = int(sys.argv[2])
    if MCPServer.__name__ == "FastMCP":
        server = MCPServer(name, host="127.0.0.1", port=port)
        tools(server)
        server.run("streamable-http")
    else:
        server = MCPServer(name)
        tools(server)
        server.run("streamable-http", host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
