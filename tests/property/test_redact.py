"""No secret is stored, and nothing else is touched."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contract.redact import SECRET_NAMES, SIGNS, redact_json, redact_text

plain_names = st.sampled_from(["page", "to", "next_page_token", "token_count", "keyboard", "subject"])
secret_names = st.sampled_from(
    ["Authorization", "api_key", "API-Key", "password", "clientSecret", "access_token", "Set-Cookie", "x-api-key"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_names, inner, max_size=3),
    max_leaves=8,
)


def put(value: Any, path: list[int], name: str, secret: Any) -> Any:
    """Hide a secret somewhere inside."""
    return {"page": [value, {name: secret, "to": value}] if path else value, name: secret}


@settings(deadline=None)
@given(
    value=values,
    name=secret_names,
    secret=st.text("ABCDEFGH", min_size=12, max_size=20),
    deep=st.lists(st.integers(), max_size=1),
)
def test_the_value_of_a_secret_member_never_survives(value: Any, name: str, secret: str, deep: list[int]) -> None:
    """At any depth, in any spelling; and the result is still JSON with all other members."""
    raw = json.dumps(put(value, deep, name, secret)).encode()
    redacted = redact_json(raw)
    assert secret.encode() not in redacted
    assert json.loads(redacted) == put(value, deep, name, "[redacted]")


@settings(deadline=None)
@given(value=values)
def test_what_holds_no_secret_stays_byte_for_byte(value: Any) -> None:
    """Names that only look like secrets, and all values, come out as they went in."""
    for raw in (json.dumps(value).encode(), json.dumps({"data": value}, indent=1, ensure_ascii=False).encode()):
        assert redact_json(raw) == raw


@given(token=st.text("abcdefABCDEF0123456789._-", min_size=8, max_size=40), before=st.text(max_size=5))
def test_bearer_tokens_go_wherever_they_stand(token: str, before: str) -> None:
    """In messages and inside strings of payloads alike."""
    assert token not in redact_text(f"call failed with Authorization: Bearer {token}")
    assert token.encode() not in redact_json(json.dumps({"note": f"Bearer {token}"}).encode())


def test_every_secret_name_shows_a_sign() -> None:
    """Texts without any sign are passed on unread, so every name must show one."""
    assert [name for name in SECRET_NAMES if not any(sign in name for sign in SIGNS)] == []
