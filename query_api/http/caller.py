"""Who asks: from credential headers to a tenant, the only thing statements can be made with.

A client may name its scope in `x-project-id` and `x-org-id` (CONTRACT 7.2). It narrows an organisation's key to one project;
what is not its own is not found. A project's key has one scope and is refused with another, for an answer about one project
would be taken for that of the project which was named. Either is alike whether what is named exists.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.contract.access import KEY_PREFIX_ORG, Access, Key
from ingest.contract.errors import QueryError, StoreUnavailable
from ingest.contract.http_errors import ORG_KEY_HEADER, PROJECT_KEY_HEADER, credentials, mask_key, slug_of
from query_api.tenant import Tenant

_USER_KEY_PREFIX = "uak_"
# Header -> whose key it takes, as a refusal names it.
_WHOSE = {PROJECT_KEY_HEADER: "a project's key (ak_...)", ORG_KEY_HEADER: "an organization's key (oak_...)"}
# What a client's `Scope` sends.
_ORG_SCOPE = b"x-org-id"
_PROJECT_SCOPE = b"x-project-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A key that is in force and may read.

    Args:
        projects: of a project key its own, of an organisation's all that belong to it, in order; may be none then.
        may_write: whether it may also send events.
    """

    key_hash: str
    projects: tuple[str, ...]
    may_write: bool = False

    def tenant(self, only: Sequence[str] = ()) -> Tenant | None:
        """Return the tenant of this key, or of some of its projects; None where the organisation has no project.

        Raises:
            QueryError: 404 for a project that is not the caller's, whether it exists or not.
        """
        for project in only:
            if project not in self.projects:
                raise QueryError(404, slug_of(404), "Project not found")
        projects = tuple(sorted(set(only))) or self.projects
        return Tenant(projects=projects, key_hash=self.key_hash) if projects else None


def project_caller(headers: Sequence[tuple[bytes, bytes]], access: Access, *, caught_up: bool) -> Caller:
    """Return the caller of a route that takes a project key.

    Raises:
        QueryError: 401 without exactly one key that is in force, 403 for one that may not read here, or is of another scope.
        StoreUnavailable: keys are not known yet.
    """
    name, key = _identify(headers, access, taken=PROJECT_KEY_HEADER, caught_up=caught_up)
    if name != PROJECT_KEY_HEADER or not key.project_id:
        raise QueryError(403, slug_of(403), f"This route takes a project's key in {PROJECT_KEY_HEADER}")
    projects = _in_scope(headers, (key.project_id,), org_id=key.org_id)
    if projects is None:
        raise QueryError(403, slug_of(403), "This API key belongs to another project or organization than the request names")
    return Caller(key_hash=key.key_hash, projects=projects, may_write=key.scope == "full")


def org_caller(headers: Sequence[tuple[bytes, bytes]], access: Access, *, caught_up: bool) -> Caller:
    """Return the caller of a route that takes an organisation's key. Raises as `project_caller`; 404 for another scope."""
    name, key = _identify(headers, access, taken=ORG_KEY_HEADER, caught_up=caught_up)
    if name != ORG_KEY_HEADER or key.project_id or not key.org_id:
        raise QueryError(403, slug_of(403), f"This route takes an organization's key in {ORG_KEY_HEADER}")
    projects = _in_scope(headers, tuple(sorted(access.projects_of(key.org_id))), org_id=key.org_id)
    if projects is None:
        raise QueryError(404, slug_of(404), "Project or organization not found")
    return Caller(key_hash=key.key_hash, projects=projects)


def _in_scope(headers: Sequence[tuple[bytes, bytes]], projects: tuple[str, ...], *, org_id: str) -> tuple[str, ...] | None:
    """Return the key's projects, or the one that the scope names; None where it names what is not the key's."""
    for name, value in headers:
        named = value.decode("latin-1")
        # A key of no organisation says nothing about one.
        if name == _ORG_SCOPE and named and org_id and named != org_id:
            return None
        if name == _PROJECT_SCOPE and named:
            if named not in projects:
                return None
            projects = (named,)
    return projects


def may_read(tenant: Tenant, access: Access) -> bool:
    """Tell whether a project's key that was in force when a tenant was made of it still is."""
    key = access.in_force(tenant.key_hash)
    return key is not None and key.scope != "ingest" and (key.project_id,) == tenant.projects


def _identify(headers: Sequence[tuple[bytes, bytes]], access: Access, *, taken: str, caught_up: bool) -> tuple[str, Key]:
    """Return the header and the key of a request; refusals name `taken`, the header that the route takes."""
    found = credentials(headers)
    wanted = f"send {_WHOSE[taken]} in {taken}"
    if not found:
        raise _unauthorized(f"No API key: {wanted}")
    if len(found) > 1:
        names = " and ".join(dict.fromkeys(name for name, _ in found))
        raise _unauthorized(f"Exactly one credential is taken, got {len(found)} ({names})")
    name, value = found[0]
    if name not in _WHOSE:
        raise _unauthorized(f"The header {name} is not taken here: {wanted}")
    if name == PROJECT_KEY_HEADER and value.startswith(_USER_KEY_PREFIX):
        raise _unauthorized(f"{mask_key(value)} is a user API key: {wanted}")
    if name == PROJECT_KEY_HEADER and value.startswith(KEY_PREFIX_ORG):
        raise _unauthorized(f"{mask_key(value)} is an organization API key: {wanted}")
    key = access.find(value)
    if key is None:
        if not caught_up:
            # A key may be perfectly good and only not read yet: 401 would make a client give up.
            raise StoreUnavailable("API keys are still being read; try again shortly")
        raise _unauthorized(f"Invalid API key: {mask_key(value)}")
    if key.scope == "ingest":
        raise QueryError(403, slug_of(403), "This API key may only send events, not read")
    return name, key


def _unauthorized(message: str) -> QueryError:
    return QueryError(401, slug_of(401), message)
