"""`bash deploy/check soak`: kills for as long as asked; stops at the first inconsistency and keeps everything to look into.

TOOLLEDGER_SOAK_FAULTS (500), TOOLLEDGER_SOAK_SEED (a fresh one), TOOLLEDGER_SOAK_SECONDS (a day), TOOLLEDGER_SOAK_WORKERS (3),
TOOLLEDGER_SOAK_BROKERS (1; 3 keeps every topic three times),
TOOLLEDGER_SOAK_RATE (200 events/s), TOOLLEDGER_SOAK_FOLDER (a temporary one; kept only if something was found),
TOOLLEDGER_SOAK_TABLE (file the table is written to).
"""

import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

from tests.support.soak.run import Plan, Soak


def main() -> int:
    """Run; return 0 if everything was exact."""
    signal.signal(signal.SIGTERM, _stop)
    given = os.environ.get
    plan = Plan(
        seed=int(given("TOOLLEDGER_SOAK_SEED") or secrets.randbelow(10**6)),
        faults=int(given("TOOLLEDGER_SOAK_FAULTS") or 500),
        seconds=float(given("TOOLLEDGER_SOAK_SECONDS") or 24 * 3600),
        workers=int(given("TOOLLEDGER_SOAK_WORKERS") or 3),
        rate=float(given("TOOLLEDGER_SOAK_RATE") or 200),
        brokers=int(given("TOOLLEDGER_SOAK_BROKERS") or 1),
        partitions=6,
        verify_every=10,
        judge_every=100,
    )
    folder = Path(given("TOOLLEDGER_SOAK_FOLDER") or tempfile.mkdtemp(prefix="toolledger-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / "soak.log").open("a", encoding="utf-8")

    def tell(line: str) -> None:
        for stream in (sys.stdout, log):
            stream.write(line + "\n")
            stream.flush()

    soak = Soak(folder, plan, tell=tell)
    broken = True
    try:
        soak.go()
        broken = False
    except AssertionError as error:
        tell(f"STOPPED: {error}\nseed {plan.seed}; data and logs are in {folder}")
    except KeyboardInterrupt:
        tell(f"stopped on demand; data and logs are in {folder}")
    finally:
        found = soak.table()
        soak.stop()
    tell("\n" + found)
    if where := given("TOOLLEDGER_SOAK_TABLE"):
        Path(where).write_text(found, encoding="utf-8")
    log.close()
    if not broken and not given("TOOLLEDGER_SOAK_FOLDER"):
        shutil.rmtree(folder)
    return int(broken)


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
