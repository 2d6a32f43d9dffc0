"""A worker that takes every event for a new one: what dedupe costs is the difference. For benchmarks alone."""

from typing import Any

from processors import batch, known_ids, run
from processors.dedupe import SeenFilter, Suspects
from processors.settings import WorkerSettings


async def _loads_nothing(*_: Any, **__: Any) -> None:
    """Stands in for the loading of known ids."""


def main() -> int:
    """Run it like any worker; settings come from the environment."""
    batch.suspects = lambda **_: Suspects(by_id=[], by_time=[])
    SeenFilter.add = lambda *_, **__: None
    known_ids.Loader.load = _loads_nothing
    return run.main(WorkerSettings())


if __name__ == "__main__":
    raise SystemExit(main())
