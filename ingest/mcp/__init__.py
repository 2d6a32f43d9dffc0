"""Record the tool calls between an MCP client and an MCP server, without touching a byte between them.

```
 MCP client ⇄ pump (stdio: `stdio`, HTTP: `proxy`) ⇄ MCP server
                │ copies of the bytes, as frames, over a bounded queue (`tap`)
                v
              recorder, a process of its own (`recorder`): `lines`, `exchanges` ─> `tracker` ─> `events` ─> ledger
```
The pump never parses and never waits for the recorder. The recorder outlives a pump that was killed, and then says of the calls
that were open what became of them.
"""
