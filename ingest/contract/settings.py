"""Settings every service shares; each service adds its own in its `settings` module.

Read once at the composition root from the environment (prefix `TOOLLEDGER_`) and from arguments, then frozen.
"""

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingest.contract.addresses import is_http, is_kafka, is_service_link
from ingest.contract.errors import ConfigurationError
from ingest.contract.redact import Redactor
from ingest.contract.redact_patterns import redactor


def default_data() -> Path:
    """Return the folder of the embedded stack unless another is named: `.toolledger` in the working folder."""
    return Path(".toolledger")


class CommonSettings(BaseSettings):
    """Addresses and logging, the same for every service."""

    # An empty variable is none: so arrives what is handed on and nobody has set.
    model_config = SettingsConfigDict(
        env_prefix="TOOLLEDGER_", frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    kafka: str = Field(default="127.0.0.1:9092", description="Kafka bootstrap addresses, host:port, comma separated")
    clickhouse: SecretStr = Field(
        default=SecretStr("http://127.0.0.1:8123"),
        description="ClickHouse HTTP address, http(s)://user:password@host:port/database",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="lowest level logged")
    log_json: bool | None = Field(default=None, description="JSON log lines; unset: unless on a terminal")

    @model_validator(mode="before")
    @classmethod
    def _own(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if not is_service_link(name, value)}

    @field_validator("kafka")
    @classmethod
    def _addresses(cls, value: str) -> str:
        if not is_kafka(value):
            raise ValueError("each Kafka address is host:port, as in 127.0.0.1:9092")
        return value

    @field_validator("clickhouse")
    @classmethod
    def _url(cls, value: SecretStr) -> SecretStr:
        if not is_http(value.get_secret_value()):
            raise ValueError("the ClickHouse address is http(s)://[user:password@]host:port[/database]")
        return value


class RedactionSettings(CommonSettings):
    """Own rules of redaction, for the services that see events on their way; give each of them the same."""

    redact_patterns: str = Field(
        default="", description="own patterns of secrets in texts, RE2 expressions, one a line; of one with a group, the group"
    )
    redact_names: str = Field(default="", description="own names of members whose values are secrets, with commas between")

    @field_validator("redact_patterns")
    @classmethod
    def _usable_patterns(cls, value: str) -> str:
        redactor(value)
        return value

    @field_validator("redact_names")
    @classmethod
    def _usable_names(cls, value: str) -> str:
        redactor("", value)
        return value

    def redactor(self) -> Redactor:
        """Return the rules of redaction, those always in force and these."""
        return redactor(self.redact_patterns, self.redact_names)


S = TypeVar("S", bound=CommonSettings)


def load(model: type[S], **overrides: object) -> S:
    """Read a settings model; values given here win over the environment, None means not given.

    Raises:
        ConfigurationError: one line that names the setting and what it takes.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return model(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(f"TOOLLEDGER_{name}: {first['msg']}") from None
