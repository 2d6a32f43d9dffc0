"""The client is installed without the server's dependencies."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Installed by `pip install toolledger` alone; zstandard is taken where it is, and is not here.
_PROGRAM = """
import sys
allowed = {"ingest", "msgspec", "orjson"} | set(sys.stdlib_module_names)
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuses())
from ingest.client import AsyncToolLedger, ToolLedger
with ToolLedger(api_key="ak", base_url="http://127.0.0.1:9", spool=sys.argv[1]) as ledger:
    with ledger.execution("A_TOOL", arguments={"a": 1}) as execution:
        execution.result = {"b": 2}
counts = ledger.counts()
assert counts.recorded == counts.spooled == 1, counts
AsyncToolLedger(api_key="ak", spool=False)
heavy = {"pydantic", "aiohttp", "starlette", "clickhouse_connect", "structlog", "asyncio.unix_events"} & set(sys.modules)
print("recorded", sorted(heavy - {"asyncio.unix_events"}))
"""


def test_the_client_works_with_its_base_dependencies_alone(tmp_path: Path) -> None:
    """Nothing but msgspec, orjson and the standard library can be imported, and calls are recorded all the same."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "recorded []\n", done.stderr
