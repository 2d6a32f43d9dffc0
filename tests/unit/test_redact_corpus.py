"""A labelled corpus: what must go, what must stay, as payloads and messages of tools really are."""

import json
from typing import Any

import pytest

from ingest.contract.redact import redact_json, redact_text
from ingest.contract.secret_texts import REPLACEMENT

OURS = "ak_4fGh7KlMnOpQrStUvWxYz0123456_-aB"
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bq98\nq2Zz\n-----END RSA PRIVATE KEY-----"

# (text, what must be gone of it)
SECRET_TEXTS = [
    ("Authorization: Bearer abc.def-123_456", "abc.def-123_456"),
    ("401 for url with header Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
    ('sent `proxy-authorization: Digest username="bob"`', "Digest username"),
    ("Cookie: session=8d7a6; theme=dark", "8d7a6"),
    ("Set-Cookie: sid=31d4d96e407aad42; Path=/", "31d4d96e407aad42"),
    ("curl -H 'X-Api-Key: 9b2f7c' https://api.example.com", "9b2f7c"),
    ('curl -u bob: -H "Authorization: token 0123abcd"', "0123abcd"),
    ("the bearer 2YotnFZFEjr1zCsicMWpAA was refused", "2YotnFZFEjr1zCsicMWpAA"),
    ("GET https://api.example.com/v1?api_key=QmFzZQ&page=2 failed", "QmFzZQ"),
    ("GET https://api.example.com/v1?page=2&access_token=secretvalue", "secretvalue"),
    ("https://bucket.s3.amazonaws.com/o?X-Amz-Signature=fe5f80f77d5fa3beca038a248ff027d0", "fe5f80f77d5fa3beca038a248ff027d0"),
    ("https://x.blob.core.windows.net/c?sv=2020&sig=aB%2FcD%3D", "aB%2FcD%3D"),
    ("could not connect to postgres://bob:hunter2@db.internal:5432/app", "hunter2"),
    ("redis://:p4ssw0rd@cache:6379/0", "p4ssw0rd"),
    (
        "clone https://x-access-token:ghs_16C7e42F292c6912E7710c838347Ae178B4a@github.com/a/b",
        "ghs_16C7e42F292c6912E7710c838347Ae178B4a",
    ),
    ("clone https://ghp_16C7e42F292c6912E7710c838347Ae178B4a@github.com/a/b", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
    ("OPENAI_API_KEY=sk-proj-8Jk2Lm4Np6Qr8St0Uv2Wx4Yz6 python run.py", "8Jk2Lm4Np6Qr8St0Uv2Wx4Yz6"),
    ("Incorrect API key provided: sk-8Jk2Lm4Np6Qr8St0Uv2Wx4Yz6. You can find it", "sk-8Jk2Lm4Np6Qr8St0Uv2Wx4Yz6"),
    ("key sk-ant-api03-Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2 is invalid", "Zx9Yw8Vu7Ts6Rq5Po4Nm3Lk2"),
    ("stripe: sk" + "_live_4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWDarjtT1zdp7dc"),
    ("slack says xoxb-123456789012-abcdefGHIJKL is revoked", "xoxb-123456789012-abcdefGHIJKL"),
    ("AWS AKIAIOSFODNN7EXAMPLE has no permission", "AKIAIOSFODNN7EXAMPLE"),
    ("google AIzaSyA-1234567890abcdefghijklmnopqrstu is restricted", "AIzaSyA-1234567890abcdefghijklmnopqrstu"),
    ("github_pat_11ABCDEFG0abcdefghij_klmnopqrstuvwxyz", "11ABCDEFG0abcdefghij"),
    (f"our key {OURS} was refused", OURS),
    (f"(jwt {JWT})", JWT),
    (f"key file:\n{PEM}\nend", "MIIEowIBAAKCAQEA7bq98"),
    ("tool args {'user': 'bob', 'password': 'hunter 2'}", "hunter 2"),
    ('{"api_key": "abc123", "q": "it was cut h', "abc123"),
    ('{"q": 1, "client_secret": "it was cut within', "it was cut within"),
    ('body was "{\\"token\\":\\"abcdef0123456789\\"}" and more', "abcdef0123456789"),
    ("DB_PASSWORD=hunter2 HOST=x", "hunter2"),
    ("login --password=correcthorse --user bob", "correcthorse"),
    ("password: hunter2\nuser: bob", "hunter2"),
    ("grant_type=refresh_token&refresh_token=1//0gabc-def&client_id=me", "1//0gabc-def"),
    ("Server=db;User Id=sa;Password=Str0ngPass;", "Str0ngPass"),
    ("DefaultEndpointsProtocol=https;AccountKey=Zm9vYmFyYmF6cXV4;", "Zm9vYmFyYmF6cXV4"),
]

ORDINARY_TEXTS = [
    "Invalid password: must be at least 8 characters",
    "Authorization header is missing",
    "Authorization: header is missing",
    "Bearer authentication failed",
    "basic authentication is required; see Basic Information",
    'WWW-Authenticate: Bearer realm="example", error="invalid_token"',
    "The access token expired on 2026-01-01",
    "token limit exceeded: 8192 tokens, max_tokens=4096",
    "next_page_token=CAUQAA and page_token: abc1234567",
    "sort key=created_at order=desc",
    "Error: secret: not found in namespace default",
    "cookies are disabled; accept cookies: yes",
    "token = tokenizer.encode(text)",
    "password = os.environ['PASSWORD']",
    "password=$DB_PASSWORD api_key=${API_KEY} token={{ token }} secret=<your secret>",
    "def login(user, password=None, token=None, auth=True): ...",
    "if token == expected: return key",
    "api_key=self.api_key, token=config.auth.token",
    'class="sk-toggleable__content-arrow sk-estimator-doc-link"',
    "https://example.com/a?b=c#d and mail bob@example.com: hello",
    "http://localhost:8080/@scope/package and ssh://git@github.com/a/b",
    "tasks: risk-assessment-of-the-longest-kind-2026-01-01-123456",
    "break_something_very_long_and_useful_here_x",
    "ak_this_is_a_name_of_several_words_",
    "the author's keyboard, a monkey, tokenization, secretary, passwordless",
    "The signature: f(x: int) -> str; sig(a, b)",
    '2026-01-01T00:00:00Z level=info msg="authorized" auth=ok',
    "HTTP/1.1 401 Unauthorized",
    "Failed: invalid cookie name",
    "eyJub3QiOiJhIGp3dCJ9 is base64 of an object",
]

# (payload, what must be gone)
SECRET_PAYLOADS: list[tuple[Any, list[str]]] = [
    ({"headers": {"Authorization": "Bearer abc", "Accept": "*/*"}}, ["abc"]),
    ({"headers": [{"name": "Authorization", "value": "shortone"}, {"name": "Accept", "value": "x"}]}, ["shortone"]),
    ({"headers": [{"value": "s-e-c", "key": "X-API-Key"}]}, ["s-e-c"]),
    ({"headers": [["Authorization", "zzz1"], ["accept", "x"]]}, ["zzz1"]),
    ({"rawHeaders": ["Host", "x", "Cookie", "a=zzz2", "Accept", "y"]}, ["zzz2"]),
    ({"env": [{"name": "OPENAI_API_KEY", "value": "zzz3"}]}, ["zzz3"]),
    ({"credentials": {"user": "bob", "pw": ["x", {"y": 1}]}}, ["bob"]),
    ({"a": [{"b": {"clientSecret": ["zzz4"]}}]}, ["zzz4"]),
    ({"password": 12345678}, ["12345678"]),
    ({"openai_api_key": "zzz5", "GITHUB_TOKEN": "zzz6", "db-password": "zzz7"}, ["zzz5", "zzz6", "zzz7"]),
    ({"body": json.dumps({"password": 'qu"ote', "x": json.dumps({"api_key": "zzz8"})})}, ["ote", "zzz8"]),
    ({"name": "password", "value": {"deep": "zzz9"}}, ["zzz9"]),
    ({"properties": {"password": {"type": "string", "default": "zzz10"}}}, ["zzz10"]),
    ({"url": "https:\\/\\/bob:zzz11@x", "u2": "https://bob:zzz12@x"}, ["zzz12"]),
]

ORDINARY_PAYLOADS: list[Any] = [
    {"next_page_token": "CAUQAAabcdefghijkl", "nextPageToken": "abcdefghijkl", "page_token": "abcdefghijkl"},
    {"token_count": 12, "max_tokens": 4096, "tokens": [1, 2, 3], "usage": {"prompt_tokens": 5, "total_tokens": 9}},
    {"logprobs": [{"token": "Hello", "logprob": -0.1, "bytes": [72]}, {"token": " the"}], "token": 15496},
    {"key": "value", "keys": ["a", "b"], "sort_key": "created_at", "keyboard": "us", "primary_key": "id", "public_key": "MIIB"},
    {"author": "bob", "authors": ["x"], "authority": "x", "authorized": True, "auth": None, "password": "", "token": False},
    {"properties": {"password": {"type": "string", "description": "at least 8"}, "token": {"type": ["string", "null"]}}}[
        "properties"
    ]["password"],
    {
        "type": "object",
        "properties": {"api_key": {"type": "string", "description": "Your API key"}},
        "required": ["api_key", "query"],
    },
    {"allow_headers": ["Authorization", "Content-Type"], "vary": ["Cookie", "Accept-Encoding"]},
    {"has_password": True, "password_reset_url": "https://x/reset", "password_strength": 4, "secret_santa": "bob"},
    {"connected_account_id": "ca_123", "auth_config_id": "ac_123", "api_key_id": "key_96213ffb45b8", "access_key_id": "x"},
    {"pad_token": "<pad>", "eos_token": "</s>", "sync_token": "abcdefghijkl", "continuation_token": "abcdefghijkl"},
    {"text": 'a "password":"x" is quoted prose', "n": 1.0, "big": 12345678901234567890, "e": 1e5}["n"],
    {"cookie_banner": "accepted", "cookies_enabled": "yes", "secretary": "Ann", "basic": "plan", "bearer": "of news"},
]


@pytest.mark.parametrize(("text", "secret"), SECRET_TEXTS, ids=lambda value: value[:40])
def test_secrets_of_texts_go(text: str, secret: str) -> None:
    """As a message, and as a string of a payload."""
    assert secret not in redact_text(text)
    assert REPLACEMENT in redact_text(text)
    payload = redact_json(json.dumps({"x": [text]}).encode())
    assert json.loads(payload) == {"x": [redact_text(text)]}


@pytest.mark.parametrize("text", ORDINARY_TEXTS, ids=lambda value: value[:40])
def test_ordinary_texts_stay(text: str) -> None:
    """Words about secrets, code, placeholders and page tokens are no secrets."""
    assert redact_text(text) == text
    raw = json.dumps({"x": [text]}).encode()
    assert redact_json(raw) == raw


@pytest.mark.parametrize(("payload", "secrets"), SECRET_PAYLOADS, ids=lambda value: json.dumps(value)[:40])
def test_secrets_of_payloads_go(payload: Any, secrets: list[str]) -> None:
    """Whatever their value is and however headers are listed; the result is JSON."""
    for indent in (None, 2):
        redacted = redact_json(json.dumps(payload, indent=indent).encode())
        assert [secret for secret in secrets if secret.encode() in redacted] == []
        json.loads(redacted)


@pytest.mark.parametrize("payload", ORDINARY_PAYLOADS, ids=lambda value: json.dumps(value)[:40])
def test_ordinary_payloads_stay_byte_for_byte(payload: Any) -> None:
    """Counts, page tokens, keys of other kinds, schemas and empty values."""
    for raw in (json.dumps(payload).encode(), json.dumps(payload, indent=1).encode()):
        assert redact_json(raw) == raw


def test_the_recorded_tool_calls_stay() -> None:
    """Hundreds of real payloads without a secret."""
    from tests.benchmarks.bench_worker import _RECORDED  # noqa: PLC0415 - the path of the recorded calls

    for line in _RECORDED.read_bytes().splitlines():
        assert redact_json(line) == line
