"""From records to rows and sums: whatever is sent, however it is packed and batched, nothing is lost and every count closes."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.contract.access import Purge
from ingest.contract.event import EVENT_BYTES_MAX
from ingest.contract.partitioning import event_key, home_partition
from ingest.contract.redact_patterns import redactor
from processors.batch import Batch, Prepared, read, settle, split
from processors.blocks import columns_of, dead_letter_block, execution_block, usage_block
from processors.decode import Record, decode
from processors.dedupe import SeenFilter
from processors.usage import KINDS, NEEDED, PRESENCE, rollup, window_start_ms

START_MS = 1_776_421_500_000
slow = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
payloads = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
events = st.fixed_dictionaries(
    {
        "id": st.sampled_from([f"e{number}" for number in range(30)]),
        "tool_slug": st.sampled_from(["GMAIL_SEND_EMAIL", "GOOGLE_CALENDAR_CREATE_EVENT", "X"]),
        "status": st.sampled_from(["success", "failed"]),
        "duration_ms": st.floats(0, 1e6) | st.integers(0, 10**6),
        "timestamp": st.integers(START_MS - 10**8, START_MS),
    },
    optional={
        "user_id": texts | st.none(),
        "session_id": st.sampled_from(["s1", "s2", ""]),
        "data": st.fixed_dictionaries({"request": payloads, "response": payloads}),
        "metadata": st.dictionaries(texts, payloads, max_size=2),
        "error": texts | st.fixed_dictionaries({"message": texts, "code": st.integers(100, 599)}),
        "message": texts,
    },
)


def records(
    sent: Sequence[dict[str, Any]], seed: int, *, headers: Sequence[tuple[str, bytes]] = (("project_id", b"p"),)
) -> list[Record]:
    """Put events into records: single ones, arrays and NDJSON, at random."""
    chance = random.Random(seed)
    made: list[Record] = []
    rest = list(sent)
    while rest:
        take = chance.randint(1, 4)
        some, rest = rest[:take], rest[take:]
        lines = [json.dumps(event, ensure_ascii=chance.random() < 0.5).encode() for event in some]
        value = lines[0] if len(lines) == 1 else b"\n".join(lines) if chance.random() < 0.3 else b"[" + b", ".join(lines) + b"]"
        made.append(Record(offset=len(made), timestamp_ms=START_MS + len(made), key=None, value=value, headers=headers))
    return made


def write(
    made: Sequence[Record],
    *,
    cuts: Sequence[int],
    seen: SeenFilter | None = None,
    known: set[str] | None = None,
    purges: Mapping[str, Sequence[Purge]] | None = None,
) -> list[Prepared]:
    """Take records through in batches cut at given places, as the ledger does."""
    seen = seen or SeenFilter(budget_bytes=1 << 20)
    known = known if known is not None else set()
    done: list[Prepared] = []
    edges = sorted({0, len(made), *(cut % (len(made) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        batch = Batch(
            incarnation="i",
            partition=0,
            partitions=1,
            first_offset=start,
            next_offset=end,
            records=made[start:end],
        )
        candidates = read(batch, seen=seen, purges=purges)
        asked = [*candidates.suspects.by_id, *candidates.suspects.by_time]
        answers = {place: 0 for place in asked if candidates.decoded.ids[place] in known}
        prepared = settle(candidates, known=answers, stores_payload=lambda _: True, window_close_ms=300_000)
        known |= set(prepared.executions["id"])
        seen.add(prepared.accepted_hashes, accepted_ms=START_MS)
        done.append(prepared)
    return done


def rows(done: Sequence[Prepared]) -> pl.DataFrame:
    return pl.concat([prepared.executions for prepared in done]) if done else pl.DataFrame()


def sums(done: Sequence[Prepared]) -> Counter[tuple[Any, ...]]:
    """Sums of all batches together, as ClickHouse adds them up."""
    total: Counter[tuple[Any, ...]] = Counter()
    for prepared in done:
        for row in prepared.usage.to_dicts():
            key = tuple(row[name] for name in ("kind", "window_start", "tool_slug", "status", "user_id", "session_id"))
            for bucket in row["durations"]:
                total[(*key, bucket["key"])] += bucket["value"]
    return total


@slow
@given(
    sent=st.lists(events, min_size=1, max_size=25), seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 30), max_size=4)
)
def test_the_first_of_each_id_comes_out_as_it_was_sent(sent: list[dict[str, Any]], seed: int, cuts: list[int]) -> None:
    """Each id is accepted once, with the members of its first event, and `data` byte for byte."""
    made = records(sent, seed)
    out = {row["id"]: row for row in rows(write(made, cuts=cuts)).to_dicts()}
    first: dict[str, dict[str, Any]] = {}
    for event in sent:
        first.setdefault(event["id"], event)
    assert out.keys() == first.keys()
    values = b"".join(record.value or b"" for record in made)
    for event_id, event in first.items():
        row = out[event_id]
        assert row["tool_slug"] == event["tool_slug"]
        assert row["status"] == event["status"]
        assert row["duration_ms"] == float(event["duration_ms"])
        assert row["user_id"] == (event.get("user_id") or "")
        assert row["session_id"] == event.get("session_id", "")
        assert row["message"]
        if "data" in event and "[redacted]" not in row["data"]:
            assert json.loads(row["data"]) == event["data"]
            assert row["data"].encode() in values


@slow
@given(
    sent=st.lists(events, min_size=1, max_size=25),
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 30), max_size=4),
    purges=st.lists(
        st.builds(Purge, until_ms=st.integers(START_MS - 10**8, START_MS), effective_ms=st.integers(START_MS, START_MS + 20)),
        max_size=3,
    ),
    owner=st.sampled_from(["p", "another"]),
)
def test_an_event_of_a_time_that_retention_took_is_a_dead_letter_by_its_records_time_alone(
    sent: list[dict[str, Any]], seed: int, cuts: list[int], purges: list[Purge], owner: str
) -> None:
    """Each event is refused where a purge in force at its record's time covers it, whole, and its neighbours go on."""
    made = records(sent, seed)
    done = write(made, cuts=cuts, purges={owner: purges})
    whole = decode(made, incarnation="i", partition=0, partitions=1)
    refused, taken = [], {}
    for event, at_ms in zip(sent, whole.accepted_ms, strict=True):
        if owner == "p" and any(event["timestamp"] < one.until_ms and one.effective_ms <= at_ms for one in purges):
            refused.append(event)
        else:
            taken.setdefault(event["id"], event["timestamp"])
    letters = [letter for prepared in done for letter in prepared.dead_letters]
    assert sorted((json.loads(letter.payload) for letter in letters), key=repr) == sorted(refused, key=repr)
    assert {(letter.project_id, letter.reason) for letter in letters} <= {("p", "past_retention")}
    assert {
        row["id"]: row["timestamp"] for row in rows(done).with_columns(pl.col("timestamp").to_physical()).to_dicts()
    } == taken
    totals = [prepared.totals for prepared in done]
    assert sum(each["events"] for each in totals) == len(sent)
    assert sum(each["dead_letters"] for each in totals) == len(refused)


