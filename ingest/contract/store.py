"""How every service opens ClickHouse: explicit timeouts, no client-side session, one address form; and its faults in words."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from ingest.contract.addresses import is_http
from ingest.contract.errors import ConfigurationError, StoreUnavailable

CONNECT_TIMEOUT_S: Final = 5
# Of questions about calls: inverted indexes are asked before any row is read, so that parts without a value stay closed; and
# they only say which stretches of rows to read: to read the answer out of an index instead is no quicker where rows are few.
READ_INDEXES: Final = {"use_skip_indexes_on_data_read": 0, "query_plan_direct_read_from_text_index": 0}
_AWAY: Final = ("Connection refused", "Max retries", "Name or service not known")
_CODE: Final = re.compile(r"Code: (\d+)\. (?:DB::Exception: )?(.*?)(?: \(version .*)?$")
# What to do about a refusal, by its code. Source: ClickHouse, src/Common/ErrorCodes.cpp.
_FIXES: Final = {
    60: "run toolledger migrate",
    81: "run toolledger migrate, or name another database in TOOLLEDGER_CLICKHOUSE",
    164: "name a user who may write in TOOLLEDGER_CLICKHOUSE",
    497: "give that user the right, or name another one in TOOLLEDGER_CLICKHOUSE",
    516: "put http(s)://user:password@host:port into TOOLLEDGER_CLICKHOUSE",
}
_SAID_CHARS_MAX: Final = 400


@contextlib.contextmanager
def told(url: str) -> Iterator[None]:
    """Turn what the client library raises within the block into one line that says what to do.

    Args:
        url: whom the block asks; its password is not shown.

    Raises:
        StoreUnavailable: ClickHouse did not answer, broke off, or refused.
    """
    try:
        yield
    except ClickHouseError as error:
        raise StoreUnavailable(_one_line(url, error)) from None


def _one_line(url: str, error: ClickHouseError) -> str:
    asked = connection(url, read_timeout_s=0)
    where = f"{asked['host']}:{asked['port']}"
    text = " ".join(str(error).split())
    if any(each in text for each in _AWAY):
        return f"no ClickHouse answers at {where}: start it, or name its address in TOOLLEDGER_CLICKHOUSE"
    if (refusal := _CODE.search(text)) is None:
        return f"ClickHouse at {where} broke off, or something else answers there: {text[:_SAID_CHARS_MAX]}"
    code, reason = int(refusal[1]), refusal[2][:_SAID_CHARS_MAX]
    fix = _FIXES.get(code)
    return f"ClickHouse at {where} refused: {reason}{f': {fix}' if fix else ''}"


def address(url: str) -> SplitResult:
    """Take `http(s)://user:password@host:port/database` apart.

    Raises:
        ConfigurationError: it is no address; it may hold a password, so it is not shown.
    """
    if not is_http(url):
        form = "http(s)://[user:password@]host:port[/database]"
        raise ConfigurationError(f"the address of ClickHouse is none: put {form} into TOOLLEDGER_CLICKHOUSE")
    return urlsplit(url)


def connection(url: str, *, read_timeout_s: float) -> dict[str, Any]:
    """Turn `http(s)://user:password@host:port/database` into clickhouse-connect's arguments.

    Raises:
        ConfigurationError: it is no address.

    `autogenerate_session_id` is off: a session would serialise calls that have nothing to do with each other.
    """
    parts = address(url)
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
