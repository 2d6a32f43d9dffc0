"""All checks, in the order in which one thing rests on another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.doctor import clickhouse, kafka, machine, retention, service
from deploy.doctor.finding import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """What to look at. Each place is an address and who named it, in words.

    Args:
        clickhouse_shown: ClickHouse's address without its password.
        services: of the HTTP API; where a stack runs here also of the query service behind it.
        key: an API key to try at the first of them, None for none.
        data: the data folder of an embedded stack, which need not be there.
    """

    kafka: tuple[str, str]
    clickhouse: tuple[str, str]
    clickhouse_shown: str
    services: tuple[tuple[str, str], ...]
    key: str | None
    data: Path


def examine(addresses: Addresses) -> Iterator[Finding]:
    """Look at one thing after the other; each is said when it is known."""
    yield machine.settings()
    yield machine.versions()
    if (found := machine.folder(addresses.data)) is not None:
        yield found
    examined = kafka.examine(*addresses.kafka)
    yield from examined.findings
    url, where = addresses.clickhouse
    yield from clickhouse.examine(url, addresses.clickhouse_shown, where, examined.incarnation)
    if examined.incarnation and (kept := retention.examine(addresses.kafka[0], url)) is not None:
        yield kept
    for number, (address, named) in enumerate(addresses.services):
        yield from service.examine(address, named, addresses.key if number == 0 else None)
