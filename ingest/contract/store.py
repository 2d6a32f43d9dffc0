"""How every service opens ClickHouse: explicit timeouts, no client-side session, one address form."""

from typing import Any, Final
from urllib.parse import unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client

CONNECT_TIMEOUT_S: Final = 5
# Of questions about calls: inverted indexes are asked before any row is read, so that parts without a value stay closed; and
# they only say which stretches of rows to read: to read the answer out of an index instead is no quicker where rows are few.
READ_INDEXES: Final = {"use_skip_indexes_on_data_read": 0, "query_plan_direct_read_from_text_index": 0}


def connection(url: str, *, read_timeout_s: float) -> dict[str, Any]:
    """Turn `http(s)://user:password@host:port/database` into clickhouse-connect's arguments.

    `autogenerate_session_id` is off: a session would serialise calls that have nothing to do with each other.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    return {
        "host": parts.hostname,
        "port": parts.port or (8443 if secure else 8123),
        "secure": secure,
        "username": unquote(parts.username or "default"),
        "password": unquote(parts.password or ""),
        "database": parts.path.strip("/") or "default",
        "connect_timeout": CONNECT_TIMEOUT_S,
        "send_receive_timeout": read_timeout_s,
        "autogenerate_session_id": False,
    }


def client(url: str, *, read_timeout_s: float = 300, **more: Any) -> Client:
    """Open a blocking client (command line, migrations, verification)."""
    return clickhouse_connect.get_client(**connection(url, read_timeout_s=read_timeout_s), **more)


async def async_client(url: str, *, read_timeout_s: float = 30, **more: Any) -> AsyncClient:
    """Open an asynchronous client (services)."""
    return await clickhouse_connect.get_async_client(**connection(url, read_timeout_s=read_timeout_s), **more)
