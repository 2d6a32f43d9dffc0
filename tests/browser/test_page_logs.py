"""Logs as operators read them: found, narrowed down, opened, followed, and scrolled through without an end."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qs

from playwright.sync_api import Dialog, Locator, Page, expect

from tests.browser.conftest import RECORDED, Site, enter
from tests.support.cut_wire import CutWire

# The list draws what is in view and a little beyond.
_ROWS_DRAWN_MAX: Final = 80


def recorded() -> list[dict[str, Any]]:
    """Return the recorded calls, newest first, as the list has them."""
    calls = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    return sorted(calls, key=lambda call: (call["timestamp"], call["id"]), reverse=True)


def rows(page: Page) -> Locator:
    return page.locator("[data-log]")


def ids(page: Page) -> list[str]:
    """Return the ids of the rows that are drawn, from the top on."""
    found: list[str] = page.evaluate(
        "() => [...document.querySelectorAll('[data-log]')]"
        ".sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex')).map((row) => row.dataset.log)"
    )
    return found


def shows(page: Page, calls: Iterable[dict[str, Any]]) -> None:
    """Wait until the list begins with these calls."""
    wanted = [call["id"] for call in calls]
    page.wait_for_function(
        "(wanted) => JSON.stringify([...document.querySelectorAll('[data-log]')]"
        ".sort((a, b) => a.getAttribute('aria-rowindex') - b.getAttribute('aria-rowindex')).map((row) => row.dataset.log)"
        ".slice(0, wanted.length)) === JSON.stringify(wanted)",
        arg=wanted,
    )


def parameters(page: Page) -> dict[str, list[str]]:
    return parse_qs(page.url.partition("?")[2])


def call(number: int, **members: Any) -> dict[str, Any]:
    """Return a call of a minute ago, the later the larger its number."""
    at_ms = int(time.time() * 1000) - 60_000 + number
    return {
        "id": f"log_{number:06d}",
        "tool_slug": "GMAIL_SEND_EMAIL",
        "status": "success",
        "duration_ms": 12,
        "timestamp": at_ms,
        **members,
    }


def test_a_click_on_a_value_narrows_the_list_and_a_chip_takes_it_back(opened: Page, site: Site) -> None:
    """What is clicked, typed or added is in the address and in the list, and the back button takes the last of it back."""
    page, calls = opened, recorded()
    page.goto(site.address("logs"))
    shows(page, calls[:10])
    failed = [each for each in calls if each["status"] == "failed"]

    rows(page).locator("[data-field=status]", has_text="failed").first.click()
    shows(page, failed[:10])
    assert parameters(page)["status"] == ["failed"]

    tool = failed[0]["tool_slug"]
    rows(page).first.locator("[data-field=tool_slug]").click()
    of_tool = [each for each in failed if each["tool_slug"] == tool]
    shows(page, of_tool[:10])
    user = of_tool[0]["user_id"]
    rows(page).first.locator("[data-field=user_id]").click(modifiers=["Alt"])
    shows(page, [each for each in of_tool if each["user_id"] != user][:5])
    expect(page.get_by_role("list", name="Filters")).to_contain_text("user is not")

    page.go_back()
    shows(page, of_tool[:10])
    page.get_by_role("link", name=f"Remove: tool is {tool}").click()
    shows(page, failed[:10])

    word = "certificate"
    page.keyboard.press("/")
    page.keyboard.type(word)
    page.keyboard.press("Enter")
    of_word = [each for each in failed if word in json.dumps(each.get("error", {})).lower()]
    assert of_word
    shows(page, of_word)
    assert len(ids(page)) == len(of_word)

    # A link shows a colleague the same.
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    shows(page, of_word)

    page.keyboard.press("/")
    page.keyboard.type("no call says this")
    page.keyboard.press("Enter")
    expect(page.get_by_text("No call fits these filters")).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="Clear filters").click()
    shows(page, calls[:10])


def test_a_log_opens_beside_the_list(opened: Page, site: Site) -> None:
    """The drawer says what failed, why, and what to do; keys walk through the list; what had the focus has it again."""
    page, calls = opened, recorded()
    failed = [each for each in calls if each["status"] == "failed"]
    page.goto(site.address("logs", status="failed"))
    shows(page, failed[:3])
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    drawer = page.get_by_role("region", name=failed[1]["tool_slug"])
    expect(drawer.get_by_text("Likely cause")).to_be_visible()
    assert parameters(page)["log"] == [failed[1]["id"]]
    expect(drawer.get_by_text("What to do")).to_be_visible()
    expect(drawer).to_contain_text(failed[1]["error"]["message"])
    expect(drawer.locator("dl").first).to_contain_text(failed[1]["id"])
    expect(drawer.get_by_role("heading").first).to_be_focused()

    # The next one, without leaving the drawer; and back to where one was in the list.
    page.keyboard.press("j")
    drawer = page.locator(".drawer")
    expect(drawer.locator("dl").first).to_contain_text(failed[2]["id"])
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(page.get_by_role("grid")).to_be_focused()
    expect(page.locator("[aria-selected=true]")).to_have_attribute("data-log", failed[2]["id"])


def test_a_link_to_a_log_shows_its_payload_and_its_session(opened: Page, site: Site) -> None:
    """A link opens a log in a list that does not hold it: JSON folds, is searched and copied, and its session is a timeline."""
    page, calls = opened, recorded()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    drawer = page.locator(".drawer")
    wide = max(calls, key=lambda each: len(json.dumps(each["data"])))
    page.goto(site.address("logs", status="failed", log=wide["id"]))
    expect(drawer.locator("dl").first).to_contain_text(wide["id"])
    response = drawer.locator("section.part", has=page.get_by_role("heading", name="Response"))
    copied = response.get_by_role("button", name="Copy response")
    copied.click()
    expect(copied).to_have_text("Copied")
    assert json.loads(page.evaluate("() => navigator.clipboard.readText()")) == wide["data"]["response"]
    drawer.get_by_role("button", name="Copy as curl").click()
    command = page.evaluate("() => navigator.clipboard.readText()")
    assert command.endswith(f'/api/v3.1/logs/tool_execution/{wide["id"]}\' -H "x-api-key: $TOOLLEDGER_API_KEY"')
    assert site.key not in command

    fold = response.locator(".json-fold").first
    expect(fold).to_have_attribute("aria-expanded", "true")
    fold.click()
    expect(response.locator(".json-root ul").first).to_be_hidden()
    leaf = _last_text(wide["data"]["response"])
    response.get_by_role("searchbox").fill(leaf)
    expect(response.locator(".is-found")).to_contain_text(leaf)
    expect(response.locator(".is-found")).to_be_visible()

    # The session: each of its calls once, and a click opens one.
    of_session = [each for each in calls if each["session_id"] == wide["session_id"]]
    timeline = drawer.locator(".calls a")
    expect(timeline).to_have_count(len(of_session))
    timeline.first.click()
    expect(drawer.locator("dl").first).to_contain_text(of_session[-1]["id"])
    page.go_back()
    expect(drawer.locator("dl").first).to_contain_text(wide["id"])
    drawer.get_by_role("link", name="Show them in the list").click()
    shows(page, of_session)

    page.goto(site.address("logs", log="log_unknown"))
    expect(drawer.get_by_role("alert")).to_contain_text("Log not found")


def _last_text(value: Any) -> str:
    """Return the last text of a value that is long enough to be told apart."""
    if isinstance(value, str):
        return value if len(value) > 5 else ""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for each in reversed(list(inner)) if (found := _last_text(each))), "")


def test_scrolling_has_no_end_and_no_more_elements(page: Page, site: Site) -> None:
    """More calls than are kept in memory come each once and in order, down and up again, with few elements."""
    key = site.stack.create_key("endless")
    calls = [call(number, message=f"number {number}", session_id="long") for number in range(1_500)]
    for at in range(0, len(calls), 500):
        assert site.stack.post("/v1/events", calls[at : at + 500], key=key).status_code == 202
    site.stack.proved()
    wanted = [each["id"] for each in reversed(calls)]
    page.set_viewport_size({"width": 1280, "height": 2000})
    enter(page, site, key)
    shows(page, reversed(calls[-10:]))

    down = step_through(page, "PageDown")
    assert down == dict(enumerate(wanted))
    expect(page.locator(".said")).to_contain_text("1,500 calls")
    up = step_through(page, "PageUp")
    assert up == dict(enumerate(wanted))

    # A session too long for its timeline is shown around the call that is open.
    for number, which in ((1_450, "The newest 500 calls"), (700, "Up to this one, the last 500 calls")):
        page.goto(site.address("logs", project="endless", since="1h", log=calls[number]["id"]))
        expect(page.locator(".timeline")).to_contain_text(which)
        expect(page.locator(".calls [aria-current=true]")).to_have_attribute("title", f"number {number}")
    page.goto(site.address("logs", project="endless", since="1h"))

    # A list that is higher than a browser can place anything at.
    millions = page.evaluate(_MILLIONS)
    assert millions == {"last": "4999999", "first": "0", "drawn": True}


# Goes through the list a screen at a time, and keeps which log was drawn where, as soon as all in view are there.
_STEP: Final = """(key) => {
  const grid = document.querySelector('[role=grid]');
  const drawn = [...grid.querySelectorAll('.log-rows > *')];
  const waits = drawn.some((row) => !row.dataset.log);
  const seen = drawn.map((row) => [row.getAttribute('aria-rowindex') - 2, row.dataset.log]);
  const before = grid.scrollTop;
  if (!waits) grid.scrollTop += (key === 'PageDown' ? 1 : -1) * (grid.clientHeight - 120);
  return { seen, waits, drawn: drawn.length, ended: !waits && grid.scrollTop === before };
}"""


def step_through(page: Page, key: str, *, until: int | None = None) -> dict[int, str]:
    """Go through the list to its end, or till so many rows were seen; return which log was drawn where."""
    # A list without rows looks like one that has ended.
    rows(page).first.wait_for()
    seen: dict[int, str] = {}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        step = page.evaluate(_STEP, key)
        assert step["drawn"] <= _ROWS_DRAWN_MAX
        if not step["waits"]:
            seen.update({number: log for number, log in step["seen"]})
            if step["ended"] or (until is not None and until in seen):
                return dict(sorted(seen.items()))
        # What is asked for, and the next frame.
        page.evaluate("() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))")
    raise AssertionError(f"the list did not end; {len(seen)} rows were seen")


_MILLIONS: Final = """async () => {
  const { rowList } = await import('/dashboard/views/logs/rows.js');
  const scroller = document.createElement('div');
  const body = document.createElement('div');
  scroller.style.setProperty('height', '600px');
  scroller.style.setProperty('overflow', 'auto');
  body.style.setProperty('position', 'relative');
  body.style.setProperty('line-height', '36px');
  scroller.append(body);
  document.body.append(scroller);
  const make = (number) => {
    const row = document.createElement('div');
    row.textContent = String(number);
    row.style.setProperty('position', 'absolute');
    row.style.setProperty('height', '36px');
    return row;
  };
  const list = rowList(scroller, body, {
    count: () => 5_000_000, want: () => {},
    row: (number) => ({ key: String(number), make: () => make(number), update: () => {} }),
  });
  const frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  await frame();
  const drawnMax = [];
  list.scrollTo(2_500_000.5);
  for (let step = 0; step < 30; step++) { scroller.scrollTop += 400_000; await frame(); drawnMax.push(body.children.length); }
  list.show(4_999_999);
  await frame();
  const last = [...body.children].map((row) => Number(row.textContent)).sort((a, b) => b - a)[0];
  for (let step = 0; step < 40; step++) { scroller.scrollTop = 0; await frame(); }
  list.show(0);
  await frame();
  const first = [...body.children].map((row) => Number(row.textContent)).sort((a, b) => a - b)[0];
  list.close();
  scroller.remove();
  return { last: String(last), first: String(first), drawn: Math.max(...drawnMax) < 40 };
}"""


# The rows that are drawn are all there, and reach from the top of the list's window to its foot.
_FILLED: Final = """() => {
  const { top, bottom } = document.querySelector('[role=grid]').getBoundingClientRect();
  const drawn = [...document.querySelectorAll('.log-rows > *')];
  const places = drawn.map((row) => row.getBoundingClientRect());
  const reaches = places.some((at) => at.top <= top) && places.some((at) => at.bottom >= bottom);
  return reaches && drawn.every((row) => row.dataset.log);
}"""


def test_following_shows_each_call_once_and_moves_nothing_that_is_read(page: Page, site: Site) -> None:
    """Calls come in at the top; while one reads further down they wait; neither a pause nor a broken connection loses one."""
    key = site.stack.create_key("followed")

    def send(*numbers: int) -> None:
        assert site.stack.post("/v1/events", [call(number) for number in numbers], key=key).status_code == 202

    send(*range(200))
    site.stack.proved()
    with CutWire(site.stack.port) as wire:
        address = f"http://127.0.0.1:{wire.port}"
        page.goto(address)
        page.get_by_label("Key of the project").fill(key)
        page.get_by_role("button", name="Open").click()
        page.get_by_role("navigation", name="Views").wait_for()
        shows(page, [call(199), call(198)])
        page.keyboard.press("l")
        assert parameters(page)["live"] == ["1"]
        expect(page.get_by_text("● following")).to_be_visible()
        send(200)
        shows(page, [call(200), call(199), call(198)])

        # What is read stays where it is.
        grid = page.get_by_role("grid")
        grid.evaluate("(grid) => { grid.scrollTop = 1500; }")
        page.wait_for_function(_FILLED)
        place = (
            "() => [...document.querySelectorAll('[data-log]')]"
            ".map((row) => [row.dataset.log, row.getBoundingClientRect().top]).sort()"
        )
        before = page.evaluate(place)
        send(201, 202)
        news = page.get_by_role("button", name="2 new")
        expect(news).to_be_visible()
        assert page.evaluate(place) == before
        news.click()
        shows(
            page,
            [call(number) for number in (202, 201, 200, 199)]
            if ids(page)[0] == "log_000202"
            else [call(number) for number in (201, 202, 200, 199)],
        )

        # Paused, and on.
        page.keyboard.press("l")
        assert "live" not in parameters(page)
        send(203)
        site.stack.proved()
        assert "log_000203" not in ids(page)
        page.keyboard.press("l")
        expect(page.locator('[data-log="log_000203"]')).to_be_visible()

        # A connection that broke.
        wire.cut()
        expect(page.locator(".log-bar").get_by_text("The connection broke")).to_be_visible()
        send(204)
        site.stack.proved()
        wire.mend()
        expect(page.locator('[data-log="log_000204"]')).to_be_visible()
        send(205)
        expect(page.locator('[data-log="log_000205"]')).to_be_visible()
        seen = ids(page)
        assert max(Counter(seen).values()) == 1
        assert set(seen[:7]) == {f"log_{number:06d}" for number in (*range(199, 206),)}


def test_what_events_say_is_text(page: Page, site: Site) -> None:
    """Markup, scripts, marks that turn text around and controls are shown as they are; none of it acts."""
    dialogs: list[str] = []

    def asked(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", asked)
    key = site.stack.create_key("hostile")
    markup = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    long = "x" * 100_000
    hostile = call(
        1,
        tool_slug="A" + markup.replace(" ", "_"),
        user_id='"><svg onload=alert(3)>',
        session_id="s\u202egnp.exe",
        status="failed",
        error={"message": f"{markup} \u202eturned \u0007bell {{{{7*7}}}} ${{alert(4)}}"},
        data={
            "request": {"<b>name</b>": "javascript:alert(5)", "__proto__": {"a": 1}, "n": 0},
            "response": {"text": long, "many": list(range(25_000))},
        },
        metadata={"<i>": markup},
    )
    body = json.dumps(hostile, ensure_ascii=False).replace('"n": 0', '"n": 9223372036854775809, "m": 1e400, "n": 0.10')
    assert site.stack.post("/v1/events", body.encode(), key=key, **{"content-type": "application/json"}).status_code == 202
    site.stack.proved()
    enter(page, site, key)
    row = page.locator('[data-log="log_000001"]')
    expect(row.locator("[data-field=user_id]")).to_have_text('"><svg onload=alert(3)>')
    expect(row.locator("[data-field=session_id]")).to_have_text("s⟨U+202E⟩gnp.exe")
    expect(row.locator(".of-message")).to_contain_text(markup)
    row.locator(".of-time").click()
    drawer = page.locator(".drawer")
    expect(drawer.locator(".said").first).to_contain_text(f"{markup} ⟨U+202E⟩turned ⟨U+0007⟩bell {{{{7*7}}}} ${{alert(4)}}")
    request = drawer.locator("section.part", has=page.get_by_role("heading", name="Request", exact=True)).first
    expect(request).to_contain_text('<b>name</b>: "javascript:alert(5)"')
    expect(request).to_contain_text("9223372036854775809")
    expect(request).to_contain_text("1e400")
    expect(request).to_contain_text("0.10")
    response = drawer.locator("section.part", has=page.get_by_role("heading", name="Response"))
    response.get_by_role("searchbox").fill("24999")
    expect(response.locator(".is-found")).to_have_text("24999: 24999")
    expect(response.get_by_role("button", name=re.compile("more characters"))).to_be_visible()
    assert response.locator("li").count() < 500

    # And so it is as a filter, in a chip and in the address. The first Esc leaves the field.
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    row.locator("[data-field=session_id]").click()
    expect(page.get_by_role("list", name="Filters")).to_contain_text("s⟨U+202E⟩gnp.exe")
    shows(page, [hostile])
    assert page.locator("main img, main script, main svg").count() == 0
    assert dialogs == []


def test_an_empty_project_and_a_key_out_of_force_say_what_to_do(page: Page, site: Site) -> None:
    """Where nothing is, or may be seen, the page says so and leads on."""
    enter(page, site, site.empty_key)
    expect(page.get_by_text("No calls in this time")).to_be_visible()
    page.get_by_role("main").get_by_role("link", name="Last 7 days").click()
    expect(page.get_by_label("Time range")).to_have_value("7d")
    expect(page.get_by_text("No calls in this time")).to_be_visible()
    page.evaluate(
        "() => { const name = 'toolledger.keys', kept = sessionStorage.getItem(name);"
        " sessionStorage.setItem(name, kept.replace(/ak_[^\"]*/, 'ak_wrong')); }"
    )
    page.keyboard.press("r")
    expect(page.get_by_role("alert")).to_contain_text("This key is not in force")
