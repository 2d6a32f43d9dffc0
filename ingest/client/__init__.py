"""The Python client: records tool calls without ever hurting who makes them, and reads logs and usage.

It needs nothing of the server's: msgspec, and the standard library.
"""

from ingest.client.connection import ServiceUnavailable
from ingest.client.counting import Counts
from ingest.client.executions import Execution
from ingest.client.ledger import AsyncToolLedger, ToolLedger
from ingest.client.reading import LogNotFound, RequestFailed
from ingest.client.results import Result
from ingest.client.sessions import AsyncSession, Session
from ingest.contract.errors import ConfigurationError, LedgerError

__all__ = [
    "AsyncSession",
    "AsyncToolLedger",
    "ConfigurationError",
    "Counts",
    "Execution",
    "LedgerError",
    "LogNotFound",
    "RequestFailed",
    "Result",
    "ServiceUnavailable",
    "Session",
    "ToolLedger",
]
