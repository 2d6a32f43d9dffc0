"""The HTTP API: does it answer, is it ready, and is the key in force?"""

from typing import Final

from deploy.api import Api
from deploy.doctor.finding import Finding, away, failed, ok
from ingest.contract.access import KEY_PREFIX_ORG
from ingest.contract.addresses import is_key
from ingest.contract.errors import ConfigurationError, LedgerError, QueryError

_TIMEOUT_S: Final = 10.0
_FORBIDDEN: Final = 403


def examine(url: str, where: str, key: str | None) -> list[Finding]:
    """Ask the service.

    Args:
        url: its address.
        where: who named it, for the answer.
        key: an API key to try, None where there is none.
    """
    fits = key is None or is_key(key)
    try:
        api = Api(url, key if key and fits else "", timeout_s=_TIMEOUT_S)
        ready = api.send("GET", "/readyz")
    except ConfigurationError as error:
        return [away("service", error, where)]
    if ready.status != 200:
        return [failed("service", f"{url} is not ready: {_reasons(ready.body)} (address {where})", "mend what it names")]
    found = ok("service", f"{url} is ready (address {where})")
    if not fits:
        return [found, failed("key", "it holds a character that no key has, as a line end", "copy it once more")]
    return [found] if key is None else [found, _key(api, key)]


def _key(api: Api, key: str) -> Finding:
    """Try the key where every scope but `ingest` may ask; the answer comes from the query service, behind the other one."""
    if key.startswith(KEY_PREFIX_ORG):
        return ok("key", "of an organisation: not tried, its routes are others")
    try:
        own = api.get("/v1/key")
    except QueryError as error:
        if error.status == _FORBIDDEN:
            return ok("key", "in force, to send only")
        return failed("key", str(error), "toolledger keys list shows which are in force")
    except LedgerError as error:
        return failed("key", str(error), "see what listens at that address")
    return ok("key", f"in force, {own['scope']}, of project {own['project_id']}")


def _reasons(body: bytes) -> str:
    return " ".join(body.decode(errors="replace").split())[:300]
