"""The library of charts: handed out as the package brings it, under the page's policy, and only to those who look at charts."""

import gzip
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest_asyncio
from starlette.applications import Starlette
from starlette.routing import Route

from query_api.dashboard import charts
from query_api.dashboard.assets import assets
from query_api.http import dashboard

LIBRARY = f"/dashboard/{charts.LIBRARY}"


@pytest_asyncio.fixture
async def client():
    site = Starlette(routes=[Route(dashboard.PAGE, dashboard.page), Route(dashboard.FILES, dashboard.file)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://page") as made:
        yield made


async def test_the_library_is_the_packages_own_and_is_sent_packed(client):
    """What arrives is byte for byte what plotly's package brings, a third of the size on the way."""
    answer = await client.get(LIBRARY, headers={"accept-encoding": "gzip"})
    spec = find_spec("plotly")
    assert spec is not None
    assert spec.origin is not None
    assert answer.content == (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_bytes()
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert int(answer.headers["content-length"]) < len(answer.content) / 2.5
    assert gzip.decompress(charts.library().packed) == charts.library().body


async def test_a_browser_that_has_it_gets_it_only_when_it_has_changed(client):
    """With the etag it was given a browser gets 304 and no body; with another one the whole."""
    etag = (await client.get(LIBRARY)).headers["etag"]
    again = await client.get(LIBRARY, headers={"if-none-match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await client.get(LIBRARY, headers={"if-none-match": '"another"'})).status_code == 200


async def test_it_comes_under_the_same_policy_as_the_page(client):
    """The library is given no right that the page has not: no inline script or style, nothing from elsewhere."""
    page, library = await client.get("/"), await client.get(LIBRARY)
    assert library.headers["content-security-policy"] == page.headers["content-security-policy"]
    assert "unsafe" not in library.headers["content-security-policy"]
    assert library.headers["x-content-type-options"] == "nosniff"


async def test_where_the_package_is_missing_the_answer_says_so(client, monkeypatch):
    """Without plotly the page's other files are served as ever, and the library is a 404 with an Error body and advice."""
    charts.library.cache_clear()
    monkeypatch.setattr(charts, "find_spec", lambda _: None)
    answer = await client.get(LIBRARY)
    assert answer.status_code == 404
    assert "pip install" in answer.json()["error"]["message"]
    assert (await client.get("/")).status_code == 200


def test_neither_the_start_nor_the_other_files_touch_it():
    """Reading the page's files imports no plotly and leaves the library unread: it costs those who look at charts alone."""
    script = (
        "import sys; from query_api.http import dashboard; from query_api.dashboard import assets, charts; assets.assets();"
        " assert charts.library.cache_info().currsize == 0; charts.library(); assert 'plotly' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert charts.LIBRARY not in assets()
    # Named by one module alone, which only charts ask for.
    naming = [path for path, each in assets().items() if charts.LIBRARY.encode() in each.body]
    assert naming == ["views/usage/plotly.js"]
