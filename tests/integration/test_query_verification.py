"""The last outcome of `toolledger verify`, as the command leaves it and as each project may see it."""

import dataclasses
import time
from datetime import UTC, datetime

import pytest
import pytest_asyncio

from deploy.verify.kept import FINDINGS_MAX, keep
from deploy.verify.report import ProjectTotals, finding
from ingest.contract.errors import StoreUnavailable
from tests.support import rows, worlds
from tests.support.query_service import KEY_A, KEY_B, KEY_ORG, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

# A whole second of a day ago: outcomes are kept for 400 days.
T = (int(time.time()) - 86_400) * 1000
COUNTS = {
    "events": 10,
    "accepted": 6,
    "duplicates": 2,
    "conflicts": 1,
    "dead_letters": 1,
    "forwarded": 1,
    "rows": 6,
    "calls": 6,
    "purged": 2,
}
OF_A = ProjectTotals(project_id="proj_a", **COUNTS)
OF_B = ProjectTotals(project_id="proj_b", **{**COUNTS, "events": 777})


def report(*projects, findings=()):
    return dataclasses.replace(worlds.report(()), projects=list(projects), findings=tuple(findings))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        async with query_service(url) as running:
            yield url, running


async def test_each_project_is_told_the_last_outcome_and_its_own_part_of_it(site):
    """Nothing before the first; then the newest, whole where the project was part of it; never a word about another."""
    url, service = site

    async def told(key):
        reply = await service.get("/v1/verification", key=key)
        assert reply.status == 200
        assert reply.headers["x-complete-until"]
        return reply.body["verification"], reply.raw

    assert (await told(KEY_A))[0] is None
    keep(url, report(OF_A, OF_B), now_ms=T)
    found, raw = await told(KEY_A)
    assert found == {
        "verified_at": datetime.fromtimestamp(T / 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "verified_at_ms": T,
        "proved": True,
        "totals": COUNTS,
        "findings": [],
        "findings_count": 0,
        "ledger_findings_count": 0,
    }
    assert b"777" not in raw

    many = [finding("usage_differs", f"project 'proj_b', hour {number}", None, "proj_b") for number in range(FINDINGS_MAX + 5)]
    of_all = finding("gap", "partition 3: nothing proves [1, 2)", 3)
    keep(url, report(OF_B, ProjectTotals(project_id="", **COUNTS), findings=[of_all, *many]), now_ms=T + 1)
    of_b, _ = await told(KEY_B)
    assert (of_b["proved"], of_b["verified_at_ms"], of_b["totals"]["events"]) == (False, T + 1, 777)
    assert [each["text"] for each in of_b["findings"]] == [each.text for each in many[:FINDINGS_MAX]]
    assert (of_b["findings_count"], of_b["ledger_findings_count"]) == (FINDINGS_MAX + 5, 1)
    assert of_b["findings"][0]["action"] == many[0].action
    of_a, raw = await told(KEY_A)
    assert (of_a["proved"], of_a["totals"], of_a["findings"], of_a["findings_count"]) == (False, None, [], 0)
    assert of_a["ledger_findings_count"] == 1
    assert b"proj_b" not in raw
    assert b"partition 3" not in raw

    # Runs that end in another order than they wrote: the later one is in force.
    keep(url, report(OF_A), now_ms=T - 5)
    assert (await told(KEY_A))[0]["verified_at_ms"] == T + 1


async def test_only_a_projects_key_and_no_parameter_are_taken(site):
    """As everywhere on /v1."""
    _, service = site
    assert (await service.get("/v1/verification", {"project": "proj_b"})).status == 400
    assert (await service.get("/v1/verification", key=KEY_ORG)).status == 403
    assert (await service.get("/v1/verification", key=None)).status == 401


async def test_what_cannot_be_written_down_is_an_error_of_the_store(clickhouse_url):
    """No server, and a server without the table: the command says so and keeps its answer."""
    with pytest.raises(StoreUnavailable):
        keep("http://127.0.0.1:1/default", report(), now_ms=T)
    with pytest.raises(StoreUnavailable):
        keep(f"{clickhouse_url}/default", report(), now_ms=T)
