"""Dead letters of a project as SQL. Pure; `query_api.letter_items` turns rows into answers.

Newest first by acceptance, then by origin: a total order. A page takes the head of each payload, a detail all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ingest.contract.replay import parse_letter_id
from ingest.contract.tables import DEAD_LETTERS, OWN_ID, TOOL_EXECUTIONS
from query_api.paging import Place
from query_api.tenant import OwnValues, Statement, Tenant

# Of each payload on a page: enough to see what it is, little enough that a page of large ones stays small.
HEAD_BYTES: Final = 4_096
# A message may quote a whole member.
MESSAGE_CHARS: Final = 1_000

COLUMNS: Final = (
    "incarnation",
    "kafka_partition",
    "kafka_offset",
    "kafka_index",
    "kafka_topic",
    "accepted_ms",
    "reason",
    "message",
    "key",
    "bytes",
    "payload",
    "own_id",
)
_ORIGIN: Final = "(accepted_at, incarnation, kafka_partition, kafka_offset, kafka_index)"
_ORDER: Final = "accepted_at DESC, incarnation DESC, kafka_partition DESC, kafka_offset DESC, kafka_index DESC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Letters:
    """One page of dead letters.

    Args:
        from_ms, to_ms: `[from_ms, to_ms)` of acceptance, epoch ms; None: all that is kept.
        reason: only these.
        after: the last one of the page before.
    """

    limit: int
    from_ms: int | None = None
    to_ms: int | None = None
    reason: str | None = None
    after: Place | None = None


def page_statement(tenant: Tenant, asked: Letters) -> Statement:
    """Return the statement of a page: rows of `COLUMNS`, one more than the page holds where there is a next one."""
    where: list[str] = []
    values: dict[str, object] = {}
    if asked.from_ms is not None:
        where.append(f"accepted_at >= {_moment('from_ms')}")
        values["from_ms"] = asked.from_ms
    if asked.to_ms is not None:
        where.append(f"accepted_at < {_moment('to_ms')}")
        values["to_ms"] = asked.to_ms
    if asked.reason is not None:
        where.append("reason = {reason:String}")
        values["reason"] = asked.reason
    if asked.after is not None:
        place = parse_letter_id(asked.after.id)
        assert place is not None, "a cursor of ours holds an id"
        where.append(
            f"{_ORIGIN} < ({_moment('after_ms')}, {{incarnation:String}}, {{partition:UInt32}}, {{offset:UInt64}},"
            " {index:UInt32})"
        )
        values |= dict(zip(("incarnation", "partition", "offset", "index"), place, strict=True))
        values["after_ms"] = asked.after.timestamp_ms
    text = (
        f"SELECT {_columns(f'substring(payload, 1, {HEAD_BYTES})', f'leftUTF8(message, {MESSAGE_CHARS})')}"
        f" {tenant.rows_of(DEAD_LETTERS, where)} ORDER BY {_ORDER} LIMIT {asked.limit + 1:d}"
    )
    return Statement(tenant=tenant, text=text, values=values)


def letter_statement(tenant: Tenant, place: tuple[str, int, int, int]) -> Statement:
    """Return the statement of one dead letter: at most one row of `COLUMNS`, with all of its payload."""
    where = [
        "incarnation = {incarnation:String}",
        "kafka_partition = {partition:UInt32}",
        "kafka_offset = {offset:UInt64}",
        "kafka_index = {index:UInt32}",
    ]
    text = f"SELECT {_columns('payload', 'message')} {tenant.rows_of(DEAD_LETTERS, where)} LIMIT 1"
    return Statement(
        tenant=tenant, text=text, values=dict(zip(("incarnation", "partition", "offset", "index"), place, strict=True))
    )


def known_statement(tenant: Tenant, ids: Sequence[str]) -> Statement:
    """Return the statement of which of some ids are in the logs."""
    text = f"SELECT DISTINCT id {tenant.rows_of(TOOL_EXECUTIONS, [f'{OWN_ID} IN {{ids:Array(String)}}'])}"
    return Statement(tenant=tenant, text=text, values={"ids": OwnValues(tuple(ids))})


def replayed_statement(tenant: Tenant, letters: Sequence[str], *, first_ms: int, last_ms: int) -> Statement:
    """Return the statement of which dead letters have become logs.

    Args:
        first_ms, last_ms: when they were accepted; a replay keeps that, so the search is narrow.
    """
    where = [
        "replay_of IN {letters:Array(String)}",
        f"accepted_at >= {_moment('first_ms')} AND accepted_at <= {_moment('last_ms')}",
    ]
    text = f"SELECT DISTINCT replay_of {tenant.rows_of(TOOL_EXECUTIONS, where)}"
    return Statement(tenant=tenant, text=text, values={"letters": list(letters), "first_ms": first_ms, "last_ms": last_ms})


def _columns(payload: str, message: str) -> str:
    # Base64, because rows travel as JSON and payloads are any bytes. An event's own id tells whether it came by itself since.
    made = {
        "accepted_ms": "toUnixTimestamp64Milli(accepted_at)",
        "message": message,
        "key": "base64Encode(key)",
        "bytes": "length(payload)",
        "payload": f"base64Encode({payload})",
        "own_id": "JSONExtractString(payload, 'id')",
    }
    return ", ".join(made.get(name, name) for name in COLUMNS)


def _moment(name: str) -> str:
    return f"fromUnixTimestamp64Milli({{{name}:Int64}}, 'UTC')"
