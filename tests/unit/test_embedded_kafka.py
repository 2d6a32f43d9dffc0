"""The embedded broker's configuration, its pinned jars, and what a cache is taken for."""

from pathlib import Path

import pytest

from deploy.embedded import kafka_jars
from deploy.embedded.kafka_config import Broker, properties
from ingest.contract.errors import ConfigurationError
from ingest.contract.topics import RECORD_BYTES_MAX


def _read(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_a_lone_broker_listens_on_this_machine_and_elects_itself() -> None:
    values = _read(properties(Broker(data=Path("/data"), port=9092), controller_port=9093))
    assert values["listeners"] == "CLIENTS://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert values["advertised.listeners"] == "CLIENTS://127.0.0.1:9092"
    assert values["controller.quorum.voters"] == "1@127.0.0.1:9093"
    assert values["log.dirs"] == "/data/kafka/log"
    assert values["offsets.topic.replication.factor"] == values["min.insync.replicas"] == "1"
    assert values["group.initial.rebalance.delay.ms"] == "0"
    assert values["auto.create.topics.enable"] == "false"


def test_three_brokers_keep_three_copies_and_take_writes_while_one_is_away() -> None:
    voters = ("1@127.0.0.1:9193", "2@127.0.0.1:9293", "3@127.0.0.1:9393")
    values = _read(properties(Broker(data=Path("/data"), node_id=2, voters=voters), controller_port=9293))
    assert values["controller.quorum.voters"] == ",".join(voters)
    assert values["node.id"] == "2"
    assert (values["default.replication.factor"], values["min.insync.replicas"]) == ("3", "2")
    assert (values["offsets.topic.replication.factor"], values["transaction.state.log.min.isr"]) == ("3", "2")


def test_a_follower_can_copy_the_largest_record() -> None:
    values = _read(properties(Broker(data=Path("/data")), controller_port=1))
    assert int(values["replica.fetch.max.bytes"]) > RECORD_BYTES_MAX


def test_every_jar_is_pinned_once_with_size_and_hash() -> None:
    jars = kafka_jars.pins()
    assert len({(jar.group, jar.artifact) for jar in jars}) == len(jars) > 40
    assert all(jar.size > 0 and len(jar.sha256) == 64 for jar in jars)
    ours = {jar.artifact: jar.version for jar in jars if jar.group == "org.apache.kafka"}
    assert set(ours.values()) == {kafka_jars.KAFKA_VERSION}
    # Without the bridge the broker would run silently.
    assert {jar.artifact for jar in jars} >= {"kafka_2.13", "kafka-clients", "log4j-core", "log4j-slf4j-impl"}


def test_a_jar_that_was_cut_short_is_missing(tmp_path: Path) -> None:
    jar = kafka_jars.Jar(group="a.b", artifact="c", version="1", size=3, sha256="")
    path = jar.path(tmp_path)
    assert path == tmp_path / "a" / "b" / "c" / "1" / "c-1.jar"
    assert kafka_jars.missing([jar], tmp_path) == [jar]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"ab")
    assert kafka_jars.missing([jar], tmp_path) == [jar]
    path.write_bytes(b"abc")
    assert kafka_jars.missing([jar], tmp_path) == []


def test_a_cold_cache_without_network_is_one_line_that_names_the_way_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLLEDGER_CACHE", str(tmp_path))
    # Nobody listens there: what a machine without network meets, at once.
    monkeypatch.setenv("TOOLLEDGER_MAVEN", "http://127.0.0.1:1/maven")
    said: list[str] = []
    with pytest.raises(ConfigurationError, match=r"could not fetch \S+\.jar .*no connection.*--kafka ADDRESS") as caught:
        kafka_jars.ensure(said.append)
    assert "\n" not in str(caught.value)
    assert said[0].startswith("fetching Kafka ")


def test_a_cache_that_cannot_be_written_is_one_line_that_names_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TOOLLEDGER_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="TOOLLEDGER_CACHE"):
        kafka_jars.ensure(lambda _line: None)
