"""Which key goes where. Pure.

| the caller's key is | recorded in | the upstream gets |
|---|---|---|
| one of ours | its project | the key of the setting, or none where none is set; never ours |
| none of ours, and a project is set for such callers | that project | the caller's own, untouched |
| none of ours, and no project is set | | nothing: 401 |
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.contract.access import Access
from ingest.contract.http_errors import PROJECT_KEY_HEADER, credentials, mask_key
from ingest.http.answers import Refused
from ingest.http.upstream import RawHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Leave to use the upstream.

    Args:
        project_id: where executions are recorded.
        key: the upstream's own key to send in the caller's place, None where there is none to send.
        passed: the caller's own credentials go on instead.
    """

    project_id: str
    key: str | None = None
    passed: bool = False


def grant(
    access: Access, headers: Sequence[RawHeader], *, caught_up: bool, upstream_key: str | None, upstream_project: str | None
) -> Grant:
    """Decide by the credentials of a request.

    Args:
        access: the keys of ours.
        headers: of the request, lower-case names.
        caught_up: whether all keys have been read; before that an unknown key may be one of ours.
        upstream_key: the setting.
        upstream_project: the setting.

    Raises:
        Refused: 401, 403, or 503 while the keys are not read yet.
    """
    found = credentials(headers)
    if not found:
        raise Refused(401, f"no API key; send it in the header {PROJECT_KEY_HEADER}")
    ours = [(name, value) for name, value in found if access.knows(value)]
    if not ours:
        if not caught_up:
            raise Refused(503, "the API keys have not been read yet", slug="Ingest_Starting", retry_after_s=1)
        if upstream_project is None:
            raise Refused(401, f"Invalid API key: {mask_key(found[0][1])}")
        return Grant(project_id=upstream_project, passed=True)
    if len(found) > 1:
        names = ", ".join(sorted({name for name, _ in found}))
        raise Refused(401, f"more than one credential ({names}); send one {PROJECT_KEY_HEADER}")
    name, value = found[0]
    key = access.find(value)
    if key is None:
        raise Refused(401, f"Invalid API key: {mask_key(value)}")
    if name != PROJECT_KEY_HEADER or not key.project_id:
        raise Refused(401, f"the upstream is reached with the key of a project in the header {PROJECT_KEY_HEADER}")
    if key.scope != "full":
        # A key that may only read logs, or only send events, must not run tools with the upstream's key.
        raise Refused(403, f"this key's scope is {key.scope}; the upstream is reached with a key of the scope full")
    return Grant(project_id=key.project_id, key=upstream_key)
