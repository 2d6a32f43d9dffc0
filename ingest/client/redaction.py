"""The one place where secrets are taken out, before anything is sent, written to disk, or shown."""

from ingest.contract.redact import redact_json

__all__ = ["redact_json"]
