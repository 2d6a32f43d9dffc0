"""`verify` judges the log's ends beside live traffic: what came and was proved while it asked is no finding."""

from deploy.verify.check import Log, log_ends


def log(start: int, end: int) -> Log:
    return Log(incarnation="i", ends={0: (start, end)}, began={})


def test_records_that_were_proved_after_the_log_was_asked_are_no_finding() -> None:
    """Its end is asked again before receipts are said to reach beyond it; an end that is still short is one."""
    assert list(log_ends(log(0, 13), {0: 14}, again=lambda: log(0, 20))) == []
    (found,) = log_ends(log(0, 13), {0: 14}, again=lambda: log(0, 13))
    assert (found.kind, found.partition) == ("ahead_of_log", 0)


def test_the_log_is_asked_again_only_where_it_matters() -> None:
    """Where no receipt reaches beyond it there is nothing to ask, and what retention took is still told."""

    def again() -> Log:
        raise AssertionError("not needed")

    assert list(log_ends(log(0, 13), {0: 13}, again=again)) == []
    assert [found.kind for found in log_ends(log(5, 13), {0: 3}, again=again)] == ["lost_to_retention"]
