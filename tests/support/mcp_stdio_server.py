"""A small MCP server over stdio, without any library, that also does what servers must not do."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any


def send(**members: Any) -> None:
    data = memoryview(json.dumps({"jsonrpc": "2.0", **members}).encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], **more}


def call(id_: Any, tool: str, arguments: dict[str, Any]) -> None:
    if tool == "echo":
        send(id=id_, result=said(json.dumps(arguments), structuredContent=arguments))
    elif tool == "fail":
        send(id=id_, result=said("invalid recipient", isError=True))
    elif tool == "refuse":
        send(id=id_, error={"code": -32602, "message": "Unknown tool: refuse"})
    elif tool == "large":
        send(id=id_, result=said("x" * arguments["characters"]))
    elif tool == "exit":
        sys.exit(arguments["code"])
    elif tool == "abort":
        os.kill(os.getpid(), signal.SIGKILL)
    elif tool == "half_a_line":
        os.write(1, b'{"jsonrpc":"2.0","id":1,"result":{"con')
        sys.exit(3)
    elif tool == "not_utf8":
        os.write(1, b'{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"caf\xe9"}]}}\n' % id_)
    elif tool == "chatter":
        os.write(1, b"Listening on stdio\n\xff\xfe\n\n")
        send(id=id_, result=said("done"))
    elif tool == "leave_a_child":
        child = subprocess.Popen(["sleep", "30"], stdin=subprocess.DEVNULL)
        send(id=id_, result=said(str(child.pid)))
        sys.exit(0)
    elif tool == "say":
        print(arguments["text"], file=sys.stderr, flush=True)
        send(id=id_, result=said("said"))
    elif tool == "hold":
        send(method="notifications/message", params={"level": "info", "data": "held"})
    # `hang` and `hold` get no answer.


def main() -> None:
    if "--ignore-end" in sys.argv:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(41))
    for line in sys.stdin:
        message = json.loads(line)
        for one in message if isinstance(message, list) else [message]:
            if one.get("method") == "initialize":
                send(id=one["id"], result={"protocolVersion": "2025-11-25", "serverInfo": {"name": "odd", "version": "1"}})
            elif one.get("method") == "tools/call":
                call(one["id"], one["params"]["name"], one["params"].get("arguments") or {})
    while "--ignore-end" in sys.argv:
        time.sleep(60)


if __name__ == "__main__":
    main()
