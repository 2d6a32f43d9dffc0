"""From a usage question to one SQL statement. Pure.

The statement is a union of branches, each grouped by the same keys and each read from the fewest rows that know what it needs:

    counts     calls, failed, duration sketch     windows of the smallest family and the raw edges
    distinct   users and sessions, by their keys  days of presence; with other columns or inside a day, windows of the user or
                                                  session family and the raw edges
    created    sessions by their first call       session rows alone: they hold the exact instant of the first call

and one grouping over the union, which joins the branches and, by a second grouping set, gives the totals of everything in the
same snapshot. Values are bound as parameters; the only literals are numbers made here.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from ingest.contract.sketch import LN_GAMMA, TINY_MS, ZERO_BUCKET
from ingest.contract.tables import KIND_SESSION_DAY, KIND_SESSION_HOUR, OWN, TOOL_EXECUTIONS, USAGE_WINDOWS
from query_api.tenant import OwnValues, Statement, Tenant
from query_api.usage.calendar import Run
from query_api.usage.grains import DAY_MS, HOUR_MS, PRESENCE, Family, Presence, Span, family_of, layers, presence
from query_api.usage.question import METRIC_ORDERS, Question

PERCENTILES: Final = (50, 95, 99)
# More are told as hours.
_SPANS_MAX: Final = 8
# A filter is said once more for its index with each project's id, up to as many texts as one project may name values. Many
# projects times many values would be millions to bind, to send and to look for, which costs more than an index saves.
_OWN_VALUES_MAX: Final = 1000

# The logarithm of zero has no bucket; `greatest` keeps it from being taken, because both sides of `if` may be worked out.
_LOG: Final = f"log(greatest(duration_ms, {TINY_MS!r}))"
_BUCKET: Final = f"if(duration_ms < {TINY_MS!r}, toInt16({ZERO_BUCKET}), toInt16(ceil({_LOG} / {LN_GAMMA!r})))"
# What a branch says of a measure it does not know, and how the branches' measures are merged.
_NOTHING: Final = {
    "calls": "toUInt64(0)",
    "failed": "toUInt64(0)",
    "durations": "CAST(map(), 'Map(Int16, UInt64)')",
    "users": "arrayReduce('uniqExactState', CAST([], 'Array({type})'))",
    "seen": "arrayReduce('uniqExactState', CAST([], 'Array({type})'))",
    "created": "toUInt64(0)",
}
# What is counted by its presence.
_SUBJECT_OF: Final = {"users": "user_id", "seen": "session_id"}
_FIRST_MS: Final = "tupleElement(first_call, 1)"
_MERGED: Final = {
    "calls": ("calls", "sum(b_calls)"),
    "failed": ("failed", "sum(b_failed)"),
    "durations": ("durations", "sumMap(b_durations)"),
    "users": ("active_users", "uniqExactMerge(b_users)"),
    "seen": ("active_sessions", "uniqExactMerge(b_seen)"),
    "created": ("sessions", "sum(b_created)"),
}


def statement(tenant: Tenant, question: Question, *, sparing: bool = False) -> Statement:
    """Return the statement that answers a question; `columns(question)` names what its rows hold.

    Rows: the totals first (`total` 1), then at most `limit + 1` groups that have a call, in the order asked for.

    Args:
        sparing: needs memory for the sessions of the range alone, and more time; where `can_spare`.
    """
    conditions, values = filter_conditions(question.filters)
    keys = [f"k{index}" for index in range(len(question.group_by))]
    if question.runs is not None:
        keys = ["start", *keys]
    measures = _measures(question)
    branches: list[str] = []
    if "calls" in question.metrics:
        branches.append(_counts(tenant, question, conditions, keys))
    branches += _distinct(tenant, question, conditions, keys)
    if "created" in measures:
        branches.append(_created(tenant, question, conditions, keys, sparing=sparing))
    sketch = "WITH sumMap(b_durations) AS durations\n" if "durations" in measures else ""
    outputs = ", ".join(f"{text} AS {name}" if text != name else name for name, text in _outputs(question, keys))
    union = "\n UNION ALL\n ".join(branches)
    text = f"{sketch}SELECT {outputs}\nFROM (\n {union}\n)"
    if keys:
        listed = ", ".join(keys)
        text += f"\nGROUP BY GROUPING SETS ((part, {listed}), ())"
        text += f"\nORDER BY {_order(question)}"
        if question.group_by or question.order.by in ("start", "key"):
            # One more than the limit shows that there is more; the totals are a row of their own. A series of every interval in
            # the order of a metric comes whole: what a limit left out would pass for an interval without calls.
            text += f"\nLIMIT {question.limit + 2}"
    return Statement(tenant=tenant, text=text, values=values | _indexed(tenant, question.filters)[1])


def can_spare(question: Question) -> bool:
    """Tell whether the statement holds every session there was before the range's end, unless it is a sparing one."""
    return "sessions" in question.metrics and question.runs is None and question.columns <= {"project_id"}


