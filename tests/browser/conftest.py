"""A browser as operators have it, and a running stack with the recorded tool calls for it to look at."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests.support.stack import Stack

_ROOT: Final = Path(__file__).parents[2]
RECORDED: Final = _ROOT / "tests" / "data" / "airline_tool_calls.ndjson"
HOW: Final = "no Chromium is installed (Debian: apt-get install chromium)"
_ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
# On a machine that is busy with other tests; what is there is seen at once.
_PATIENCE_MS: Final = 30_000
PROJECT: Final = "airline"
# All of the recording, and nothing of anything else.
FROM_MS: Final = 1793404800000
TO_MS: Final = 1793923200000


expect.set_options(timeout=_PATIENCE_MS)


def executable() -> str | None:
    """Return the browser's path, None where there is none."""
    return os.environ.get("TOOLLEDGER_TEST_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass(frozen=True, slots=True)
class Site:
    """A stack with the recorded calls in one project, and an empty project beside it."""

    stack: Stack
    key: str
    empty_key: str

    @property
    def url(self) -> str:
        assert self.stack.up is not None
        return str(self.stack.up.ready["url"])

    def address(self, view: str, project: str = PROJECT, **params: object) -> str:
        """Return the address of a view, as a colleague would send it; of all that was recorded unless it names a time."""
        first = {"project": project, **({} if {"since", "from"} & params.keys() else {"from": FROM_MS, "to": TO_MS})}
        return f"{self.url}/#/{view}?{urlencode({**first, **params}, doseq=True)}"


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The stack, shared by all tests of the suite: who sends events names a project of his own."""
    stack = Stack(tmp_path_factory.mktemp("page"))
    stack.start()
    try:
        stack.key = stack.create_key(PROJECT)
        empty_key = stack.create_key("empty")
        stack.toolledger("send", str(RECORDED), env={"TOOLLEDGER_API_KEY": stack.key})
        assert stack.proved().findings == ()
        yield Site(stack, stack.key, empty_key)
    finally:
        stack.stop()


# No longer than this suite: Playwright leaves its event loop running in the thread, where no other test could run one.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = executable()
    if path is None:
        pytest.skip(HOW)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield made
        made.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A window of its own, with nothing kept from others; what its pages say on the console is kept for `page`."""
    made = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB", timezone_id="Europe/Berlin")
    made.set_default_timeout(_PATIENCE_MS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page without a key. Errors of its scripts, and all that its policy stopped, fail the test."""
    made = context.new_page()
    wrong: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        # A refused request is on the console too; what the page makes of it is the test's to see.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            wrong.append(message.text)

    made.on("console", heard)
    made.on("pageerror", lambda error: wrong.append(str(error)))
    yield made
    assert wrong == []


@pytest.fixture
def opened(page: Page, site: Site) -> Page:
    """A page whose user has entered the key of the recorded calls."""
    enter(page, site, site.key)
    return page


def enter(page: Page, site: Site, key: str) -> None:
    """Open the page and enter a key as a user does."""
    enter_at(page, site.url, key)


def enter_at(page: Page, url: str, key: str) -> None:
    page.goto(url)
    page.get_by_label("Key of the project").fill(key)
    page.get_by_role("button", name="Open").click()
    page.get_by_role("navigation", name="Views").wait_for()
