"""Which key goes where: none of ours leaves, and none that is not ours is let in unless a project is set for it."""

import itertools
from typing import Any

import pytest

from ingest.contract.access import Access, Key, hash_key, key_record
from ingest.gateway.credentials import Grant, grant
from ingest.gateway.passage import request_headers
from ingest.http.answers import Refused

OURS = {
    "full": {"project_id": "p"},
    "read": {"project_id": "p", "scope": "read"},
    "ingest": {"project_id": "p", "scope": "ingest"},
    "revoked": {"project_id": "p", "revoked_at_ms": 1},
    "org": {"project_id": "", "org_id": "o"},
}
NAMES = ("x-api-key", "x-org-api-key", "x-user-api-key", "authorization")


def access() -> Access:
    made = Access()
    for name, fields in OURS.items():
        made.apply(*key_record(Key(id=name, key_hash=hash_key(name), **fields)))
    return made


def decide(*headers: tuple[str, str], **settings: Any) -> Grant | int:
    sent = [(name.encode(), (f"Bearer {value}" if name == "authorization" else value).encode()) for name, value in headers]
    given = {"caught_up": True, "upstream_key": "theirs", "upstream_project": None} | settings
    try:
        return grant(access(), sent, **given)
    except Refused as refusal:
        return refusal.status


def test_a_full_key_of_a_project_is_replaced_by_the_upstreams() -> None:
    assert decide(("x-api-key", "full")) == Grant(project_id="p", key="theirs")
    assert decide(("x-api-key", "full"), upstream_key=None) == Grant(project_id="p", key=None)


@pytest.mark.parametrize(("key", "status"), [("read", 403), ("ingest", 403), ("revoked", 401), ("org", 401), ("unknown", 401)])
def test_other_keys_are_refused(key: str, status: int) -> None:
    assert decide(("x-api-key", key)) == status


def test_before_the_keys_are_read_nobody_is_sent_away_for_good() -> None:
    assert decide(("x-api-key", "unknown"), caught_up=False) == 503
    assert decide(("x-api-key", "unknown"), caught_up=False, upstream_project="f") == 503
    assert decide(caught_up=False) == 401


def test_a_key_of_nobody_here_goes_on_where_a_project_is_set() -> None:
    for name in NAMES:
        assert decide((name, "unknown"), upstream_project="f") == Grant(project_id="f", passed=True)


def test_no_key_of_ours_goes_on_under_any_header_or_beside_any_other() -> None:
    """Every pair of headers and keys: what is granted sends on no key of ours."""
    keys = (*OURS, "unknown")
    ones = [((name, key),) for name in NAMES for key in keys]
    pairs = list(itertools.product((one[0] for one in ones), repeat=2))
    for headers in (*ones, *pairs):
        for project in (None, "f"):
            granted = decide(*headers, upstream_project=project)
            if isinstance(granted, int):
                continue
            sent = [(name.encode(), value.encode()) for name, value in headers]
            passed = request_headers(sent, granted, b"upstream")
            assert not {value.decode() for _, value in passed} & OURS.keys(), headers
