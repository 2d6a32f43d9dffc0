"""Random conversations between an MCP client and a server, with what is to be recorded of them."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from hypothesis import strategies as st

from ingest.mcp.frames import Frame, Kind, Moment

Fate = Literal["result", "tool_error", "error", "cancelled", "cancelled_then_answered", "nothing"]
FATES: tuple[Fate, ...] = ("result", "tool_error", "error", "cancelled", "cancelled_then_answered", "nothing")

# What MCP programs write beside the protocol, and what breaks readers.
RUBBISH = (
    b"",
    b"\r",
    b"Server listening on stdio",
    b"\xff\xfe\x00 \x80",
    b'{"jsonrpc":"2.0","id":',
    b"[]",
    b"[1,null,[[]]]",
    b'{"jsonrpc":"2.0","method":"tools/call"}',
    b'{"jsonrpc":"2.0","id":{"a":1},"method":"tools/call","params":{"name":"no_id"}}',
    b'{"jsonrpc":"2.0","id":true,"result":{}}',
    b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"Parse error"}}',
    b'{"jsonrpc":"2.0","id":"nobody asked","result":{"isError":true}}',
    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"nobody asked"}}',
    b'{"jsonrpc":"2.0","id":1e400,"result":{}}',
    b'{"method":7,"params":"none","id":[]}',
    b"[" * 3_000,
    b'{"result":' * 3_000,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@dataclass(slots=True)
class Planned:
    """One call: its id, what becomes of it, and its own messages, each with who says it."""

    id_: int | str
    fate: Fate
    arguments: dict[str, Any]
    answer: dict[str, Any]
    steps: list[tuple[Kind, dict[str, Any]]] = field(default_factory=list)


def call(id_: int | str, fate: Fate, arguments: dict[str, Any], said: Any, progress: int) -> Planned:
    answer: dict[str, Any] = {"content": [{"type": "text", "text": "said"}], "structuredContent": {"said": said}}
    if fate == "tool_error":
        answer["isError"] = True
    planned = Planned(id_, fate, arguments, answer)
    token = f"token {id_!r}"
    params = {"name": "some_tool", "arguments": arguments, "_meta": {"progressToken": token}}
    planned.steps.append((Kind.CLIENT, {"jsonrpc": "2.0", "id": id_, "method": "tools/call", "params": params}))
    for done in range(progress):
        told = {"progressToken": token, "progress": done}
        planned.steps.append((Kind.SERVER, {"jsonrpc": "2.0", "method": "notifications/progress", "params": told}))
    if fate.startswith("cancelled"):
        params = {"requestId": id_, "reason": "enough"}
        planned.steps.append((Kind.CLIENT, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
    if fate == "error":
        planned.steps.append((Kind.SERVER, {"jsonrpc": "2.0", "id": id_, "error": {"code": -32602, "message": "no such"}}))
    elif fate not in ("cancelled", "nothing"):
        planned.steps.append((Kind.SERVER, {"jsonrpc": "2.0", "id": id_, "result": answer}))
    return planned


@dataclass(slots=True)
class History:
    """What is said, in order, and by whom; `pieces` is the same cut anywhere."""

    calls: list[Planned]
    pieces: list[tuple[Kind, bytes]]

    def frames(self) -> list[Frame]:
        return [Frame(kind, 0, Moment(1_000 + at, at * 1_000_000), data) for at, (kind, data) in enumerate(self.pieces)]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Calls in any interleaving, some in batches, with rubbish between them, cut at any byte."""
    ids = draw(st.lists(st.integers(-3, 20) | st.text("ab", min_size=1, max_size=3), unique=True, max_size=6))
    arguments = st.dictionaries(texts, values, max_size=3)
    calls = [call(id_, draw(st.sampled_from(FATES)), draw(arguments), draw(values), draw(st.integers(0, 2))) for id_ in ids]
    order = draw(st.permutations([number for number, each in enumerate(calls) for _ in each.steps]))
    left = [list(each.steps) for each in calls]
    said: list[tuple[Kind, list[dict[str, Any]]]] = []
    for number in order:
        kind, message = left[number].pop(0)
        if said and said[-1][0] is kind and draw(st.booleans()):
            said[-1][1].append(message)
        else:
            said.append((kind, [message]))
    pieces: list[tuple[Kind, bytes]] = []
    for kind, messages in said:
        if draw(st.integers(0, 3)) == 0:
            pieces.append((draw(st.sampled_from([Kind.CLIENT, Kind.SERVER])), draw(st.sampled_from(RUBBISH)) + b"\n"))
        whole = messages[0] if len(messages) == 1 and draw(st.booleans()) else messages
        pieces += _cut(draw, kind, json.dumps(whole, ensure_ascii=draw(st.booleans())).encode() + draw(_ENDS))
    return History(calls, pieces)


_ENDS = st.sampled_from([b"\n", b"\r\n", b" \n", b"\n\n"])


def _cut(draw: st.DrawFn, kind: Kind, data: bytes) -> list[tuple[Kind, bytes]]:
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [(kind, data[start:end]) for start, end in zip([0, *places], [*places, len(data)], strict=True) if start < end]
