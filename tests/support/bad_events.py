"""Events as nobody should send them, spelled byte by byte: for every test of what is done with bad input."""

import json

from hypothesis import strategies as st

from ingest.contract.event import IDENTIFIER_CHARS_MAX, MESSAGE_CHARS_MAX

MEMBERS = [
    "id", "project_id", "timestamp", "toolkit_slug", "user_id", "session_id", "message", "error", "data", "context", "source",
    "connected_account_id", "auth_config_id", "sandbox_id", "parent", "metadata", "status", "duration_ms", "tool_slug", "other",
]  # fmt: skip
# JSON as it is spelled, so that what no writer of ours would write is sent too.
odd_values = st.sampled_from(
    [
        "null", "true", "0", "-0.0", "1e308", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9223372036854775808",
        "1" * 400, "0.1", "1E5", "01", "+1", "1.", ".5", '""', '"x"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"',
        '"\\u0000"', '"\\x"', '"unended', '"\t"', "[]", "{}", '{"a":1,"a":2}', '[1,]', "{,}", '{"a"}', "/*c*/1", "'x'",
        '"\u2028"', "nul", '"2026-04-17T10:25:00Z"', '"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"',
        '"2026-02-30T00:00:00Z"', "1800000000", "1800000000000", "1.8e12", "1800000000000.9", "1800086400000",
        "1800086400001", "1420070400000", "1420070399999", '"1800000000000"', '{"message":"m","code":500}', '{"code":1.5}',
        '{"code":9223372036854775808}', '{"message":["x"]}', json.dumps("é" * IDENTIFIER_CHARS_MAX),
        json.dumps("é" * (IDENTIFIER_CHARS_MAX + 1)), json.dumps("x" * MESSAGE_CHARS_MAX),
        json.dumps("p" * (MESSAGE_CHARS_MAX - 12) + " password=a1"),
        json.dumps("😀" * MESSAGE_CHARS_MAX, ensure_ascii=False),
        json.dumps({"request": {"password": "hunter2", "url": "https://a:b@c"}}),
        json.dumps({"body": json.dumps({"token": "abcdefgh1"})}), "[" * 900 + "]" * 900, '{"a":' * 700 + "1" + "}" * 700,
        '{"a":' * 1200 + "1" + "}" * 1200, '"success"', '"failed"', '"proj"',
    ]
)  # fmt: skip
members = st.lists(st.tuples(st.sampled_from(MEMBERS), odd_values), max_size=4)
raw_bytes = st.sampled_from(
    [b"", b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xef\xbb\xbf", b"\x00", b"\r", b" ", b"]", b"}", b",", b"\n"]
)


@st.composite
def events(draw: st.DrawFn) -> bytes:
    """Most are good but for a member or two; some are damaged in their bytes."""
    base = [("tool_slug", '"A"'), ("status", '"failed"'), ("duration_ms", "1.5")]
    written = ",".join(f'"{name}":{value}' for name, value in [*base, *draw(members)])
    raw = b"{" + written.encode() + b"}"
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(raw_bytes) + raw[at + draw(st.integers(0, 2)) :]
    return raw


bodies = st.one_of(
    st.lists(events(), min_size=1, max_size=6).map(lambda sent: b"[" + b",".join(sent) + b"]"),
    st.lists(events(), min_size=1, max_size=6).map(b"\n".join),
    events(),
    st.binary(max_size=40),
)