def columns(question: Question) -> list[str]:
    """Return the names of the statement's columns, in order; `k0`, `k1` are the values of `group_by`."""
    keys = [f"k{index}" for index in range(len(question.group_by))]
    return [name for name, _ in _outputs(question, keys if question.runs is None else ["start", *keys])]


def _measures(question: Question) -> list[str]:
    """Return what is merged over the branches."""
    wanted = question.metrics
    pairs = (
        ("calls", "calls" in wanted),
        ("failed", "calls" in wanted),
        ("durations", "durations" in wanted),
        ("users", "active_users" in wanted),
        ("seen", "active_sessions" in wanted),
        ("created", "sessions" in wanted),
    )
    return [name for name, asked in pairs if asked]


def _outputs(question: Question, keys: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, expression) of each column; percentiles are buckets of the sketch, null where there was no call."""
    # Within the totals `part` has its default, 0.
    outputs = [("total", "1 - part" if keys else "toUInt8(1)"), *((key, key) for key in keys)]
    for name in _measures(question):
        if name == "durations":
            outputs += [(f"p{percent}", _percentile(percent)) for percent in PERCENTILES]
        elif _counted_at_once(question, name):
            outputs.append((_MERGED[name][0], f"sum(b_{name})"))
        else:
            outputs.append(_MERGED[name])
    return outputs


def _percentile(percent: int) -> str:
    """Return the bucket at rank ceil(q * n), in whole numbers: a float product could step over a rank."""
    rank = f"greatest(1, intDiv(calls * {percent} + 99, 100))"
    index = f"arrayFirstIndex(reached -> reached >= {rank}, arrayCumSum(mapValues(durations)))"
    return f"if(calls = 0, NULL, mapKeys(durations)[{index}])"


def _order(question: Question) -> str:
    """Return the order: totals first, then as asked, then what breaks ties."""
    order = question.order
    groups = [f"k{index}" for index in range(len(question.group_by))]
    count = "calls" if "calls" in question.metrics else "sessions"
    terms = ["total DESC"]
    if order.by == "key":
        terms += [f"{key} {'DESC' if order.descending else 'ASC'}" for key in groups or ["start"]]
    elif order.by == "start":
        terms += [f"start {'DESC' if order.descending else 'ASC'}", f"{count} DESC"]
    else:
        assert order.by in METRIC_ORDERS
        expression = "failed / calls" if order.by == "error_rate" else order.by.removesuffix("_ms")
        terms.append(f"{expression} {'DESC' if order.descending else 'ASC'}")
    terms += [f"{key} ASC" for key in groups]
    if question.runs is not None:
        terms.append("start ASC")
    # A column may be named twice above; only the first one can decide anything.
    seen: dict[str, str] = {}
    for term in terms:
        seen.setdefault(term.rsplit(" ", 1)[0], term)
    return ", ".join(seen.values())


def filter_conditions(filters: Mapping[str, tuple[str, ...]]) -> tuple[list[str], dict[str, Any]]:
    """Return SQL conditions that must all hold, and the values they refer to: `v0`, `v1`, ..."""
    texts: list[str] = []
    values: dict[str, Any] = {}
    for index, (column, allowed) in enumerate(sorted(filters.items())):
        if len(allowed) == 1:
            texts.append(f"{column} = {{v{index}:String}}")
            values[f"v{index}"] = allowed[0]
        else:
            texts.append(f"{column} IN {{v{index}:Array(String)}}")
            values[f"v{index}"] = list(allowed)
    return texts, values


def _indexed(tenant: Tenant, filters: Mapping[str, tuple[str, ...]]) -> tuple[list[str], dict[str, Any]]:
    """Return what of the filters is said once more of raw rows, in the form that their indexes have, and its values."""
    most = _OWN_VALUES_MAX // len(tenant.projects)
    found = {column: filters[column] for column in OWN if "" not in filters.get(column, ("",)) and len(filters[column]) <= most}
    texts = [f"{OWN[column]} IN {{own_{column}:Array(String)}}" for column in found]
    return texts, {f"own_{column}": OwnValues(values) for column, values in found.items()}


def _counts(tenant: Tenant, question: Question, conditions: Sequence[str], keys: Sequence[str]) -> str:
    window = {"calls": "calls AS c", "failed": "if(status = 'failed', calls, 0) AS f", "durations": "durations AS d"}
    raw = {
        "calls": "toUInt64(1) AS c",
        "failed": "toUInt64(status = 'failed') AS f",
        "durations": f"map({_BUCKET}, toUInt64(1)) AS d",
    }
    sums = {"calls": "sum(c)", "failed": "sum(f)", "durations": "sumMap(d)"}
    names = [name for name in _measures(question) if name in window]
    family = family_of(question.columns)
    source = _source(tenant, question, conditions, family, [window[n] for n in names], [raw[n] for n in names])
    return _branch(question, keys, {name: sums[name] for name in names}, source)


def _distinct(tenant: Tenant, question: Question, conditions: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return a branch for each family that the distinct counts need: both at once where one scan gives both."""
    by_family: dict[Family, dict[str, str]] = {}
    branches = []
    for name, column in _SUBJECT_OF.items():
        if name not in _measures(question):
            continue
        days = _presence_of(question, column)
        if days is None:
            by_family.setdefault(family_of(question.columns | {column}), {})[name] = column
        else:
            source = _present(tenant, question, conditions, column, days)
            aggregate = "uniqExactState(subject)"
            if _counted_at_once(question, name):
                source, aggregate = f"SELECT subject FROM ({source}) GROUP BY subject", "count()"
            branches.append(_branch(question, keys, {name: aggregate}, source))
    for family, names in by_family.items():
        # Nobody is not an active user, and no session is not an active session.
        distinct = {name: f"uniqExactStateIf({column}, {column} != '')" for name, column in names.items()}
        selected = list(names.values())
        alone = conditions if len(names) > 1 else [*conditions, f"{selected[0]} != ''"]
        source = _source(tenant, question, alone, family, selected, selected, empty=list(names) != ["seen"])
        branches.append(_branch(question, keys, distinct, source))
    return branches


