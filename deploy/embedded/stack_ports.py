"""Choose the inner ports of a stack once and remember them; one that another program took meanwhile is replaced."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

from deploy.embedded.process import folder_fault, free_port, require_free_port
from deploy.embedded.stack_parts import Ports
from ingest.contract.errors import ConfigurationError

_FILE: Final = "ports.json"
# Beside the public port, so that people recognise them and no outgoing connection is given one by chance.
_QUERY, _CLICKHOUSE, _KAFKA, _WORKER = 1, 2, 4, 10


def choose(data: Path, public: int, workers: int) -> Ports:
    """Return free ports, those of the last start where possible, and remember them.

    Raises:
        ConfigurationError: they cannot be written down.
    """
    remembered = _read(data)
    taken = {public}

    def pick(name: str, offset: int) -> int:
        for port in (remembered.get(name), public + offset):
            if port and port not in taken and port <= 65_535 and _free(port):
                taken.add(port)
                return port
        port = next(port for port in _any() if port not in taken)
        taken.add(port)
        return port

    ports = Ports(
        kafka=pick("kafka", _KAFKA),
        clickhouse=pick("clickhouse", _CLICKHOUSE),
        query=pick("query", _QUERY),
        workers=tuple(pick(f"worker-{number}", _WORKER + number) for number in range(1, workers + 1)),
    )
    flat = {name: port for name, port in asdict(ports).items() if name != "workers"}
    flat |= {f"worker-{number}": port for number, port in enumerate(ports.workers, 1)}
    try:
        (data / _FILE).write_text(json.dumps({**remembered, **flat}) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(folder_fault(data / _FILE, error)) from None
    return ports


def _read(data: Path) -> dict[str, int]:
    try:
        members = json.loads((data / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: port for name, port in members.items() if isinstance(port, int)} if isinstance(members, dict) else {}


def _free(port: int) -> bool:
    try:
        require_free_port("127.0.0.1", port)
    except ConfigurationError:
        return False
    return True


def _any() -> Iterator[int]:
    while True:
        yield free_port()
