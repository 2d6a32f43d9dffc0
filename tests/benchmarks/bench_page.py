"""How soon the page shows something, over a long history: `python -m tests.benchmarks.bench_page --rows 10000000`.

Starts Kafka, ClickHouse, a worker and the query service on a folder of `seed_executions` (made if it is not there), opens the
page in a browser, and prints: what it weighs, how long from the address to the first rows (with nothing cached, then again),
and from a filter to its rows. `--live 2000 --live-s 360` then follows half of 2,000 events/s, as many calls as an hour at 100/s
brings, and prints what the page holds.
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, sync_playwright

from tests.benchmarks.live_events import arriving
from tests.benchmarks.seed_executions import PROJECTS, seed
from tests.benchmarks.seeded_stack import seeded_stack
from tests.browser.conftest import HOW, executable

_ROUNDS: Final = 10
_LOOKS: Final = 6
_PROJECT: Final = PROJECTS[0]
# One filter of each kind: what many have, what few have, and a text.
_FILTERS: Final = (
    "status=failed",
    "toolkit_slug=gmail",
    "user_id=user_7919",
    "failure_class=rate_limited",
    "text~=rate limit",
    "text~=nobody says this",
)
_ROWS: Final = "() => document.querySelector('[data-log], .log-state .state-title') !== null"
# From a change of the address to the frame in which the rows of it, or the state that there are none, are there.
_NARROW: Final = """async (hash) => {
  if (location.hash === hash) return 0;
  const before = document.querySelector('[data-log]');
  const began = performance.now();
  location.hash = hash;
  const done = () => {
    const row = document.querySelector('[data-log]');
    return document.querySelector('.log-state:not([hidden]) .state-title') || (row && row !== before && !before?.isConnected);
  };
  while (!done()) await new Promise((resolve) => requestAnimationFrame(resolve));
  return performance.now() - began;
}"""


def measure(page: Page, url: str, key: str) -> None:
    """Print the table."""
    weights: dict[str, int] = {}
    page.on("response", lambda answer: weights.update({answer.url: int(answer.headers.get("content-length", 0))}))
    page.goto(url)
    page.get_by_label("Key of the project").fill(key)
    page.get_by_role("button", name="Open").click()
    page.wait_for_function(_ROWS)
    files = [size for address, size in weights.items() if "/api/" not in address and "/v1/" not in address]
    print(f"page with the view of logs: {len(files)} files, {sum(files) / 1024:.0f} KiB as sent")

    base = f"#/logs?project={_PROJECT}&since=7d"
    page.goto(f"{url}/{base}")
    print(f"address to the first rows: {_told(lambda: _reloaded(page))}")
    for narrowed in _FILTERS:

        def once(narrowed: str = narrowed) -> float:
            page.evaluate(_NARROW, base)
            return float(page.evaluate(_NARROW, f"{base}&{narrowed.replace(' ', '%20')}"))

        print(f"{narrowed:>32} to its rows: {_told(once)}")


def follow(page: Page, url: str, seconds: int) -> None:
    """Follow what arrives, and print what the page holds from time to time, garbage taken out before."""
    page.goto(f"{url}/#/logs?project={_PROJECT}&since=15m&live=1")
    page.wait_for_function(_ROWS)
    tools = page.context.new_cdp_session(page)
    tools.send("Performance.enable")
    began = time.monotonic()
    for number in range(_LOOKS + 1):
        page.wait_for_timeout(max(0.0, began + seconds * number / _LOOKS - time.monotonic()) * 1000)
        tools.send("HeapProfiler.collectGarbage")
        found = {each["name"]: each["value"] for each in tools.send("Performance.getMetrics")["metrics"]}
        held = f"{found['JSHeapUsedSize'] / 2**20:.1f} MiB of heap, {found['Nodes']:.0f} nodes"
        shown = page.locator(".log-bar").inner_text().replace("\n", " ")
        print(f"followed for {time.monotonic() - began:4.0f} s: {held}; {shown}", flush=True)


def _reloaded(page: Page) -> float:
    began = time.perf_counter()
    page.reload(wait_until="commit")
    page.wait_for_function(_ROWS)
    return (time.perf_counter() - began) * 1000


def _told(once: Callable[[], float]) -> str:
    first = once()
    times = [once() for _ in range(_ROUNDS)]
    return f"first {first:.0f} ms, then p50 {statistics.median(times):.0f} ms, worst {max(times):.0f} ms"


def bench(folder: Path, *, rate: int, seconds: int) -> None:
    """Start everything on a seeded folder, measure, and stop."""
    path = executable()
    assert path is not None, HOW
    with seeded_stack(folder) as stack:
        key = stack.create_key(_PROJECT)
        ((rows,),) = stack.pipeline.rows("SELECT count() FROM tool_executions")
        print(f"{rows:,} rows", flush=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            measure(page, stack.url, key)
            if rate:
                with arriving(stack.pipeline.kafka.address, rate):
                    follow(page, stack.url, seconds)
            browser.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="data of a former run; made if it is not there")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument(
        "--live", type=int, default=0, help="events a second to follow at the end, of which half are the project's"
    )
    parser.add_argument("--live-s", type=int, default=360)
    options = parser.parse_args()
    # While ClickHouse starts, its client says at length that it is not there yet.
    logging.disable(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "data"
        if not folder.exists():
            seed(folder, options.rows)
        bench(folder, rate=options.live, seconds=options.live_s)


if __name__ == "__main__":
    main()
