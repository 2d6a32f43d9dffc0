"""Who may use the server. chDB has no users: a name and a password are judged here, before anything reaches the engine."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from deploy.embedded.clickhouse.errors import AUTHENTICATION_FAILED, ClickHouseError
from deploy.embedded.clickhouse.request import Credentials


def authenticate(users: Mapping[str, str], credentials: Credentials) -> str:
    """Return the user's name.

    Raises:
        ClickHouseError: 516; the text does not say which of name and password was wrong.
    """
    expected = users.get(credentials.user)
    given = credentials.password.encode("utf-8", errors="surrogateescape")
    # Compared in constant time, also for a name that does not exist.
    right = hmac.compare_digest(given, (expected or "").encode())
    if expected is None or not right:
        raise ClickHouseError(
            AUTHENTICATION_FAILED,
            "AUTHENTICATION_FAILED",
            f"{credentials.user}: Authentication failed: password is incorrect, or there is no user with such name.",
        )
    return credentials.user
