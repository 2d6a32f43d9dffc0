"""No secret gets through, and nothing else is touched."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.contract.redact import KEPT_MEMBERS, Redactor, redact_json, redact_text
from ingest.contract.redact_patterns import PATTERN_CHARS_MAX, PATTERNS_MAX, redactor
from ingest.contract.secret_names import SECRET_ENDINGS, SECRET_NAMES
from ingest.contract.secret_signs import by_search, may_hold
from ingest.contract.secret_texts import REPLACEMENT

plain_names = st.sampled_from(["page", "to", "next_page_token", "token_count", "keyboard", "subject", "key", "max_tokens"])
secret_names = st.sampled_from(
    [
        "Authorization",
        "api_key",
        "API-Key",
        "password",
        "clientSecret",
        "access_token",
        "Set-Cookie",
        "x-api-key",
        "DB_PASSWORD",
    ]
)
ordinary = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain_names, inner, max_size=3),
    max_leaves=8,
)
letters = st.text("ABCDEFGH", min_size=12, max_size=20)
secrets = (
    letters
    | letters.map(lambda text: [text])
    | letters.map(lambda text: {"a": [{"b": text}]})
    | letters.map(lambda text: json.dumps({"a": text}))
)

# What texts with secrets are made of, and what could be taken for them: put together at random, all of it is bad input.
fragments = st.sampled_from(
    [
        "password", "token", "Authorization", "api_key", "Cookie", "auth", "signature", "name", "value", "type", "string",
        "sk-", "Bearer ", "basic ", "=", ":", ": ", '"', "'", '\\"', "\\", "\\\\", "{", "}", "[", "]", ",", "&", "?",
        "://", "@", "/", "\n", " ", "\r\n", "\t", "abc", "hunter2", "aB3dEf6hIj9", "0123456789", "[redacted]", "redacted",
        "null", "true", "12", "é", "\u212a", "\u017f", "\u2003", "\ud800", "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----", "eyJ", ".", "-", "_", "AKIAIOSFODNN7EXAMPLE", "ghp_abcdefghij0123456789", "\x00",
        "\\u0070", "$", "<", "(",
    ]
)  # fmt: skip
nasty_texts = st.lists(fragments, max_size=14).map("".join)
nasty_names = fragments | nasty_texts
nasty = st.recursive(
    st.none() | st.booleans() | st.integers() | nasty_texts,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(nasty_names, inner, max_size=4)
        | inner.map(lambda value: json.dumps(value, ensure_ascii=False))
        | inner.map(lambda value: json.dumps(value) + "\n" + json.dumps(value))
    ),
    max_leaves=10,
)
spellings = st.sampled_from([{}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (",", ":")}])


def spell(value: Any, how: dict[str, Any]) -> bytes:
    return json.dumps(value, **how).encode(errors="surrogatepass")


def put(value: Any, path: list[int], name: str, secret: Any) -> Any:
    """Hide a secret somewhere inside."""
    return {"page": [value, {name: secret, "to": value}] if path else value, name: secret}


@given(value=ordinary, name=secret_names, secret=secrets, deep=st.lists(st.integers(), max_size=1), nested=st.booleans())
def test_the_value_of_a_secret_member_never_survives(value: Any, name: str, secret: Any, deep: list[int], nested: bool) -> None:
    """At any depth, in any spelling, whatever the value is, in JSON and in JSON within its strings; all else is as it was."""

    def made(hidden: Any) -> Any:
        whole = put(value, deep, name, hidden)
        return {"body": json.dumps(json.dumps([whole])), "n": 1} if nested else whole

    redacted = json.loads(redact_json(json.dumps(made(secret)).encode()))
    if nested:
        # A string of JSON is no object: it is read as a text, and the object in it as what it is.
        hidden = next(iter(re.findall("[A-H]{12,}", json.dumps(secret))))
        assert hidden not in redacted["body"]
        return
    assert redacted == made(REPLACEMENT)


@given(value=ordinary)
def test_what_holds_no_secret_stays_byte_for_byte(value: Any) -> None:
    """Names that only look like secrets, and all values, come out as they went in."""
    for raw in (json.dumps(value).encode(), json.dumps({"data": value}, indent=1, ensure_ascii=False).encode()):
        assert redact_json(raw) == raw


@given(token=st.text("abcdefABCDEF0123456789._-", min_size=8, max_size=40))
def test_bearer_tokens_go_wherever_they_stand(token: str) -> None:
    """In messages and inside strings of payloads alike, unless it is a word."""
    assert token not in redact_text(f"call failed with Authorization: Bearer {token}")
    token = f"1{token}"
    assert token not in redact_text(f"with bearer {token}")
    assert token.encode() not in redact_json(json.dumps({"note": f"Bearer {token}"}).encode())


@settings(max_examples=400)
@given(value=nasty, how=spellings)
@example(value={"a": '{"password": "x'}, how={})
@example(value={"password": "[redacted]", "token": ["[redacted]"]}, how={})
def test_redacting_twice_is_redacting_once_and_json_stays_json(value: Any, how: dict[str, Any]) -> None:
    """Whatever the input: the client, ingest and the worker may each do it; no string becomes a member, none is lost."""
    raw = spell(value, how)
    once = redact_json(raw)
    assert redact_json(once) == once
    assert_only_values_differ(json.loads(raw), json.loads(once))


def assert_only_values_differ(before: Any, after: Any) -> None:
    if after == REPLACEMENT:
        return
    assert type(before) is type(after)
    if isinstance(before, dict):
        assert list(before) == list(after)
        for name in before:
            assert_only_values_differ(before[name], after[name])
    elif isinstance(before, list):
        assert len(before) == len(after)
        for old, new in zip(before, after, strict=True):
            assert_only_values_differ(old, new)
    elif isinstance(before, str):
        assert before == after or REPLACEMENT in after
    else:
        assert before == after


@settings(max_examples=400)
@given(text=nasty_texts)
def test_texts_are_redacted_once_too(text: str) -> None:
    """A message that was redacted stays as it is."""
    once = redact_text(text)
    assert redact_text(once) == once


@settings(max_examples=400)
@given(value=nasty, how=spellings)
def test_the_quick_look_never_passes_what_a_close_look_would_change(value: Any, how: dict[str, Any]) -> None:
    """Neither the automaton nor the search for signs, in JSON and in texts."""
    raw = spell(value, how)
    closely = Redactor()._bytes(raw, frozenset(), drop=frozenset())
    if closely != raw:
        assert may_hold(raw)
        assert by_search(raw)
    text = raw.decode(errors="surrogatepass")
    if Redactor()._text(text, 0) != text:
        assert may_hold(raw)
        assert by_search(raw)


@pytest.mark.parametrize("name", sorted({*SECRET_NAMES, *SECRET_ENDINGS}))
def test_every_secret_name_shows_in_the_quick_look(name: str) -> None:
    """In every spelling that is compared as the same."""
    for spelled in (name, name.upper(), "-".join(name), f"{name[:3]}_{name[3:]}", f"{name[:2]} {name[2:]}"):
        raw = json.dumps({spelled: "x" * 12}).encode()
        assert may_hold(raw)
        assert by_search(raw)
        assert json.loads(redact_json(raw)) == {spelled: REPLACEMENT}


@given(raw=st.binary(max_size=60) | nasty_texts.map(lambda text: text.encode(errors="surrogatepass")))
def test_bytes_that_are_no_json_break_nothing(raw: bytes) -> None:
    """Whatever bytes come, bytes go."""
    assert isinstance(redact_json(raw), bytes)


EVENT = {"tool_slug": "A", "status": "failed", "duration_ms": 1}


@given(secret=letters, data=nasty.map(lambda value: {"request": value}), keeps=st.booleans(), how=spellings)
def test_an_event_keeps_its_name_and_place_and_loses_its_secrets(
    secret: str, data: Any, keeps: bool, how: dict[str, Any]
) -> None:
    """Identity is never rewritten, however much an id looks like a key; messages, errors, metadata and data are."""
    looks_secret = f"Bearer {secret}1"
    event = EVENT | {"id": looks_secret, "user_id": f"password={secret}1", "session_id": f"https://a:{secret}@b"}
    event |= {"message": looks_secret, "error": {"message": f"token={secret}1"}, "metadata": {"api_key": secret}, "data": data}
    event |= {"password": secret, "source": {"host": f"https://a:{secret}@b"}}
    raw = spell(event, how)
    redacted = Redactor().event(raw, keeps_payload=keeps)
    after = json.loads(redacted)
    assert {name: after[name] for name in event if name in KEPT_MEMBERS} == {
        name: event[name] for name in event if name in KEPT_MEMBERS
    }
    assert secret not in json.dumps([after["message"], after["error"], after["metadata"], after["password"]])
    assert after["data"] == (json.loads(redact_json(spell(data, how))) if keeps else None)
    assert Redactor().event(redacted, keeps_payload=keeps) == redacted


@given(text=nasty_texts, patterns=st.lists(st.sampled_from([r"EMP-\d+", "hunter[0-9]", "abc", r"\w+@", "^.", "a(b)c", "é|K"])))
@example(text="hunter2", patterns=["hunter[0-9]"])
@example(text="EMP-1", patterns=[r"EMP-\d+"])
def test_own_patterns_are_redacted_once(text: str, patterns: list[str]) -> None:
    """With the rules that are always in force; the quick look lets nothing through."""
    rules = redactor("\n".join(patterns), "card-number")
    once = rules.text(text)
    assert rules.text(once) == once
    raw = json.dumps({"x": text, "cardNumber": 5}).encode()
    redacted = rules.json(raw)
    assert json.loads(redacted)["cardNumber"] == REPLACEMENT
    assert rules.json(redacted) == redacted
    if "hunter[0-9]" in patterns:
        assert b"hunter2" not in redacted
    if "^." not in patterns:
        assert json.loads(redacted)["x"] == once


@pytest.mark.parametrize(
    ("patterns", "names", "said"),
    [
        ("ok\n(broken", "", "pattern 2 is no RE2 expression"),
        (r"(a)\1", "", "no RE2 expression"),
        (r"(?=a)", "", "no RE2 expression"),
        ("a*", "", "matches nothing at all"),
        (r"(\w{1000}){1000}", "", "no RE2 expression"),
        ("x" * (PATTERN_CHARS_MAX + 1), "", "longer than"),
        ("\n".join("a" * (number + 1) for number in range(PATTERNS_MAX + 1)), "", "at most"),
        ("", "ok,no.name", "a name is letters"),
    ],
)
def test_an_unusable_pattern_is_refused_and_named(patterns: str, names: str, said: str) -> None:
    """Before anything is served with it."""
    with pytest.raises(ValueError, match=said):
        redactor(patterns, names)


def test_a_group_says_which_part_of_a_match_goes() -> None:
    """So that a pattern may need words around a secret, which stay."""
    assert redactor(r"employee (\d+)").text("employee 4711 left") == "employee [redacted] left"
