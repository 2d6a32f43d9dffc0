"""What one tenant's heavy questions do to another's light ones.

`python -m tests.benchmarks.bench_fairness [--rows 4000000] [--parallel 64] [--set query_in_flight_per_project_max=4]...` fills
the embedded engine with rows of two projects. Project B asks for its newest failures, again and again: first alone, then while
project A keeps so many searches going that each read all of its rows. It prints B's times, and how A fared.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ingest.contract import logs
from ingest.contract.store import client as open_client
from tests.support import parts, rows
from tests.support.query_service import KEY_B, QueryService, query_service

_LIGHT: Final = {"limit": 20, "filters": [{"field": "status", "operator": "==", "value": "failed"}]}
# Found nowhere, and not by any index: every row is read and folded.
_HEAVY: Final = {"filters": [{"field": "user_id", "operator": "contains", "value": "nobody"}]}
_FILL: Final = """
    INSERT INTO tool_executions (batch_month, project_id, timestamp, id, tool_slug, toolkit_slug, user_id, session_id, status,
        level, duration_ms, incarnation, accepted_at)
    SELECT 202601, '{project}', fromUnixTimestamp64Milli(toInt64(1767225600000 + number * 500), 'UTC') AS at,
        concat('log_', leftPad(toString(number), 12, '0')), 'GMAIL_SEND_EMAIL', 'gmail',
        concat('user_', toString(cityHash64(number) % 5000)), concat('sess_', toString(intDiv(number, 40))),
        if(cityHash64(number, 1) % 20 = 0, 'failed', 'success'), 'info', number % 900, 'one', at
    FROM numbers({rows})"""


async def _light(service: QueryService, *, for_s: float) -> list[float]:
    """Ask light questions one after another; return what each took, in ms."""
    took = []
    until = time.monotonic() + for_s
    while (began := time.monotonic()) < until:
        reply = await service.logs(_LIGHT, key=KEY_B)
        assert reply.status == 200, reply.body
        took.append((time.monotonic() - began) * 1000)
    return took


async def _heavy(service: QueryService, answered: Counter[int]) -> None:
    while True:
        reply = await service.logs(_HEAVY)
        answered[reply.status] += 1
        if reply.status != 200:
            # As the official clients do.
            await asyncio.sleep(int(reply.headers["Retry-After"]) if "Retry-After" in reply.headers else 0.5)


def _figures(took: Sequence[float]) -> str:
    cuts = statistics.quantiles(took, n=100) if len(took) > 1 else list(took) * 100
    return f"{len(took):>5} answers  p50 {cuts[49]:8.1f}  p95 {cuts[94]:8.1f}  max {max(took):8.1f} ms"


async def measure(url: str, settings: dict[str, Any], *, parallel: int, for_s: float) -> None:
    """Print B's times alone and beside A."""
    async with query_service(url, freshness_cache_s=0.2, **settings) as service:
        await _light(service, for_s=1)
        print(f"{settings or 'defaults'}\n  B alone    {_figures(await _light(service, for_s=for_s / 4))}", flush=True)
        answered: Counter[int] = Counter()
        heavy = [asyncio.create_task(_heavy(service, answered)) for _ in range(parallel)]
        await asyncio.sleep(1)
        answered.clear()
        print(f"  B beside A {_figures(await _light(service, for_s=for_s))}", flush=True)
        print(f"  A: {sum(answered.values()) / for_s:.1f} answers/s, by status {dict(answered)}", flush=True)
        for task in heavy:
            task.cancel()
        for task in heavy:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4_000_000, help="of A; B has a tenth")
    parser.add_argument("--parallel", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--set", action="append", default=[], help="setting=value[,setting=value]; once for each run")
    options = parser.parse_args()
    logs.configure(service="query", level="error", json=False)
    with tempfile.TemporaryDirectory() as folder, parts.clickhouse(Path(folder)) as server, rows.fresh_database(server) as url:
        with contextlib.closing(open_client(url)) as store:
            store.command(_FILL.format(project="proj_a", rows=options.rows))
            store.command(_FILL.format(project="proj_b", rows=options.rows // 10))
        for chosen in options.set or [""]:
            settings: dict[str, Any] = {}
            for one in filter(None, chosen.split(",")):
                name, _, value = one.partition("=")
                settings[name] = int(value)
            asyncio.run(measure(url, settings, parallel=options.parallel, for_s=options.seconds))


if __name__ == "__main__":
    main()
