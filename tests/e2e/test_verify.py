"""`verify` finds what was done by hand behind the ledger's back, and says nothing beside live traffic."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.verify import usage
from ingest.contract import sketch
from tests.e2e.test_ledger_crashes import recorded
from tests.support.pipeline import Pipeline, eventually

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    made = Pipeline(Path(tmp_path_factory.mktemp("verify")))
    try:
        made.start()
        made.start_worker()
        made.send(recorded(300, salt="a"), pack=10)
        assert made.settled().findings == ()
        yield made
    finally:
        made.stop()


def kinds(pipeline: Pipeline) -> set[str]:
    return {finding.kind for finding in pipeline.verify().findings}


def test_it_says_nothing_while_events_arrive(pipeline: Pipeline) -> None:
    """Batches land between its questions, and none of them is a finding."""
    for number in range(5):
        pipeline.send(recorded(200, salt=f"live{number}"), pack=5)
        assert pipeline.verify().findings == ()
    assert pipeline.settled().accepted == 1300


def test_it_says_the_same_however_many_projects_it_asks_about_at_once(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All together, one after another, or by their calls: the same totals of each."""
    for number in range(5):
        pipeline.send(recorded(20, salt=f"of-{number}"), project=f"project-{number}", pack=4)
    together = pipeline.settled()
    assert [one.accepted for one in together.projects if one.project_id.startswith("project-")] == [20] * 5
    for name, most in (("_TOGETHER_MAX", 1), ("_TOGETHER_MAX", 4), ("_TOGETHER_CALLS_MAX", 40)):
        with monkeypatch.context() as patch:
            patch.setattr(usage, name, most)
            found = pipeline.verify()
            assert (found.projects, found.findings) == (together.projects, together.findings)


SUMS = "('tool_minute', 'tool_hour', 'tool_day', 'user_hour', 'session_hour', 'user_day', 'session_day')"


def rewrite(pipeline: Pipeline, statement: str) -> None:
    pipeline.rows(f"{statement} SETTINGS mutations_sync = 2, allow_nondeterministic_mutations = 1")


def newest_but_one(pipeline: Pipeline) -> tuple[int, int, int]:
    """Partition, first and next offset of a batch that has one above it."""
    return tuple(  # type: ignore[return-value]
        pipeline.rows(
            "SELECT kafka_partition, first_offset, next_offset FROM usage_windows WHERE kind = 'receipt' AND accepted > 0"
            " AND (kafka_partition, next_offset) IN (SELECT kafka_partition, first_offset FROM usage_windows"
            "  WHERE kind = 'receipt') ORDER BY first_offset DESC LIMIT 1"
        )[0]
    )


def test_a_hole_that_a_restore_left_is_named_and_filled(pipeline: Pipeline) -> None:
    """Everything of a batch is gone though later ones are there: verify names the gap, and the next start writes it again."""
    before = pipeline.settled()
    partition, first, next_offset = newest_but_one(pipeline)
    of_batch = f"kafka_partition = {partition} AND first_offset = {first}"
    rewrite(pipeline, f"ALTER TABLE tool_executions DELETE WHERE {of_batch}")
    rewrite(pipeline, f"ALTER TABLE usage_windows DELETE WHERE {of_batch} AND kind IN ('receipt', 'project_receipt')")
    late = f"kind = 'correction' AND kafka_partition = {partition} AND first_offset BETWEEN {first} AND {next_offset - 1}"
    rewrite(pipeline, f"ALTER TABLE usage_windows DELETE WHERE {late}")
    # Its sums lie in rows that batches share, so they are made from the rows that are left.
    rewrite(pipeline, f"ALTER TABLE usage_windows DELETE WHERE kind IN {SUMS}")
    rebuild_sums(pipeline)
    found = pipeline.verify().findings
    assert [each.text for each in found if each.kind != "gap"] == []
    assert {each.partition for each in found} == {partition}
    pipeline.workers[-1].end()
    pipeline.start_worker()
    eventually("the hole is filled", lambda: pipeline.verify().findings == ())
    after = pipeline.settled()
    assert after.findings == ()
    assert (after.accepted, after.rows, after.calls) == (before.accepted,) * 3


def rebuild_sums(pipeline: Pipeline) -> None:
    """Make all sums from the rows, as a restored table would hold them."""
    place = f"ceil(log(greatest(duration_ms, {sketch.TINY_MS!r})) / {sketch.LN_GAMMA!r})"
    bucket = f"toInt16(if(duration_ms < {sketch.TINY_MS!r}, {sketch.ZERO_BUCKET}, {place}))"
    for kind, start, keys in (
        ("tool_minute", "toStartOfMinute", ""),
        ("tool_hour", "toStartOfHour", ""),
        ("tool_day", "toStartOfDay", ""),
        ("user_hour", "toStartOfHour", ", user_id, connected_account_id"),
        ("session_hour", "toStartOfHour", ", user_id, connected_account_id, session_id"),
    ):
        names = f"tool_slug, toolkit_slug, status, failure_class{keys}"
        only = "WHERE session_id != ''" if kind == "session_hour" else ""
        pipeline.rows(
            f"INSERT INTO usage_windows (batch_month, kind, project_id, window_start, {names}, calls, durations)"
            f" SELECT any(batch_month), '{kind}', project_id, toDateTime({start}(timestamp), 'UTC') AS w, {names}, count(),"
            f"  sumMap(map({bucket}, toUInt64(1)))"
            f" FROM tool_executions {only} GROUP BY project_id, w, {names}"
        )

    for kind, column in (("user_day", "user_id"), ("session_day", "session_id")):
        pipeline.rows(
            f"INSERT INTO usage_windows (batch_month, kind, project_id, window_start, {column}, first_call, last_call_ms)"
            f" SELECT any(batch_month), '{kind}', project_id, toStartOfDay(timestamp) AS w, {column},"
            "  (min(toUnixTimestamp64Milli(timestamp)), ''), max(toUnixTimestamp64Milli(timestamp))"
            f" FROM tool_executions WHERE {column} != '' GROUP BY project_id, w, {column}"
        )


