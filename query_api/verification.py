"""What `toolledger verify` found the last time, as SQL. Pure.

The command writes a row for each project and one for the whole ledger, under a project_id that no key has. Of the latter only
what holds for everybody is asked: when, whether all was proved, and how many findings are of no project.
"""

from typing import Final

from ingest.contract.tables import VERIFICATIONS
from query_api.tenant import Statement, Tenant

COUNTS: Final = ("events", "accepted", "duplicates", "conflicts", "dead_letters", "forwarded", "rows", "calls", "purged")
# No column has the name of a table: questions are searched for those.
COLUMNS: Final = tuple({"dead_letters": "letters"}.get(name, name) for name in COUNTS)
_NEWEST: Final = "ORDER BY verified_at DESC LIMIT 1"
_AT_MS: Final = "toUnixTimestamp64Milli(verified_at)"

# One row: when (epoch ms), whether all was proved, how many findings are of no project; none where no check ever ran.
LEDGER: Final = f"SELECT {_AT_MS}, proved, findings_count FROM {VERIFICATIONS} WHERE project_id = '' {_NEWEST}"


def project_statement(tenant: Tenant) -> Statement:
    """Return the statement of a project's own part: when (epoch ms), `COUNTS`, findings as JSON, and how many there are."""
    text = f"SELECT {_AT_MS}, {', '.join(COLUMNS)}, findings, findings_count {tenant.rows_of(VERIFICATIONS)} {_NEWEST}"
    return Statement(tenant=tenant, text=text, values={})
