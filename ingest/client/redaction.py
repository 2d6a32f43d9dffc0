"""The one place where secrets are taken out, before anything is sent, written to disk, or shown."""

from collections.abc import Callable

from ingest.client.options import Options
from ingest.contract.errors import ConfigurationError
from ingest.contract.redact_patterns import redactor


def redaction(options: Options) -> Callable[[bytes], bytes]:
    """Return what takes secrets out of an event's JSON: by the rules of ingest, and by the client's own.

    Raises:
        ConfigurationError: a pattern or a name of the client's own cannot be used; says which, and why.
    """
    try:
        return redactor(options.redact_patterns, options.redact_names).event
    except ValueError as error:
        raise ConfigurationError(
            f"redact_patterns (TOOLLEDGER_REDACT_PATTERNS), redact_names (TOOLLEDGER_REDACT_NAMES): {error}"
        ) from None
