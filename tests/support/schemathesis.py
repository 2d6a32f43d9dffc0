"""Requests made from `/openapi.json` by schemathesis: what the schemas allow and what they do not, sent to a running address.

Held against each answer: no 5xx, a status, content type, headers and body that the document tells of, 4xx for what a schema
forbids, 405 with Allow for other methods. Not held: that all a schema allows is taken, because no schema can say that `from` is
not later than `to`, or that a cursor must be one that was given.
"""

import asyncio
import os
import re
import sys
from pathlib import Path

# Random ones of each operation. Asked for, the fixed ones at the borders of the schemas come too, some 2,700.
EXAMPLES = os.environ.get("TOOLLEDGER_TEST_EXAMPLES")


async def run(url: str, key: str, *selection: str, folder: Path) -> None:
    """Run it in a folder of its own.

    Args:
        selection: its options that choose operations.

    Raises:
        AssertionError: it found something, with all it said.
    """
    # A URL that is too long says so before anybody looks at what is wrong in it.
    (folder / "schemathesis.toml").write_text('[checks.negative_data_rejection]\nexpected-statuses = ["4xx"]\n')
    header = "x-org-api-key" if key.startswith("oak_") else "x-api-key"
    # A fixed seed unless asked for more: what fails here fails again.
    few = ["--phases", "fuzzing", "--max-examples", "8", "--seed", "1"]
    much = ["--phases", "coverage,fuzzing", "--max-examples", EXAMPLES] if EXAMPLES else few
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--url", url, "--header", f"{header}: {key}"),
        *("--workers", "4", "--continue-on-failure"),
        *("--exclude-checks", "positive_data_acceptance,ignored_auth", "--suppress-health-check", "all", "--warnings", "off"),
        *much,
        *selection,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    text = told.decode(errors="replace")
    assert process.returncode == 0, text
    assert re.search(r" ([1-9]\d*) generated, \1 passed", text), text
