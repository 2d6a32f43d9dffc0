"""The errors that cross a seam, as one tree.

LedgerError(code, stage: receiving | processing | sending, retriable)
├─ ConfigurationError             exit 2, before any connection
├─ InvalidEvent(reason)           refused over HTTP, a dead letter from Kafka; never retried
├─ TransportError   retriable     backoff with a deadline
│  ├─ BrokerUnavailable           Kafka did not take or give records
│  └─ StoreUnavailable            ClickHouse did not take or give rows
├─ LedgerInvariantBroken          stop the worker loudly; restart from receipts
└─ QueryError                     HTTP 4xx or 504
"""

from typing import ClassVar, Literal

Stage = Literal["receiving", "processing", "sending"]


class LedgerError(Exception):
    """Root of every error of ours; `code` is short, stable and fit for a metric label."""

    code: ClassVar[str] = "internal"
    stage: ClassVar[Stage] = "processing"
    retriable: ClassVar[bool] = False


class ConfigurationError(LedgerError):
    """Settings or the machine do not allow a start; the message is one line that says what to do."""

    code = "configuration"


class InvalidEvent(LedgerError):
    """Input that cannot become an event.

    Args:
        reason: one of the codes of `ingest.contract.event.Reason`.
        message: names the member and the limit it broke.
    """

    code = "invalid_event"
    stage = "receiving"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class TransportError(LedgerError):
    """A server did not answer as needed; the same call may succeed later."""

    code = "transport"
    stage = "sending"
    retriable = True


class BrokerUnavailable(TransportError):
    """Kafka is away, too slow, or refuses writes."""

    code = "broker_unavailable"


class StoreUnavailable(TransportError):
    """ClickHouse is away, too slow, or refuses writes."""

    code = "store_unavailable"


class LedgerInvariantBroken(LedgerError):
    """Something the ledger relies on does not hold; going on could miscount, so the worker stops."""

    code = "ledger_invariant_broken"


class QueryError(LedgerError):
    """A question that cannot be answered as asked.

    Args:
        status: HTTP status, 400 to 599.
        slug: stable machine-readable name.
        message: says what was wrong and what to do.
        suggested_fix: optional, one sentence.
        errors: optional, one line a fault.
        retry_after_s: of a 429, when to come back.
    """

    code = "query"
    stage = "receiving"

    def __init__(
        self,
        status: int,
        slug: str,
        message: str,
        *,
        suggested_fix: str | None = None,
        errors: tuple[str, ...] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.slug = slug
        self.message = message
        self.suggested_fix = suggested_fix
        self.errors = errors
        self.retry_after_s = retry_after_s
