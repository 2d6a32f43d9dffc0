"""Names of tables and of the kinds of usage rows; the columns themselves stand in the numbered SQL files."""

from typing import Final

TOOL_EXECUTIONS: Final = "tool_executions"
USAGE_WINDOWS: Final = "usage_windows"
DEAD_LETTERS: Final = "dead_letters"
PROGRESS: Final = "progress"
# Outcomes of `toolledger verify`.
VERIFICATIONS: Final = "verifications"
# What retention has taken away.
PURGES: Final = "purges"
# A view over the rows of KIND_CORRECTION.
USAGE_CORRECTIONS: Final = "usage_corrections"

SCHEMA_MIGRATIONS: Final = "schema_migrations"
# The newest numbered file. Answers from tables that have not come so far would be wrong, not only slower.
SCHEMA_VERSION: Final = 20

KIND_TOOL_MINUTE: Final = "tool_minute"
KIND_TOOL_HOUR: Final = "tool_hour"
KIND_TOOL_DAY: Final = "tool_day"
KIND_USER_HOUR: Final = "user_hour"
KIND_SESSION_HOUR: Final = "session_hour"
KIND_USER_DAY: Final = "user_day"
KIND_SESSION_DAY: Final = "session_day"
KIND_RECEIPT: Final = "receipt"
KIND_PROJECT_RECEIPT: Final = "project_receipt"
KIND_CORRECTION: Final = "correction"

# Before when a row's project has been purged, epoch s, with the projects and their times beside each other as parameters.
PURGED_BEFORE: Final = "transform(toString(project_id), {purged:Array(String)}, {since:Array(UInt32)}, toUInt32(0))"
# Kinds of notes in PURGES: all logs that were ever taken of a project, up to a day; and that its payloads were looked for.
PURGE_TOTALS: Final = "totals"
PURGE_PAYLOADS: Final = "payloads"

# A call's id with its project's, as the index `rows_of_own_id` has it: nothing of another project is read for it.
OWN_ID: Final = "concat(project_id, ' ', id)"
# The same of other columns of which a value stands in few calls, as their indexes have it; of a call without a value ''.
OWN: Final = {
    column: f"if({column} = '', '', concat(project_id, ' ', {column}))"
    for column in ("user_id", "session_id", "trace_id", "request_id")
}
# Of failed calls alone: a user has few of these among many calls.
OWN_FAILED_USER: Final = f"if(status = 'failed', {OWN['user_id']}, '')"

# What stands in first_call of a row that tells of no call: larger than any real one, so a minimum ignores it.
NO_FIRST_CALL: Final = (2**63 - 1, "")


def own_value(project_id: str, value: str) -> str:
    """Return what `OWN_ID` is of a project's call with that id, and `OWN` of one with that value."""
    return f"{project_id} {value}"