def test_it_finds_a_row_and_a_sum_whose_counts_stayed_as_they_were(pipeline: Pipeline) -> None:
    """Another tool, user, account, class or duration of one row, or another sketch of a sum: each is found."""
    pipeline.settled()

    def told() -> set[str]:
        return {each.text for each in pipeline.verify().findings}

    before = told()
    event_id, *values = pipeline.rows(
        "SELECT id, tool_slug, user_id, connected_account_id, failure_class, duration_ms FROM tool_executions LIMIT 1"
    )[0]
    columns = ("tool_slug", "user_id", "connected_account_id", "failure_class", "duration_ms")
    other = pipeline.rows(f"SELECT max(user_id) FROM tool_executions WHERE user_id != '{values[1]}'")[0][0]
    for column, value, changed in zip(columns, values, ("OTHER", other, "other", "timeout", 99_999.5), strict=True):
        rewrite(pipeline, f"ALTER TABLE tool_executions UPDATE {column} = {changed!r} WHERE id = '{event_id}'")
        assert any("of other" in text and "user_hour" in text for text in told() - before), column
        rewrite(pipeline, f"ALTER TABLE tool_executions UPDATE {column} = {value!r} WHERE id = '{event_id}'")
        assert told() == before, column
    rewrite(pipeline, "ALTER TABLE usage_windows UPDATE durations = map(toInt16(1), calls) WHERE kind = 'tool_hour'")
    assert any("of other durations" in text and "tool_hour" in text for text in told() - before)


def test_it_finds_what_was_done_by_hand(pipeline: Pipeline) -> None:
    """A row deleted, a usage row doubled, a receipt removed: each is found, by its own name."""
    pipeline.settled()
    ids = pipeline.rows("SELECT id FROM tool_executions LIMIT 1")[0][0]
    rewrite(pipeline, f"ALTER TABLE tool_executions DELETE WHERE id = '{ids}'")
    assert {"missing_rows", "usage_differs"} <= kinds(pipeline)
    partition, first, next_offset = newest_but_one(pipeline)
    receipt = f"kind = 'receipt' AND kafka_partition = {partition} AND first_offset = {first}"
    pipeline.rows(f"INSERT INTO usage_windows SELECT * FROM usage_windows WHERE {receipt}")
    assert "doubled_receipt" in kinds(pipeline)
    rewrite(pipeline, f"ALTER TABLE usage_windows DELETE WHERE {receipt}")
    gaps = [each for each in pipeline.verify().findings if each.kind == "gap"]
    assert [each.partition for each in gaps] == [partition]
    assert f"[{first}, {next_offset})" in gaps[0].text
    assert gaps[0].action
    first_of_all = "kind = 'receipt' AND kafka_partition = 1 AND first_offset = 0"
    rewrite(pipeline, f"ALTER TABLE usage_windows DELETE WHERE {first_of_all}")
    assert any(each.kind == "gap" and "[0, " in each.text and each.partition == 1 for each in pipeline.verify().findings)
    pipeline.rows("INSERT INTO usage_windows SELECT * FROM usage_windows WHERE kind = 'user_hour' LIMIT 1")
    assert any(each.kind == "usage_differs" and "user_hour" in each.text for each in pipeline.verify().findings)


def test_it_finds_whose_presence_was_changed_by_hand(pipeline: Pipeline) -> None:
    """A user's day taken away, and a session that is said to have lasted longer than its calls: each is named."""
    pipeline.settled()

    def found(kind: str, name: str) -> bool:
        texts = [each.text for each in pipeline.verify().findings if each.kind == "usage_differs"]
        return any(kind in text and repr(name) in text for text in texts)

    user = pipeline.rows("SELECT user_id FROM usage_windows WHERE kind = 'user_day' LIMIT 1")[0][0]
    assert not found("user_day", user)
    rewrite(pipeline, f"ALTER TABLE usage_windows DELETE WHERE kind = 'user_day' AND user_id = '{user}'")
    assert found("user_day", user)
    session = pipeline.rows("SELECT session_id FROM usage_windows WHERE kind = 'session_day' LIMIT 1")[0][0]
    assert not found("session_day", session)
    pipeline.rows(
        "INSERT INTO usage_windows (batch_month, kind, project_id, window_start, session_id, first_call, last_call_ms)"
        " SELECT batch_month, kind, project_id, window_start, session_id, first_call, last_call_ms + 1 FROM usage_windows"
        f" WHERE kind = 'session_day' AND session_id = '{session}' ORDER BY last_call_ms DESC LIMIT 1"
    )
    assert found("session_day", session)


def test_a_receipt_taken_away_by_hand_is_never_written_twice(pipeline: Pipeline) -> None:
    """Its sums are still there, so a worker that starts leaves the hole open: filling it would count its calls again."""
    calls = pipeline.verify().calls
    pipeline.workers[-1].end()
    pipeline.start_worker()
    pipeline.send(recorded(50, salt="after"))
    eventually("the new events are proved", lambda: pipeline.verify().calls == calls + 50)
    assert "gap" in kinds(pipeline)
