"""What a client is told: arguments first, then the environment (`TOOLLEDGER_...`), then defaults. Read once, then frozen."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from ingest.contract.addresses import is_http, is_key
from ingest.contract.errors import ConfigurationError

MIB: Final = 1024 * 1024
DEFAULT_URL: Final = "http://127.0.0.1:8600"
# Half of the second within which a call is promised to be searchable is left to ingest, Kafka and the worker.
FLUSH_INTERVAL_S: Final = 0.2
# Ingest costs least per event in requests of about 500; larger ones only make an answer later.
BATCH_EVENTS: Final = 500
BATCH_BYTES: Final = 1 * MIB
MEMORY_BYTES: Final = 32 * MIB
# An hour without a server at a hundred calls a second of 800 B, compressed.
SPOOL_BYTES: Final = 256 * MIB
# Ingest gives Kafka 10 s to acknowledge; what takes twice that long will not be answered.
TIMEOUT_S: Final = 20.0
# Supervisors kill after 10 to 30 s.
CLOSE_TIMEOUT_S: Final = 5.0
_YES: Final = frozenset({"yes", "true", "1", "on"})
_NO: Final = frozenset({"no", "false", "0", "off"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One client's settings.

    `api_key` None: nothing is recorded. `spool_folder` None: nothing is kept on disk. `payloads` false: arguments, results and
    metadata are not recorded. `redact_patterns` are one a line, `redact_names` have commas between.
    """

    base_url: str = DEFAULT_URL
    api_key: str | None = field(default=None, repr=False)
    payloads: bool = True
    redact_patterns: str = ""
    redact_names: str = ""
    framework: str | None = None
    spool_folder: Path | None = None
    spool_bytes_max: int = SPOOL_BYTES
    memory_bytes_max: int = MEMORY_BYTES
    batch_events_max: int = BATCH_EVENTS
    batch_bytes_max: int = BATCH_BYTES
    flush_interval_s: float = FLUSH_INTERVAL_S
    timeout_s: float = TIMEOUT_S
    close_timeout_s: float = CLOSE_TIMEOUT_S

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url) if is_http(self.base_url) else None
        if parts is None or parts.query or parts.fragment:
            raise ConfigurationError(f"base_url (TOOLLEDGER_URL) is http(s)://host[:port][/path], not {self.base_url!r}")
        if self.api_key is not None and not is_key(self.api_key):
            raise ConfigurationError("api_key (TOOLLEDGER_API_KEY) holds characters that no key has; copy it once more")
        for name in ("spool_bytes_max", "memory_bytes_max", "batch_events_max", "batch_bytes_max"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is at least 1")
        for name in ("flush_interval_s", "timeout_s", "close_timeout_s"):
            value = getattr(self, name)
            if value < 0 or not math.isfinite(value) or (name == "timeout_s" and not value):
                raise ConfigurationError(f"{name} is a number of seconds that is not negative")


def resolve(
    *,
    api_key: str | None,
    base_url: str | None,
    payloads: bool | None,
    spool: str | os.PathLike[str] | Literal[False] | None,
    spool_bytes_max: int | None,
    redact_patterns: Sequence[str] | None,
    redact_names: Sequence[str] | None,
    environment: Mapping[str, str],
    **more: object,
) -> Options:
    """Return the options in force.

    Args:
        spool: a folder for this project alone, or False for none; by default one of this address and key under
            `$XDG_STATE_HOME/toolledger/spool` (`~/.local/state`).
        environment: of the process.
        more: other options, None where not given.

    Raises:
        ConfigurationError: a value that cannot be used; says which.
    """
    key = (api_key or environment.get("TOOLLEDGER_API_KEY") or "").strip() or None
    url = (base_url or environment.get("TOOLLEDGER_URL") or DEFAULT_URL).rstrip("/")
    given = {name: value for name, value in more.items() if value is not None}
    return Options(
        base_url=url,
        api_key=key,
        payloads=_switch("TOOLLEDGER_PAYLOADS", environment, default=True) if payloads is None else payloads,
        redact_patterns=_several("TOOLLEDGER_REDACT_PATTERNS", redact_patterns, "\n", environment),
        redact_names=_several("TOOLLEDGER_REDACT_NAMES", redact_names, ",", environment),
        spool_folder=_spool_folder(spool, url, key, environment),
        spool_bytes_max=_bytes("TOOLLEDGER_SPOOL_BYTES_MAX", environment) if spool_bytes_max is None else spool_bytes_max,
        **given,  # type: ignore[arg-type]
    )


def _spool_folder(
    spool: str | os.PathLike[str] | Literal[False] | None, url: str, key: str | None, environment: Mapping[str, str]
) -> Path | None:
    named = environment.get("TOOLLEDGER_SPOOL", "")
    if spool is False or key is None or (spool is None and named.lower() in _NO):
        return None
    if spool or named:
        return Path(spool or named).expanduser()
    # Calls of one project must never be sent with the key of another: a folder for each address and key.
    whose = hashlib.sha256(f"{url}\0{key}".encode()).hexdigest()[:16]
    state = environment.get("XDG_STATE_HOME", "")
    try:
        root = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    except RuntimeError:
        # A user without a home.
        return None
    return root / "toolledger" / "spool" / whose


def _several(name: str, given: Sequence[str] | None, between: str, environment: Mapping[str, str]) -> str:
    if given is None:
        return environment.get(name, "")
    return given if isinstance(given, str) else between.join(given)


def _switch(name: str, environment: Mapping[str, str], *, default: bool) -> bool:
    text = environment.get(name, "").strip().lower()
    if not text:
        return default
    if text in _YES or text in _NO:
        return text in _YES
    raise ConfigurationError(f"{name} is yes or no, not {text!r}")


def _bytes(name: str, environment: Mapping[str, str]) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return SPOOL_BYTES
    if not text.isdigit() or not int(text):
        raise ConfigurationError(f"{name} is a number of bytes, not {text!r}")
    return int(text)
