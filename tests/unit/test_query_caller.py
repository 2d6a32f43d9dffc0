"""Which credentials let whom in."""

import pytest

from ingest.contract.access import Access, Key, ProjectRules, hash_key, key_record, rules_record
from ingest.contract.errors import QueryError, StoreUnavailable
from query_api.http.caller import org_caller, project_caller
from tests.support.query_service import KEY_A, KEY_B, KEY_INGEST, KEY_ORG, KEY_ORG_EMPTY, KEY_READ, KEY_REVOKED, KEYS


@pytest.fixture
def access():
    found = Access()
    for key, fields in KEYS.items():
        found.apply(*key_record(Key(id="id_" + key, key_hash=hash_key(key), **fields)))
    return found


def headers(**given):
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]


@pytest.mark.parametrize("key", [KEY_A, KEY_READ])
def test_a_project_key_reads_its_project(access, key):
    """Full and read scope, and nothing but the key's own project."""
    caller = project_caller(headers(x_api_key=key), access, caught_up=True)
    assert caller.projects == ("proj_a",)
    assert caller.tenant().projects == ("proj_a",)


def test_an_organisation_reads_its_projects_or_some_of_them(access):
    """A project that is not its own is unknown, whether it exists or not."""
    caller = org_caller(headers(x_org_api_key=KEY_ORG), access, caught_up=True)
    assert caller.tenant().projects == ("proj_a", "proj_b")
    assert caller.tenant(["proj_b"]).projects == ("proj_b",)
    with pytest.raises(QueryError) as caught:
        caller.tenant(["proj_a", "proj_of_others"])
    assert caught.value.status == 404
    assert org_caller(headers(x_org_api_key=KEY_ORG_EMPTY), access, caught_up=True).tenant() is None


def test_a_projects_rules_decide_whose_it_is(access):
    """A key made for it with a wrong organisation, revoked or not, opens it to nobody once its rules name the right one."""
    wrong = Key(id="wrong", key_hash=hash_key("ak_wrong"), project_id="proj_a", org_id="org_2")
    other = Key(id="other", key_hash=hash_key("oak_other"), project_id="", org_id="org_2")
    for key in (wrong, other):
        access.apply(*key_record(key))
    assert access.projects_of("org_1") == {"proj_a", "proj_b"}
    access.apply(*rules_record(ProjectRules(project_id="proj_a", org_id="org_1")))
    assert org_caller(headers(x_org_api_key="oak_other"), access, caught_up=True).tenant() is None
    assert access.projects_of("org_1") == {"proj_a", "proj_b"}
    access.apply(*rules_record(ProjectRules(project_id="proj_a", org_id="org_2")))
    assert access.projects_of("org_1") == {"proj_b"}
    access.apply(*rules_record(ProjectRules(project_id="proj_b", store_payloads=False)))
    assert access.projects_of("org_1") == {"proj_b"}


def test_a_scope_narrows_an_organisation(access):
    """One project of several; what is not the key's own is not found."""
    asked = {"x_org_api_key": KEY_ORG, "x_org_id": "org_1"}
    assert org_caller(headers(**asked), access, caught_up=True).projects == ("proj_a", "proj_b")
    narrowed = org_caller(headers(**asked, x_project_id="proj_b"), access, caught_up=True)
    assert narrowed.projects == ("proj_b",)
    with pytest.raises(QueryError, match="Project not found"):
        narrowed.tenant(["proj_a"])
    for wrong in ({"x_project_id": "proj_of_others"}, {"x_org_id": "org_2"}):
        with pytest.raises(QueryError, match="not found") as caught:
            org_caller(headers(**{**asked, **wrong}), access, caught_up=True)
        assert caught.value.status == 404


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({}, 401),
        ({"x_api_key": ""}, 401),
        ({"x_api_key": "ak_unknown_key_of_nobody"}, 401),
        ({"x_api_key": KEY_REVOKED}, 401),
        ({"x_api_key": "uak_user_key_of_somebody"}, 401),
        ({"x_api_key": KEY_ORG}, 401),
        ({"x_user_api_key": "uak_user_key_of_somebody"}, 401),
        ({"authorization": "Bearer " + KEY_A}, 401),
        ({"x_api_key": KEY_A, "x_org_api_key": KEY_ORG}, 401),
        ({"x_api_key": KEY_A, "authorization": "Bearer " + KEY_A}, 401),
        ({"x_api_key": KEY_INGEST}, 403),
        ({"x_org_api_key": KEY_ORG}, 403),
    ],
)
def test_what_does_not_open_a_project_route(access, given, status):
    """Without exactly one key in force 401, with one that may not read here 403; no message holds a key."""
    with pytest.raises(QueryError) as caught:
        project_caller(headers(**given), access, caught_up=True)
    assert caught.value.status == status
    assert not any(value and value in caught.value.message for value in given.values())


@pytest.mark.parametrize(
    ("given", "status"), [({"x_api_key": KEY_B}, 403), ({}, 401), ({"x_org_api_key": "oak_unknown_key"}, 401)]
)
def test_what_does_not_open_an_organisations_route(access, given, status):
    """A project's key is known but not enough."""
    with pytest.raises(QueryError) as caught:
        org_caller(headers(**given), access, caught_up=True)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"x_project_id": "proj_a"}, None),
        ({"x_project_id": ""}, None),
        ({"x_project_id": "proj_a", "x_org_id": "org_1"}, None),
        ({"x_project_id": "proj_b"}, 403),
        ({"x_project_id": "proj_nowhere"}, 403),
        ({"x_project_id": "PROJ_A"}, 403),
        ({"x_org_id": "org_2"}, 403),
        ({"x_org_id": "org_nowhere"}, 403),
    ],
)
def test_a_scope_beside_a_projects_key_must_be_its_own(access, given, status):
    """Another's is refused, alike whether it exists; the key's own changes nothing; a key of no organisation takes any."""
    if status is None:
        caller = project_caller(headers(x_api_key=KEY_A, **given), access, caught_up=True)
        assert caller == project_caller(headers(x_api_key=KEY_A), access, caught_up=True)
        return
    with pytest.raises(QueryError) as caught:
        project_caller(headers(x_api_key=KEY_A, **given), access, caught_up=True)
    assert caught.value.status == status
    assert not any(value in caught.value.message for value in given.values())
    assert project_caller(headers(x_api_key=KEY_READ, x_org_id="org_1"), access, caught_up=True).projects == ("proj_a",)


def test_a_key_may_be_good_before_the_keys_are_read(access):
    """Until the control topic is read, an unknown key is not refused for ever but asked to come back."""
    with pytest.raises(StoreUnavailable):
        project_caller(headers(x_api_key="ak_unknown_key_of_nobody"), access, caught_up=False)
    assert project_caller(headers(x_api_key=KEY_A), access, caught_up=False).projects == ("proj_a",)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"authorization": "Bearer " + KEY_A},
        {"x_user_api_key": "uak_user_key_of_somebody"},
        {"x_api_key": "uak_user_key_of_somebody"},
        {"x_api_key": KEY_ORG},
    ],
)
def test_a_refusal_names_the_key_that_the_route_takes(access, given):
    """Whoever sends what it says is let in: an organisation's key where only that one opens, else a project's."""
    with pytest.raises(QueryError, match=r"send a project's key \(ak_\.\.\.\) in x-api-key"):
        project_caller(headers(**given), access, caught_up=True)
    with pytest.raises(QueryError, match=r"send an organization's key \(oak_\.\.\.\) in x-org-api-key"):
        org_caller(headers(**given), access, caught_up=True)