@slow
@given(sent=st.lists(events, max_size=25), seed=st.integers(0, 2**32), one=st.lists(st.integers(0, 30), max_size=4),
       other=st.lists(st.integers(0, 30), max_size=4))  # fmt: skip
def test_sums_do_not_depend_on_batching_and_equal_a_plain_count(
    sent: list[dict[str, Any]], seed: int, one: list[int], other: list[int]
) -> None:
    """However records are cut into batches, sums are the same, and calls equal rows in every kind and window."""
    made = records(sent, seed)
    first, second = write(made, cuts=one), write(made, cuts=other)
    assert sums(first) == sums(second)
    if not first:
        return
    whole = rows(first)
    for kind, (length_ms, _) in KINDS.items():
        counted = Counter(
            window_start_ms(row["timestamp"].timestamp() * 1000 // 1, length_ms) // 1000
            for row in whole.to_dicts()
            if kind != "session_hour" or row["session_id"]
        )
        summed: Counter[int] = Counter()
        for key, count in sums(first).items():
            if key[0] == kind:
                summed[key[1]] += count
        assert summed == counted


@slow
@given(sent=st.lists(events, max_size=25), seed=st.integers(0, 2**32), one=st.lists(st.integers(0, 30), max_size=4))
def test_days_tell_who_called_first_and_last(sent: list[dict[str, Any]], seed: int, one: list[int]) -> None:
    """Of each user and session and day there is the first and the last call, and nothing of nobody."""
    done = write(records(sent, seed), cuts=one)
    if not done:
        return
    told: dict[tuple[Any, ...], tuple[int, int]] = {}
    for prepared in done:
        for row in prepared.usage.filter(pl.col("kind").is_in(list(PRESENCE))).to_dicts():
            assert (row["calls"], row["durations"], row["first_id"]) == (0, [], "")
            key = (row["kind"], row["project_id"], row["window_start"], row[PRESENCE[row["kind"]]])
            first, last = told.get(key, (row["first_ms"], row["last_call_ms"]))
            told[key] = (min(first, row["first_ms"]), max(last, row["last_call_ms"]))
    calls: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for row in rows(done).with_columns(pl.col("timestamp").cast(pl.Int64)).to_dicts():
        for kind, column in PRESENCE.items():
            if row[column]:
                calls[kind, row["project_id"], row["timestamp"] // 86_400_000 * 86_400, row[column]].append(row["timestamp"])
    assert told == {key: (min(at_ms), max(at_ms)) for key, at_ms in calls.items()}


@slow
@given(sent=st.lists(events, min_size=1, max_size=20), seed=st.integers(0, 2**32))
def test_rollups_do_not_depend_on_order(sent: list[dict[str, Any]], seed: int) -> None:
    """Rows in another order give the same sums and the same first call of each session."""
    whole = rows(write(records(sent, seed), cuts=[])).select(NEEDED)
    shuffled = whole.sample(fraction=1, shuffle=True, seed=seed % 2**31)

    def told(frame: pl.DataFrame) -> list[str]:
        summed = rollup(frame).to_dicts()
        for row in summed:
            row["durations"] = sorted((bucket["key"], bucket["value"]) for bucket in row["durations"])
        return sorted(map(repr, summed))

    assert told(whole) == told(shuffled)
    for row in rollup(whole).filter(pl.col("kind") == "session_hour").to_dicts():
        same = whole.filter(
            (pl.col("session_id") == row["session_id"])
            & (pl.col("timestamp").cast(pl.Int64) // 3_600_000 * 3600 == row["window_start"])
            & (pl.col("tool_slug") == row["tool_slug"])
            & (pl.col("status") == row["status"])
            & (pl.col("user_id") == row["user_id"])
            & (pl.col("failure_class") == row["failure_class"])
        )
        calls = zip(same["timestamp"].cast(pl.Int64).to_list(), same["id"].to_list(), strict=True)
        assert (row["first_ms"], row["first_id"]) == min(calls)


@slow
@given(
    sent=st.lists(events, min_size=1, max_size=20), seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 30), max_size=4)
)
def test_sent_twice_all_are_duplicates_and_counts_close(sent: list[dict[str, Any]], seed: int, cuts: list[int]) -> None:
    """The second time nothing is accepted; in every receipt and project, events are what became of them."""
    seen, known = SeenFilter(budget_bytes=1 << 20), set()
    made = records(sent, seed)
    done = write(made, cuts=cuts, seen=seen, known=known)
    again = write(made, cuts=[seed % 7], seen=seen, known=known)
    assert sum(prepared.totals["accepted"] for prepared in again) == 0
    assert sum(prepared.totals["duplicates"] for prepared in again) == len(sent)
    for prepared in [*done, *again]:
        for counts in [prepared.totals, *prepared.projects.values()]:
            parts = ("accepted", "duplicates", "dead_letters", "forwarded")
            assert counts["events"] == sum(counts[name] for name in parts)
        assert prepared.totals["accepted"] == prepared.executions.height
        for block in (execution_block(prepared), usage_block(prepared), dead_letter_block(prepared)):
            assert columns_of(block)


@slow
@given(junk=st.lists(st.binary(max_size=30) | st.sampled_from([b"", b"[1,{]", b'{"a":1}', b"[[[[", b"\xff"]), max_size=6),
       sent=st.lists(events, min_size=1, max_size=6), seed=st.integers(0, 2**32))  # fmt: skip
def test_rubbish_becomes_dead_letters_and_takes_nobody_along(junk: list[bytes], sent: list[dict[str, Any]], seed: int) -> None:
    """Any bytes at all are taken in; events in records of their own all survive, and every record is accounted for."""
    good = records(sent, seed)
    values = [record.value for record in good] + [value for value in junk]
    random.Random(seed).shuffle(values)
    mixed = [
        Record(offset=offset, timestamp_ms=START_MS, key=b"k", value=value, headers=[("project_id", b"p")])
        for offset, value in enumerate(values)
    ]
    out = decode(mixed, incarnation="i", partition=0, partitions=1)
    assert Counter(out.ids) >= Counter(event["id"] for event in sent)
    assert {letter.offset for letter in out.dead_letters} | set(out.offsets) == set(range(len(mixed)))
    for letter in out.dead_letters:
        assert letter.payload in (mixed[letter.offset].value or b"")
        assert letter.reason
        assert letter.message


@slow
@given(
    sent=st.lists(events, min_size=2, max_size=8),
    bad=st.sampled_from(['{"a":1}', "5", '{"tool_slug":"\\ud800"}', "NaN", "null"]),
    place=st.integers(0, 8),
)
def test_a_bad_item_of_an_array_costs_nothing_but_itself(sent: list[dict[str, Any]], bad: str, place: int) -> None:
    """The other items of the array are events as if it were not there."""
    items = [json.dumps(event) for event in sent]
    items.insert(place % (len(items) + 1), bad)
    value = f"[{','.join(items)}]".encode()
    record = Record(offset=0, timestamp_ms=START_MS, key=None, value=value, headers=[("project_id", b"p")])
    out = decode([record], incarnation="i", partition=0, partitions=1)
    assert out.ids == [event["id"] for event in sent]
    assert [letter.payload.decode() for letter in out.dead_letters] == [bad]


@slow
@given(
    sent=st.lists(events, max_size=20), seed=st.integers(0, 2**32), events_max=st.integers(1, 6), bytes_max=st.integers(1, 2000)
)
def test_a_split_batch_is_the_same_records_in_the_same_order(
    sent: list[dict[str, Any]], seed: int, events_max: int, bytes_max: int
) -> None:
    """Parts follow each other without gap or overlap, lose nothing, and stay within bounds, a single record apart."""
    made = records(sent, seed)
    batch = Batch(incarnation="i", partition=0, partitions=1, first_offset=0, next_offset=len(made) + 3, records=made)
    parts = list(split(batch, events_max=events_max, bytes_max=bytes_max))
    assert [record for part in parts for record in part.records] == made
    assert parts[0].first_offset == 0
    assert parts[-1].next_offset == batch.next_offset
    for former, part in pairwise(parts):
        assert former.next_offset == part.first_offset
        assert part.token != former.token
    for part in parts:
        assert len(part.records) <= 1 or part.nbytes <= bytes_max


@slow
@given(sent=st.lists(events, min_size=1, max_size=15), seed=st.integers(0, 2**32))
def test_strays_are_sent_home_with_id_time_and_acceptance(sent: list[dict[str, Any]], seed: int) -> None:
    """An event away from home is forwarded, not counted; at home it is accepted under the same id and timestamp."""
    without = [{name: value for name, value in event.items() if name != "timestamp"} for event in sent]
    made = records(without, seed)
    partitions = 4
    batch = Batch(incarnation="i", partition=1, partitions=partitions, first_offset=0, next_offset=len(made), records=made)
    candidates = read(batch, seen=SeenFilter(budget_bytes=1 << 20))
    prepared = settle(candidates, known={}, stores_payload=lambda _: True, window_close_ms=300_000)
    away = [event for event in sent if home_partition(event_key("p", event["id"]), partitions) != 1]
    assert len(prepared.forwards) == len(away)
    assert prepared.totals["forwarded"] == len(away)
    for item in prepared.forwards:
        headers = [("project_id", b"p"), ("first_accepted_ms", b"%d" % item.first_accepted_ms), ("forwarded_among", b"4")]
        later = Record(offset=9, timestamp_ms=START_MS + 10**7, key=item.key, value=item.value, headers=headers)
        home = decode([later], incarnation="i", partition=item.partition, partitions=partitions)
        assert event_key("p", home.ids[0]) == item.key
        assert home.timestamps_ms[0] == item.first_accepted_ms
        assert home.accepted_ms == [item.first_accepted_ms]
        assert home.stays == [True]


def test_a_stray_as_large_as_an_event_may_be_is_one_at_home_too() -> None:
    """Whatever its timestamp needs room for: an event that would have counted at home counts there after its way home."""
    partitions = 4
    empty = json.dumps(
        {"tool_slug": "GMAIL_SEND_EMAIL", "status": "success", "duration_ms": 1, "id": "large", "data": {"request": {"x": ""}}}
    ).encode()
    for short in (0, 1, 26, 27, 100):
        value = empty.replace(b'"x": ""', b'"x": "' + b"y" * (EVENT_BYTES_MAX - short - len(empty)) + b'"')
        assert len(value) == EVENT_BYTES_MAX - short
        home = home_partition(event_key("p", "large"), partitions)
        made = Record(offset=0, timestamp_ms=START_MS, key=None, value=value, headers=[("project_id", b"p")])
        away = (home + 1) % partitions
        batch = Batch(incarnation="i", partition=away, partitions=partitions, first_offset=0, next_offset=1, records=[made])
        candidates = read(batch, seen=SeenFilter(budget_bytes=1 << 20))
        prepared = settle(candidates, known={}, stores_payload=lambda _: True, window_close_ms=300_000)
        (item,) = prepared.forwards
        headers = [("project_id", b"p"), ("first_accepted_ms", b"%d" % item.first_accepted_ms), ("forwarded_among", b"4")]
        later = Record(offset=9, timestamp_ms=START_MS + 10**7, key=item.key, value=item.value, headers=headers)
        found = decode([later], incarnation="i", partition=item.partition, partitions=partitions)
        assert not found.dead_letters
        assert (found.ids, found.timestamps_ms) == (["large"], [START_MS])


def test_what_others_wrote_to_kafka_is_redacted_here_by_the_same_rules() -> None:
    """Built-in and own: the worker is the last gate. A repeat that ingest had redacted already says the same."""
    rules = redactor("EMP-[0-9]+", "badge")
    event: dict[str, Any] = {"id": "e1", "tool_slug": "X", "status": "failed", "duration_ms": 1, "timestamp": START_MS}
    event |= {"message": "EMP-1 with token=hidden12", "error": {"message": "Bearer hidden12"}}
    event |= {"data": {"api_key": "hidden", "badge": 5, "n": 1.0}, "metadata": {"cookie": "hidden"}}
    raw = json.dumps(event).encode()
    again = Record(offset=1, timestamp_ms=START_MS, key=None, value=rules.event(raw), headers=[("project_id", b"p")])
    made = [*records([event], 1), again]
    batch = Batch(incarnation="i", partition=0, partitions=1, first_offset=0, next_offset=2, records=made)
    candidates = read(batch, seen=SeenFilter(budget_bytes=1 << 16))
    prepared = settle(candidates, known={}, stores_payload=lambda _: True, window_close_ms=300_000, redactor=rules)
    (row,) = prepared.executions.to_dicts()
    assert (row["message"], row["error_message"]) == ("[redacted] with token=[redacted]", "Bearer [redacted]")
    assert json.loads(row["data"]) == {"api_key": "[redacted]", "badge": "[redacted]", "n": 1.0}
    assert json.loads(row["metadata"]) == {"cookie": "[redacted]"}
    assert (prepared.totals["duplicates"], prepared.totals["conflicts"]) == (1, 0)
