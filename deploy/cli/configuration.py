"""`toolledger config`: the settings in force and where each came from; secrets are masked."""

import os
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import click

from deploy.cli.common import json_option, say_json
from ingest.contract.addresses import is_http, is_service_link

# Read by the commands and the embedded servers themselves; the services' own stand in their models.
_COMMANDS: Final = (
    ("TOOLLEDGER_DATA", ".toolledger", "data folder of the embedded stack"),
    ("TOOLLEDGER_URL", "http://127.0.0.1:8600", "address of the HTTP API, for commands and clients"),
    ("TOOLLEDGER_API_KEY", "", "key for the HTTP API, for commands and clients"),
    ("TOOLLEDGER_CACHE", "~/.cache/toolledger", "folder of the embedded Kafka's downloads, and of how far files were sent"),
    ("TOOLLEDGER_MAVEN", "", "mirror of Maven Central for the embedded Kafka; unset: Maven Central itself"),
    ("TOOLLEDGER_KAFKA_ARCHIVE", "yes", "`no`: do not make the class archive that halves Kafka's start"),
    ("TOOLLEDGER_KAFKA_JVM_FLAGS", "", "further flags of the embedded Kafka's JVM, as -XX:TieredStopAtLevel=1"),
)
# Read by `ingest.client`, in whatever program records its tool calls.
_CLIENTS: Final = (
    ("TOOLLEDGER_SPOOL", "", "folder for calls that cannot be sent yet, `no`: none; unset: one of this address and key"),
    ("TOOLLEDGER_SPOOL_BYTES_MAX", "268435456", "most bytes in that folder, compressed"),
    ("TOOLLEDGER_PAYLOADS", "yes", "`no`: arguments, results and metadata are not recorded"),
    ("TOOLLEDGER_LOG_PAYLOADS", "no", "`yes`: lines of level debug show payloads, redacted"),
)
_SECRETS: Final = frozenset({"TOOLLEDGER_API_KEY"})


@click.command(epilog="Example: toolledger config --json")
@json_option
def config(as_json: bool) -> None:
    """Show every setting, its value, and whether the default or the environment gave it."""
    rows = list(settings_in_force())
    if as_json:
        for name, value, origin, services, text in rows:
            say_json(name=name, value=value, origin=origin, services=services, description=text)
        return
    from deploy.cli.tables import table

    shown = [(name, value, origin, ", ".join(services), text) for name, value, origin, services, text in rows]
    table(["setting", "value", "from", "for", "meaning"], shown, empty="")


def settings_in_force() -> Iterator[tuple[str, str, str, tuple[str, ...], str]]:
    """Yield name, value as text, origin (`default` or `environment`), services, and meaning of every setting.

    Raises:
        ConfigurationError: a value that a service would refuse.
    """
    from pydantic import SecretStr

    from ingest.contract.settings import CommonSettings, load
    from ingest.settings import IngestSettings
    from processors.settings import WorkerSettings
    from query_api.settings import QuerySettings

    models: dict[str, type[CommonSettings]] = {"ingest": IngestSettings, "worker": WorkerSettings, "query": QuerySettings}
    loaded = {service: load(model) for service, model in models.items()}
    seen: set[str] = set()
    for service, model in models.items():
        for member, field in model.model_fields.items():
            if member in seen:
                continue
            seen.add(member)
            name = f"TOOLLEDGER_{member.upper()}"
            value: Any = getattr(loaded[service], member)
            if isinstance(value, SecretStr):
                value = masked(value.get_secret_value())
            services = tuple(name for name, other in models.items() if member in other.model_fields)
            text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            yield name, text, _origin(name), services, field.description or ""
    for whose, settings in (("commands", _COMMANDS), ("Python client", _CLIENTS)):
        for name, default, text in settings:
            value = os.environ.get(name) or default
            yield name, "***" if name in _SECRETS and value else value, _origin(name), (whose,), text


def _origin(name: str) -> str:
    # pydantic reads names without regard to case.
    given = (value for each, value in os.environ.items() if each.upper() == name)
    return "environment" if any(value and not is_service_link(name, value) for value in given) else "default"


def masked(secret: str) -> str:
    """Mask a secret; of an address only its password is one."""
    if not is_http(secret):
        return "***" if secret else ""
    parts = urlsplit(secret)
    if parts.password is None:
        return secret
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username}:***@{host}"))