def _presence_of(question: Question, column: str) -> Presence | None:
    """Return the days that tell which values of a column called; None where they do not know the columns or the range."""
    if question.runs is not None or not question.columns <= {"project_id", column}:
        return None
    return presence(question.from_ms, question.to_ms)


def _counted_at_once(question: Question, measure: str) -> bool:
    """Tell whether one branch alone counts who called, over everything: grouping takes two thirds of what a set takes."""
    column = _SUBJECT_OF.get(measure)
    return column is not None and not question.group_by and _presence_of(question, column) is not None


def _present(tenant: Tenant, question: Question, conditions: Sequence[str], column: str, days: Presence) -> str:
    """Return who called in the range, from rows of days; only of the days at its ends their calls are looked at."""
    selected = ", ".join(dict.fromkeys([*question.group_by, "subject"]))
    kind = f"kind = '{PRESENCE[column]}'"
    parts = []
    if days.whole:
        where = [kind, _within("window_start", _seconds, days.whole), *conditions]
        parts.append(f"SELECT {selected} {tenant.rows_of(USAGE_WINDOWS, where)}")
    if days.cut:
        called = [f"last_call_ms >= {question.from_ms:d}", f"{_FIRST_MS} < {question.to_ms:d}"]
        where = [kind, _within("window_start", _seconds, days.cut), *called, *conditions]
        parts.append(f"SELECT {selected} {tenant.rows_of(USAGE_WINDOWS, where)}")
    return " UNION ALL ".join(parts)


