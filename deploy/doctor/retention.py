"""Whether retention is carried out, where projects ask for it."""

from deploy import retention
from deploy.doctor.finding import Finding, ok, warning
from ingest.contract.errors import ConfigurationError, TransportError


def examine(kafka: str, clickhouse: str) -> Finding | None:
    """Look for what is long past its retention; None where nobody asks for any, or a server does not answer."""
    try:
        asked, late = retention.overdue(kafka, clickhouse)
    except (TransportError, ConfigurationError):
        return None
    return judge(asked, late) if asked else None


def judge(asked: int, late: list[str]) -> Finding:
    """Judge what was found.

    Args:
        asked: how many projects have a retention.
        late: those of them of which something is days past it.
    """
    if late:
        names = ", ".join(late[:5]) + (f" and {len(late) - 5} more" if len(late) > 5 else "")
        text = f"days past it: logs or payloads of {names}"
        return warning("retention", text, "run toolledger retention once a day; toolledger up does so by itself")
    return ok("retention", f"nothing is long past that of {asked} project{'' if asked == 1 else 's'}")
