"""Take secrets out of payloads and texts before anything is stored. Pure.

What holds no secret stays byte for byte. Values of members named like secrets are replaced, and bearer tokens wherever they
stand; strings are told apart from left to right, so that text inside a string is never taken for a member.
"""

import re
from typing import Final

REPLACEMENT: Final = b"[redacted]"

# Compared without case, `-`, `_` and spaces. Whole names only: `next_page_token` and `token_count` are no secrets.
SECRET_NAMES: Final = frozenset(
    {
        "accesstoken", "apikey", "apisecret", "apitoken", "auth", "authorization", "authtoken", "bearertoken", "clientsecret",
        "cookie", "credentials", "idtoken", "jwt", "oauthtoken", "passwd", "password", "privatekey", "proxyauthorization",
        "refreshtoken", "secret", "secretkey", "sessiontoken", "setcookie", "token", "xapikey", "xauthtoken",
    }
)  # fmt: skip
# One of these stands in every text that could hold a secret; all others are passed on unread.
SIGNS: Final = ("auth", "token", "key", "secret", "passw", "cookie", "credential", "jwt", "bearer")

_STRING: Final = rb'"(?:[^"\\]|\\.)*"'
_MEMBER: Final = re.compile(rb"(" + _STRING + rb")(\s*:\s*)?(" + _STRING + rb"|-?[0-9][0-9.eE+-]*)?", re.DOTALL)
_BEARER: Final = re.compile(rb"\b(bearer|basic)(\s+)[A-Za-z0-9._~+/-]{8,}=*", re.IGNORECASE)


def redact_json(raw: bytes) -> bytes:
    """Return a JSON text without the values of secret members and without bearer tokens."""
    return _BEARER.sub(rb"\1\2" + REPLACEMENT, _MEMBER.sub(_member, raw))


def redact_text(text: str) -> str:
    """Return a message without bearer tokens."""
    return _BEARER.sub(rb"\1\2" + REPLACEMENT, text.encode(errors="surrogatepass")).decode(errors="surrogatepass")


def _member(found: re.Match[bytes]) -> bytes:
    name, colon, value = found.groups()
    if not colon or not value:
        return found[0]
    if name[1:-1].translate(None, b"-_ ").lower().decode(errors="replace") not in SECRET_NAMES:
        return found[0]
    return name + colon + b'"' + REPLACEMENT + b'"'
