"""Keys and rules live in the control topic alone, and what one process writes another reads."""

import asyncio
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher

from deploy.topics import apply
from ingest.contract import control
from ingest.contract.access import kept_since
from ingest.contract.control import ControlFollower
from ingest.contract.errors import BrokerUnavailable, ConfigurationError
from ingest.contract.topics import topics
from ingest.keys import announce_purges, create_key, list_keys, read_access, revoke_key, set_rules
from tests.support.ingest_service import eventually
from tests.support.ports import HOST, free_port

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def kafka(kafka_address: str) -> str:
    apply(kafka_address, topics())
    return kafka_address


async def test_a_key_is_found_by_itself_alone_and_only_its_hash_is_stored(kafka: str) -> None:
    made, plain = await create_key(kafka, project_id="keys", org_id="org", name="first", scope="ingest")
    assert plain.startswith("ak_")
    access = await read_access(kafka)
    assert access.find(plain) == made
    assert access.find(plain + "x") is None
    assert plain not in repr(access.keys)
    assert "keys" in access.projects_of("org")


async def test_keys_are_listed_oldest_first_and_stay_listed_when_revoked(kafka: str) -> None:
    first, plain = await create_key(kafka, project_id="keys", name="a")
    second, _ = await create_key(kafka, org_id="org", name="b")
    assert second.project_id == ""
    revoked = await revoke_key(kafka, first.id)
    assert revoked is not None
    assert revoked.revoked_at_ms is not None
    assert await revoke_key(kafka, first.id) == revoked
    assert await revoke_key(kafka, "key_unknown") is None
    listed = [key for key in await list_keys(kafka) if key.id in (first.id, second.id)]
    assert listed == [revoked, second]
    assert (await read_access(kafka)).find(plain) is None


async def test_a_follower_sees_changes(kafka: str) -> None:
    follower = ControlFollower(kafka)
    follower.start()
    try:
        await asyncio.wait_for(follower.caught_up.wait(), 60)
        made, plain = await create_key(kafka, project_id="keys")

        async def found() -> bool:
            return follower.access.find(plain) == made

        await eventually(found)
        await revoke_key(kafka, made.id)

        async def gone() -> bool:
            return follower.access.find(plain) is None

        await eventually(gone)
    finally:
        await follower.stop()


@pytest.mark.parametrize("method", ["_get_actions_per_node", "fetched_records"])
async def test_a_follower_survives_a_fault_of_its_consumer(kafka: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own fetching, after which it gives nothing and raises nothing, for ever; or under the hands of who asks it."""
    faulty: set[Fetcher] = set()
    works = getattr(Fetcher, method)

    def fails_once(fetcher: Fetcher, *arguments: Any, **options: Any) -> Any:
        if follower.caught_up.is_set() and not faulty - {fetcher}:
            faulty.add(fetcher)
            raise KeyError("a fault of the library's")
        return works(fetcher, *arguments, **options)

    monkeypatch.setattr(control, "_LOOK_S", 0.5)
    monkeypatch.setattr(Fetcher, method, fails_once)
    follower = ControlFollower(kafka)
    follower.start()
    try:
        await asyncio.wait_for(follower.caught_up.wait(), 60)
        made, plain = await create_key(kafka, project_id="keys")

        async def found() -> bool:
            return follower.access.find(plain) == made

        await eventually(found)
        assert len(faulty) == 1
    finally:
        await follower.stop()


async def test_rules_change_one_by_one(kafka: str) -> None:
    await set_rules(kafka, "ruled", retention_days=3)
    rules = await set_rules(kafka, "ruled", store_payloads=False)
    assert (rules.retention_days, rules.store_payloads) == (3, False)
    assert (await read_access(kafka)).rules_of("ruled") == rules
    assert (await set_rules(kafka, "ruled", retention_days=None)).retention_days is None


async def test_a_project_does_not_go_to_another_organisation_by_a_key(kafka: str) -> None:
    """A key that names another organisation than the project's is refused; once the project has moved, it is made."""
    await create_key(kafka, project_id="moving")
    await create_key(kafka, project_id="moving", org_id="first")
    with pytest.raises(ConfigurationError, match=r"belongs to the organisation first: .*projects set moving --org second"):
        await create_key(kafka, project_id="moving", org_id="second")
    access = await read_access(kafka)
    assert [access.projects_of(one) for one in ("first", "second")] == [{"moving"}, set()]
    await set_rules(kafka, "moving", org_id="second")
    await create_key(kafka, project_id="moving", org_id="second")
    with pytest.raises(ConfigurationError, match="belongs to the organisation second"):
        await create_key(kafka, project_id="moving", org_id="first")


async def test_purges_are_announced_once_and_stay(kafka: str) -> None:
    """The first announcement of a time counts, an earlier time needs none; from when on each is in force is known."""
    assert await announce_purges(kafka, {"purged": 1_000, "other": 500}, effective_ms=5_000) == 5_000
    assert await announce_purges(kafka, {"purged": 1_000}, effective_ms=6_000) == 5_000
    assert await announce_purges(kafka, {"purged": 900}, effective_ms=7_000) == 5_000
    assert await announce_purges(kafka, {"purged": 2_000}, effective_ms=8_000) == 8_000
    purges = (await read_access(kafka)).purges
    assert [kept_since(purges["purged"], at_ms) for at_ms in (4_999, 5_000, 7_999, 8_000)] == [0, 1_000, 1_000, 2_000]
    assert kept_since(purges["other"], 9_000) == 500
    await set_rules(kafka, "purged", retention_days=9)
    assert (await read_access(kafka)).purges == purges


async def test_purges_announced_at_the_same_moment_are_in_force_both(kafka: str) -> None:
    """Each finds the topic as it was before the other one wrote; what one of them writes over is announced again."""
    for turn in range(3):
        project = f"at_once{turn}"
        untils = ({project: 1_000}, {project: 2_000})
        assert await asyncio.gather(*(announce_purges(kafka, one, effective_ms=5_000) for one in untils)) == [5_000, 5_000]
        assert kept_since((await read_access(kafka)).purges[project], 5_000) == 2_000


async def test_what_cannot_be_used_is_refused_before_anything_is_written(kafka: str) -> None:
    for wrong in ({}, {"project_id": "a/b"}, {"project_id": "p", "name": "n" * 201}, {"project_id": "p", "org_id": " "}):
        with pytest.raises(ConfigurationError):
            await create_key(kafka, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError):
        await set_rules(kafka, "p", retention_days=0)
    with pytest.raises(ConfigurationError, match="from 1 to"):
        await set_rules(kafka, "p", payload_retention_days=10**20)


async def test_kafka_away_is_said_in_one_line() -> None:
    with pytest.raises(BrokerUnavailable, match="to read the control topic: start it"):
        await list_keys(f"{HOST}:{free_port()}")
