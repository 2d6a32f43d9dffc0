"""How deep events may be nested: judged by their brackets, whatever their texts hold."""

import json

from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.errors import InvalidEvent
from ingest.contract.event import decode_event
from ingest.contract.nesting import LEVELS_MAX, too_deep


def nested(levels: int, core: str = "") -> bytes:
    return ('{"a":' + "[" * (levels - 1) + core + "]" * (levels - 1) + "}").encode()


def refusal(raw: bytes) -> str | None:
    try:
        decode_event(b'{"tool_slug":"T","status":"success","duration_ms":1,' + raw + b"}")
    except InvalidEvent as error:
        return error.reason
    return None


@given(extra=st.integers(-3, 3), wide=st.integers(0, 400))
def test_the_limit_is_where_it_is_said_to_be(extra: int, wide: int) -> None:
    """Exactly so many levels are taken, however many values stand beside each other in them."""
    core = ",".join(["{}"] * wide)
    levels = LEVELS_MAX + extra
    raw = nested(levels - 1 if wide else levels, core)
    assert too_deep(raw) == (levels > LEVELS_MAX)


@given(text=st.text(alphabet='[]{}"\\, :a', max_size=4_000), count=st.integers(1, 40))
def test_brackets_in_texts_are_no_levels(text: str, count: int) -> None:
    assert not too_deep(json.dumps({"items": [{"text": text}] * count}).encode())


def test_data_and_metadata_are_refused_beyond_it_and_taken_up_to_it() -> None:
    for name in (b'"data":', b'"metadata":'):
        assert refusal(name + nested(LEVELS_MAX)) is None
        assert refusal(name + nested(LEVELS_MAX + 1)) == "nested_too_deep"
        assert refusal(name + nested(900)) == "nested_too_deep"