def _created_of_days(tenant: Tenant, question: Question, keys: Sequence[str], *, sparing: bool) -> str:
    """Return sessions by their first call, from rows of days: all up to the range's end are grouped.

    Of a session seen in the range, rows before it decide; to look for these, the sparing way, takes longer than to group
    everything, unless almost all lies before. A session created in the range has a day whose own first call lies in it.
    """
    session = "subject" if len(tenant.projects) == 1 and not question.group_by else "project_id, subject"
    until = [f"kind = '{KIND_SESSION_DAY}'", f"window_start < {_seconds(-(-question.to_ms // DAY_MS) * DAY_MS)}"]
    in_range = f"{{0}} >= {question.from_ms:d} AND {{0}} < {question.to_ms:d}"
    among = []
    if sparing:
        since = f"window_start >= {_seconds(question.from_ms // DAY_MS * DAY_MS)}"
        seen = f"SELECT {session} {tenant.rows_of(USAGE_WINDOWS, [*until, since, in_range.format(_FIRST_MS)])}"
        among = [f"({session}) IN ({seen})"]
    rows = tenant.rows_of(USAGE_WINDOWS, [*until, *among])
    created = in_range.format("first_ms")
    source = f"SELECT {session}, min({_FIRST_MS}) AS first_ms {rows} GROUP BY {session} HAVING {created}"
    return _branch(question, keys, {"created": "count()"}, source)


def _created(tenant: Tenant, question: Question, conditions: Sequence[str], keys: Sequence[str], *, sparing: bool) -> str:
    """Return sessions by their first call in the project.

    A session that was created in the range has a row whose own first call lies in it and matches the filters, so only such
    sessions are looked at; of those, all rows up to the end of the range decide which call was the first.
    """
    if can_spare(question):
        return _created_of_days(tenant, question, keys, sparing=sparing)
    from_ms, to_ms = question.from_ms, question.to_ms
    kept = sorted(question.columns - {"project_id", "session_id"})
    # A pair of keys costs twice as much as the session alone, which is enough within one project.
    alone = len(tenant.projects) == 1 and "project_id" not in question.group_by
    session = "session_id" if alone else "project_id, session_id"
    in_range = f"tupleElement({{}}, 1) >= {from_ms} AND tupleElement({{}}, 1) < {to_ms}"
    kind = f"kind = '{KIND_SESSION_HOUR}'"
    until = f"window_start < {_seconds(-(-to_ms // HOUR_MS) * HOUR_MS)}"
    since = f"window_start >= {_seconds(from_ms // HOUR_MS * HOUR_MS)}"
    candidate = [kind, since, until, "session_id != ''", in_range.format("first_call", "first_call"), *conditions]
    candidates = f"SELECT {session} {tenant.rows_of(USAGE_WINDOWS, candidate)}"
    first = "".join(f", argMin({column}, first_call) AS first_{column}" for column in kept)
    rows = tenant.rows_of(USAGE_WINDOWS, [kind, until, f"({session}) IN ({candidates})"])
    firsts = (
        f"SELECT {session}, min(first_call) AS first{first} {rows} "
        f"GROUP BY {session} HAVING {in_range.format('first', 'first')}"
    )
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    renamed = ", ".join(["project_id"] * (not alone) + ["session_id", "tupleElement(first, 1) AS t"])
    renamed += "".join(f", first_{column} AS {column}" for column in kept)
    source = f"SELECT {renamed} FROM ({firsts}){where}"
    return _branch(question, keys, {"created": "count()"}, source)


def _branch(question: Question, keys: Sequence[str], aggregates: Mapping[str, str], source: str) -> str:
    """Group a source by the keys; what this branch does not know is neutral."""
    # Grouped as stored, which for slugs is by dictionary; text only for the union, whose branches must agree.
    grouped = ["start" if key == "start" else question.group_by[int(key[1:])] for key in keys]
    selected = ["toUInt8(1) AS part"] if keys else []
    selected += [
        f"{_start(question.runs or ())} AS start" if key == "start" else f"toString({column}) AS {key}"
        for key, column in zip(keys, grouped, strict=True)
    ]
    selected += [f"{aggregates.get(name) or _nothing(question, name)} AS b_{name}" for name in _measures(question)]
    grouping = f" GROUP BY {', '.join(grouped)}" if keys else ""
    return f"SELECT {', '.join(selected)} FROM ({source}){grouping}"


def _nothing(question: Question, measure: str) -> str:
    """Return what a branch says of a measure that it does not know."""
    counted = _SUBJECT_OF.get(measure)
    if _counted_at_once(question, measure):
        return "toUInt64(0)"
    kind = "String" if counted is None or _presence_of(question, counted) is None else "UInt128"
    return _NOTHING[measure].replace("{type}", kind)


