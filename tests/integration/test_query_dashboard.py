"""The page's files as they are served, and the route that tells a key's holder what it is good for."""

import gzip
import re

import pytest
import pytest_asyncio

from query_api.dashboard.assets import assets
from tests.support import rows
from tests.support.query_service import KEY_A, KEY_INGEST, KEY_ORG, KEY_READ, KEY_REVOKED, query_service

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url:
        async with query_service(url) as running:
            yield running


async def test_the_page_and_all_it_names_are_there_without_a_key(service):
    """Every address in it and in its scripts is one of its files, relative, and none of them may run anything inline."""
    page = await service.get("/", key=None)
    assert page.status == 200
    named = set(re.findall(r'(?:href|src)="(dashboard/[^"]+)"', page.raw.decode()))
    for path, asset in assets().items():
        text = asset.body.decode()
        folder = path.rpartition("/")[0]
        for other in re.findall(r'^import .* from "(\.[^"]+)";$', text, re.MULTILINE):
            parts = [*folder.split("/"), *other.split("/")] if folder else other.split("/")
            found: list[str] = []
            for part in parts:
                if part == "..":
                    found.pop()
                elif part != ".":
                    found.append(part)
            named.add("dashboard/" + "/".join(found))
    assert named
    for path in named:
        file = await service.get("/" + path, key=None)
        assert (path, file.status) == (path, 200)
        policy = file.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert file.headers["x-content-type-options"] == "nosniff"


async def test_a_file_is_sent_again_only_when_it_has_changed(service):
    """By its tag; packed for those who take that; HEAD tells the same without a body; no other file can be reached."""
    for path, media in (("/", "text/html; charset=utf-8"), ("/dashboard/main.js", "text/javascript; charset=utf-8")):
        plain = await service.get(path, key=None, headers={"accept-encoding": "identity"})
        assert plain.headers["content-type"] == media
        assert plain.headers["cache-control"] == "no-cache"
        packed = await service.get(path, key=None, headers={"accept-encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(packed.raw) == plain.raw if packed.raw[:2] == b"\x1f\x8b" else packed.raw == plain.raw
        assert int(packed.headers["content-length"]) < len(plain.raw)
        again = await service.get(path, key=None, headers={"if-none-match": plain.headers["etag"]})
        assert (again.status, again.raw) == (304, b"")
        head = await service.request("HEAD", path, key=None, headers={"accept-encoding": "identity"})
        assert (head.status, head.raw) == (200, b"")
        assert int(head.headers["content-length"]) == len(plain.raw)
        assert (await service.post(path, {}, key=None)).status == 405
    for path in ("/dashboard/", "/dashboard/none.js", "/dashboard/../assets.py", "/dashboard/%2e%2e/assets.py", "/dashboard"):
        assert (await service.get(path, key=None)).status == 404


@pytest.mark.parametrize(
    ("key", "status", "told"),
    [
        (KEY_A, 200, {"project_id": "proj_a", "scope": "full"}),
        (KEY_READ, 200, {"project_id": "proj_a", "scope": "read"}),
        (KEY_INGEST, 403, None),
        (KEY_ORG, 403, None),
        (KEY_REVOKED, 401, None),
        ("ak_of_nobody", 401, None),
        (None, 401, None),
    ],
)
async def test_a_key_is_told_what_it_is_good_for(service, key, status, told):
    """Its project and whether it may send; one that may not read is refused as everywhere."""
    reply = await service.get("/v1/key", key=key)
    assert reply.status == status
    assert reply.body == told if told else "error" in reply.body
    if told:
        assert (await service.get("/v1/key", {"of": "another"}, key=key)).status == 400
