"""Whatever a caller sends and an upstream answers, there is an event that ingest takes, and nothing of an answer is lost."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.event import EVENT_BYTES_MAX, decode_event
from ingest.gateway.mapping import Call, Ending, record
from ingest.gateway.payloads import Body, Kept, read, with_log_id
from ingest.gateway.recorder import Recorder
from ingest.gateway.routes import Execution, execution_of
from ingest.settings import IngestSettings

texts = st.text(max_size=30)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just("x" * 300_000),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=6,
)
# Members that mean something, with values of every kind.
NAMES = (
    *(
        "log_id",
        "error",
        "successful",
        "result_type",
        "data",
        "message",
        "user_id",
        "tool_slug",
        "slug",
        "reason",
        "status_code",
    ),
    *(
        "connected_account_id",
        "version",
        "account",
        "instant_charge",
        "custom_auth_params",
        "entity_id",
        "detail",
        "code",
        "type",
    ),
)
objects = st.dictionaries(
    st.sampled_from(NAMES) | texts, values | st.sampled_from(["completed", "failed", "blocked"]), max_size=6
)
# Also NaN, infinities and halves of surrogate pairs, as many a server sends them.
bodies = st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), objects | values)
header_values = st.binary(max_size=300)
headers = st.dictionaries(
    st.sampled_from([b"content-type", b"content-encoding", b"x-source", b"x-framework", b"traceparent", b"user-agent"]),
    header_values | st.sampled_from([b"application/json", b"gzip", b"deflate", b"zstd", b"br, gzip", b"text/plain"]),
)


def body(raw: bytes, given_headers: dict[bytes, bytes], *, streamed: bool, ended: bool) -> Body:
    if not streamed:
        return read(raw, given_headers, bytes_max=1 << 20)
    kept = Kept(100)
    for at in range(0, len(raw), 64):
        kept.add(raw[at : at + 64])
    return kept.body(given_headers, ended=ended)


@given(
    asked=bodies,
    answered=bodies,
    headers=headers,
    status=st.sampled_from([0, 200, 201, 204, 302, 400, 401, 429, 500, 599, 999]),
    trouble=st.sampled_from([None, "unreachable", "timed_out", "broke_off", "interrupted"]),
    in_session=st.booleans(),
    slug=st.text(min_size=1, max_size=400),
    streamed=st.booleans(),
    ended=st.booleans(),
)
def test_there_is_always_an_event_that_is_taken(
    asked: bytes,
    answered: bytes,
    headers: dict[bytes, bytes],
    status: int,
    trouble: Any,
    in_session: bool,
    slug: str,
    streamed: bool,
    ended: bool,
) -> None:
    """Never an exception, never a refusal; none only where no tool was named or none was to run."""
    route = f"/api/v3/tools/execute/{slug}".encode(errors="surrogatepass")
    execution = Execution(session_id="s") if in_session else execution_of("POST", route) or Execution(tool_slug="A")
    call = Call(
        execution=execution,
        project_id="p",
        own_id="log_own",
        began_ms=1_780_000_000_000,
        request_id="r" * 300,
        headers=headers,
        body=read(asked, headers, bytes_max=1 << 20),
        upstream="u",
    )
    ending = Ending(
        duration_ms=1.5,
        status=status,
        body=body(answered, headers, streamed=streamed, ended=ended),
        trouble=trouble,
        message="why",
        promised=streamed,
    )
    recording = record(call, ending)
    if recording is None:
        assert in_session or (ending.body.members() or {}).get("result_type") is not None
        return
    recorder = Recorder(IngestSettings(), publisher=None, now_ms=lambda: 1_780_000_000_000)  # type: ignore[arg-type]
    entry = recorder.prepare("p", recording)
    assert entry is not None
    assert entry.id == recording.id == decode_event(entry.raw).id
    assert len(entry.raw) <= EVENT_BYTES_MAX


@given(value=objects, indent=st.sampled_from([None, 0, 2]), after=st.sampled_from(["", "\n", "  "]))
def test_a_log_id_is_all_that_is_added(value: dict[str, Any], indent: int | None, after: str) -> None:
    raw = json.dumps(value, indent=indent).encode() + after.encode()
    told = with_log_id(raw, "log_1", named="log_id" in value)
    assert told is not None
    empty = "log_id" not in value or value["log_id"] in (None, "")
    if empty:
        assert repr(json.loads(told)) == repr(value | {"log_id": "log_1"})
    # What was sent before and behind it is there to the byte.
    start = next((at for at, (one, other) in enumerate(zip(raw, told, strict=False)) if one != other), len(raw))
    end = len(told) - (len(raw) - start)
    assert told[:start] == raw[:start]
    removed = 0 if "log_id" not in value else 4 if value["log_id"] is None else 2
    assert told[end + removed :].endswith(raw[start + removed :])
