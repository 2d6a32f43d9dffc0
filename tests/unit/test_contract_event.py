"""One event: what is taken, and what the refusal says."""

import msgspec
import pytest

from ingest.contract.errors import InvalidEvent
from ingest.contract.event import ABSENT, EVENT_BYTES_MAX, check_timestamp, decode_event, timestamp_ms

BASE = b'"tool_slug":"A","status":"success","duration_ms":1'
NOW_MS = 1_800_000_000_000


def event(*members: bytes) -> bytes:
    return b"{" + b",".join([BASE, *members]) + b"}"


@pytest.mark.parametrize(
    "member",
    [
        b'"data":{"x":1e400}',
        b'"data":{"x":99999999999999999999999999}',
        b'"data":{"x":"\\ud83d\\ude00"}',
        b'"data":null,"metadata":null',
        b'"error":{"code":99999999999999999999999999}',
        b'"id":"a","id":"b"',
        b'"unknown":[{"deep":[]}]',
        b'"data":{"x":' + b"[" * 500 + b"]" * 500 + b"}",
    ],
)
def test_odd_but_readable_events_are_taken_with_their_bytes_kept(member: bytes) -> None:
    assert decode_event(event(member)).tool_slug == "A"


@pytest.mark.parametrize(
    ("raw", "reason", "names"),
    [
        (b"", "invalid_json", "not JSON"),
        (b"[]", "invalid_member", "got `array`"),
        (b'{"tool_slug":"A"}', "missing_member", "`status`"),
        (b'{"tool_slug":"A","status":"Success","duration_ms":1}', "unknown_status", "not 'Success'"),
        (b'{"tool_slug":"A","status":"success","duration_ms":NaN}', "invalid_json", "not JSON"),
        (b'{"tool_slug":"A","status":"success","duration_ms":1e400}', "invalid_member", "`duration_ms`"),
        (b'{"tool_slug":"A","status":"success","duration_ms":-1}', "invalid_member", "`duration_ms`"),
        (event(b'"user_id":"' + b"u" * 257 + b'"'), "invalid_member", "length <= 256 - at `user_id`"),
        (event(b'"id":"\xff"'), "invalid_encoding", "UTF-8"),
        (event(b'"data":{"x":"\xff\xfe"}'), "invalid_encoding", "UTF-8"),
        (event(b'"unknown":{"x":"\xc3"}'), "invalid_encoding", "UTF-8"),
        (event(b'"id":"\\ud800"'), "invalid_encoding", "`\\ud800`"),
        (event(b'"data":{"x":"\\udc00 tail"}'), "invalid_encoding", "`\\udc00`"),
        (event(b'"data":{"x":NaN}'), "invalid_json", "not JSON"),
        (event(b'"data":[]'), "invalid_member", "`data`"),
        (event(b'"metadata":"text"'), "invalid_member", "`metadata`"),
        (event(b'"data":{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"), "nested_too_deep", "levels"),
        (event(b'"data":{"x":"' + b"x" * EVENT_BYTES_MAX + b'"}'), "event_too_large", str(EVENT_BYTES_MAX)),
    ],
)
def test_a_malformed_event_is_refused_with_a_code_and_a_message_that_names_member_and_limit(
    raw: bytes, reason: str, names: str
) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode_event(raw)
    assert caught.value.reason == reason
    assert names in caught.value.message


def test_an_absent_payload_is_the_one_known_object_and_a_constructed_empty_one_is_no_error() -> None:
    decoded = decode_event(event())
    assert decoded.data is ABSENT
    assert decoded.metadata is ABSENT
    assert decode_event(msgspec.Raw(event(b'"data":{}'))).data == msgspec.Raw(b"{}")


@pytest.mark.parametrize(
    ("value", "expected_ms"),
    [
        ("2026-04-17T10:25:00.000Z", 1_776_421_500_000),
        ("2026-04-17T12:25:00.123999+02:00", 1_776_421_500_123),
        ("2026-04-17T10:25:00", 1_776_421_500_000),
        ("2026-04-17t10:25:00z", 1_776_421_500_000),
        (1_776_421_500_000.9, 1_776_421_500_000),
    ],
)
def test_a_timestamp_is_iso_or_milliseconds_with_fractions_cut(value: str | float, expected_ms: int) -> None:
    assert timestamp_ms(value) == expected_ms


@pytest.mark.parametrize(
    ("value_ms", "hint"),
    [
        (NOW_MS // 1000, "seconds"),
        (NOW_MS * 1000, "microseconds"),
        (NOW_MS * 1_000_000, "nanoseconds"),
        (int(1e300), "1e+300"),
        (NOW_MS + 25 * 3_600_000, "24 hours"),
    ],
)
def test_a_timestamp_outside_the_allowed_age_is_refused_with_a_hint_and_never_guessed(value_ms: int, hint: str) -> None:
    with pytest.raises(InvalidEvent, match=hint.replace("+", r"\+")):
        check_timestamp(value_ms, accepted_ms=NOW_MS)
