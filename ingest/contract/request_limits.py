"""What one request of ingest may hold unless settings say otherwise: defaults of `ingest.settings`, told by the API page."""

from typing import Final

MIB: Final = 1024 * 1024
BODY_BYTES_MAX: Final = 16 * MIB
# Twice the body: events compress far better than that, and a bomb meets the limit after a few milliseconds.
DECODED_BYTES_MAX: Final = 32 * MIB
# At about 6 us an event, the longest that one request can hold up the others is a tenth of a second.
EVENTS_MAX: Final = 10_000
# A header, so no setting.
IDEMPOTENCY_KEY_CHARS_MAX: Final = 256
