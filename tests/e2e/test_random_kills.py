"""Random processes killed and frozen under load: what was acknowledged is there once, and nothing else is."""

import os
from pathlib import Path

import pytest

from tests.support.soak.run import Plan, Soak

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

_SEED = 20261125


def test_random_kills_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """A dozen kills and freezes of workers, ClickHouse, Kafka and ingest within a minute, each acknowledged id exactly once."""
    plan = Plan(
        seed=int(os.environ.get("TOOLLEDGER_SOAK_SEED") or _SEED), faults=14, seconds=80, verify_every=4, judge_every=1000
    )
    soak = Soak(tmp_path, plan, tell=print)
    try:
        print(soak.go())
        assert soak.verdict.clean
        assert soak.verdict.events > 1000
    finally:
        soak.stop()
