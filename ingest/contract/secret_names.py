"""Which names are names of secrets: of members, headers, parameters and variables. Pure.

Names are compared without case, `-`, `_` and spaces. Whole names, or endings that mean nothing else (`OPENAI_API_KEY`,
`db_password`); `next_page_token`, `token_count` and `key` are no secrets.
"""

from collections.abc import Set
from typing import Final

SECRET_NAMES: Final = frozenset(
    {
        "accesskey", "accesstoken", "apikey", "apisecret", "apitoken", "auth", "authorization", "authtoken", "bearertoken",
        "clientsecret", "cookie", "cookies", "credential", "credentials", "csrftoken", "idtoken", "jwt", "oauthtoken",
        "passphrase", "passwd", "password", "passwords", "privatekey", "proxyauthorization", "pwd", "refreshtoken", "secret",
        "secretkey", "secrets", "sessiontoken", "setcookie", "token", "xapikey", "xauthtoken", "xsrftoken",
    }
)  # fmt: skip
# What a name may end with, whatever stands before it.
SECRET_ENDINGS: Final = (
    "accesstoken", "accountkey", "apikey", "apisecret", "apitoken", "authtoken", "bearertoken", "bottoken",
    "clientsecret", "encryptionkey", "githubtoken", "gitlabtoken", "hftoken", "oauthtoken", "passphrase", "passwd",
    "password", "privatekey", "refreshtoken", "secretaccesskey", "secretkey", "securitytoken", "servicetoken",
    "sessiontoken", "setcookie", "signingkey", "slacktoken", "subscriptionkey", "usertoken", "webhooksecret",
    "authorization", "csrftoken", "xsrftoken",
)  # fmt: skip
# Those whose values are often something harmless: what is shorter than any real one stays (`"token":"the"`, a token's number).
AMBIGUOUS_NAMES: Final = frozenset({"auth", "credential", "jwt", "token"})
AMBIGUOUS_CHARS_MIN: Final = 8
# Only where they are given a value with `=`, as in signed URLs; a member of that name is as often a method's.
PARAMETER_NAMES: Final = frozenset({"sig", "signature", "xamzsignature", "xgoogsignature"})
# Headers, told in prose as `Name: value`, or in a list beside their value.
HEADER_NAMES: Final = frozenset(
    {
        "authorization", "cookie", "proxyauthorization", "setcookie", "xamzsecuritytoken", "xapikey", "xauthtoken",
        "xcsrftoken", "xgoogapikey", "ocpapimsubscriptionkey",
    }
)  # fmt: skip
# In a list of header names, what stands behind such a one is no value but the next name.
OTHER_HEADERS: Final = frozenset(
    {
        "accept", "acceptencoding", "acceptlanguage", "cachecontrol", "connection", "contentlength", "contenttype", "date",
        "etag", "host", "ifmatch", "ifnonematch", "location", "origin", "range", "referer", "useragent", "vary",
        "xrequestedwith", "xrequestid", "idempotencykey", "traceparent",
    }
)  # fmt: skip

_IGNORED: Final = str.maketrans("", "", "-_ ")


def plain(name: str) -> str:
    """Return a name as it is compared; only ASCII has the letters that names of secrets are written with."""
    return name.translate(_IGNORED).lower() if name.isascii() else name


def is_secret(name: str, own: Set[str] = frozenset()) -> bool:
    """Tell whether a name, as `plain` gives it, names a secret, by these rules or by an operator's own names."""
    return name in SECRET_NAMES or name.endswith(SECRET_ENDINGS) or name in own