def _source(
    tenant: Tenant,
    question: Question,
    conditions: Sequence[str],
    family: Family,
    window: Sequence[str],
    raw: Sequence[str],
    *,
    empty: bool = True,
) -> str:
    """Return a union of whole windows and raw edges, with the instant `t` where a series is asked for.

    Args:
        window, raw: what to select from windows and from raw rows, beside the grouped columns.
        empty: whether calls without the family's `never_empty` column matter.
    """
    plan = layers(family, question.from_ms, question.to_ms, question.runs)
    raw_conditions = [*conditions, *_indexed(tenant, question.filters)[0]]
    grouped = list(dict.fromkeys(question.group_by))
    series = question.runs is not None
    parts = []
    if plan.windows:
        instant = ["toInt64(toUnixTimestamp(window_start)) * 1000 AS t"] if series else []
        # All grains at once: to plan one more reading of the table costs more than to read a few windows.
        grains = [f"kind = '{grain.kind}' AND ({_within('window_start', _seconds, spans)})" for grain, spans in plan.windows]
        where = [" OR ".join(grains), *conditions]
        if family.never_empty is not None:
            where.append(f"{family.never_empty} != ''")
        parts.append(f"SELECT {', '.join(dict.fromkeys([*instant, *grouped, *window]))} {tenant.rows_of(USAGE_WINDOWS, where)}")
    instant = ["toUnixTimestamp64Milli(timestamp) AS t"] if series else []
    selected = ", ".join(dict.fromkeys([*instant, *grouped, *raw]))
    if plan.raw or not plan.windows:
        where = [_within("timestamp", _millis, plan.raw), *raw_conditions]
        parts.append(f"SELECT {selected} {tenant.rows_of(TOOL_EXECUTIONS, where)}")
    allowed = question.filters.get(family.never_empty or "")
    if family.never_empty is not None and plan.windows and empty and (allowed is None or "" in allowed):
        # The skip index passes over every stretch of raw rows that all have the column.
        inside = [span for _, spans in plan.windows for span in spans]
        where = [_within("timestamp", _millis, inside), f"{family.never_empty} = ''", *raw_conditions]
        parts.append(f"SELECT {selected} {tenant.rows_of(TOOL_EXECUTIONS, where)}")
    return " UNION ALL ".join(parts)


def _within(column: str, literal: Callable[[int], str], spans: Sequence[Span]) -> str:
    """Return the condition that an instant lies in one of these spans; they are sorted and do not touch.

    Days of a zone with half hours cut an hour each, and hundreds of spans joined by OR cost ClickHouse seconds before it reads
    a row. They are told as one span and the hours that are in it, or are not, which it keeps as a set and finds in the index.
    """
    gaps = [(before, after) for (_, before), (after, _) in pairwise(spans)]
    # Days that begin within a minute were those of Monrovia, until 1972: no event is that old, but they may be asked for.
    if len(spans) > _SPANS_MAX and not any(at % HOUR_MS for gap in gaps for at in gap):
        covered, missing = _hours(spans), _hours(gaps)
        word, hours = ("NOT IN", missing) if len(missing) <= len(covered) else ("IN", covered)
        listed = ", ".join(_seconds(at) for at in hours)
        return f"{_between(column, literal, (spans[0][0], spans[-1][1]))} AND toStartOfHour({column}, 'UTC') {word} ({listed})"
    return " OR ".join(_between(column, literal, span) for span in spans) or "0"


def _between(column: str, literal: Callable[[int], str], span: Span) -> str:
    return f"{column} >= {literal(span[0])} AND {column} < {literal(span[1])}"


def _hours(spans: Sequence[Span]) -> list[int]:
    """Return the starts of the hours that spans touch."""
    return sorted({hour * HOUR_MS for begin, end in spans for hour in range(begin // HOUR_MS, -(-end // HOUR_MS))})


def _seconds(at_ms: int) -> str:
    return f"toDateTime({at_ms // 1000:d}, 'UTC')"


def _millis(at_ms: int) -> str:
    return f"fromUnixTimestamp64Milli({at_ms:d}, 'UTC')"


def _start(runs: Sequence[Run]) -> str:
    """Return the start of the interval that holds the instant `t`; runs are few: they only end where a clock changes."""
    if not runs:
        return "t"  # an empty range: no row ever gets here
    terms = [
        f"{run.first_ms:d} + least(intDiv(t - {run.first_ms:d}, {run.step_ms:d}), {run.count - 1:d}) * {run.step_ms:d}"
        for run in runs
    ]
    choices = "".join(f"t >= {run.first_ms:d}, {term}, " for run, term in list(zip(runs, terms, strict=True))[:0:-1])
    return f"toInt64(multiIf({choices}{terms[0]}))" if choices else f"toInt64({terms[0]})"
