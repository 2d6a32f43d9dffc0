"""API keys, project rules and purges as state: fold the control topic's records into it, ask it who a key is.

Pure. `ingest.contract.control` follows the topic; `ingest.keys` writes it. Only a hash of a key is ever stored.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from ingest.contract.event import PROJECT_PATTERN

Scope = Literal["full", "read", "ingest"]

KEY_PREFIX_PROJECT: Final = "ak_"
KEY_PREFIX_ORG: Final = "oak_"
_PROJECT: Final = re.compile(PROJECT_PATTERN)


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """One API key. `project_id` is "" for a key of a whole organisation."""

    id: str
    key_hash: str
    project_id: str
    org_id: str = ""
    name: str = ""
    scope: Scope = "full"
    created_at_ms: int = 0
    revoked_at_ms: int | None = None


class ProjectRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a project asked for; retention None means the product's default."""

    project_id: str
    org_id: str = ""
    store_payloads: bool = True
    retention_days: int | None = None
    payload_retention_days: int | None = None


class Purge(msgspec.Struct, frozen=True, kw_only=True):
    """Of a project, all calls before `until_ms` are taken away; of those that Kafka accepts since `effective_ms` none is taken.

    The second is a moment after the purge was announced, by which every worker has heard of it: so an event has the same fate
    whenever its record is read again.
    """

    until_ms: int
    effective_ms: int


class Purges(msgspec.Struct, frozen=True, kw_only=True):
    """The purges of a project's logs, oldest first."""

    project_id: str
    logs: tuple[Purge, ...] = ()


def kept_since(purges: Sequence[Purge], accepted_ms: int) -> int:
    """Return before which timestamp (epoch ms) an event accepted at that time is not taken any more; 0: none is too old."""
    return max((one.until_ms for one in purges if one.effective_ms <= accepted_ms), default=0)


def hash_key(key: str) -> str:
    """Return the hash a key is stored and looked up by: SHA-256, hex. Keys are 192 random bits, so no salt is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(*, org: bool = False) -> str:
    """Return a fresh key."""
    return (KEY_PREFIX_ORG if org else KEY_PREFIX_PROJECT) + secrets.token_urlsafe(24)


def is_project(project_id: str) -> bool:
    """Tell whether a project id may be used."""
    # fullmatch: `$` alone lets a line break through.
    return _PROJECT.fullmatch(project_id) is not None


def key_record(key: Key) -> tuple[bytes, bytes]:
    """Return the control record (key, value) of an API key."""
    return f"key/{key.id}".encode(), msgspec.json.encode(key)


def rules_record(rules: ProjectRules) -> tuple[bytes, bytes]:
    """Return the control record (key, value) of a project's rules."""
    return f"project/{rules.project_id}".encode(), msgspec.json.encode(rules)


def purges_record(purges: Purges) -> tuple[bytes, bytes]:
    """Return the control record (key, value) of a project's purges."""
    return f"purges/{purges.project_id}".encode(), msgspec.json.encode(purges)


class Access:
    """The control topic folded into memory. One writer (the follower), readers on the same loop."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.rules: dict[str, ProjectRules] = {}
        # Never changed in place: it is read by other threads.
        self.purges: dict[str, tuple[Purge, ...]] = {}
        self._by_hash: dict[str, Key] = {}

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take in one control record; a null value forgets what its key named. Unknown kinds are left to newer versions."""
        kind, _, name = (key or b"").decode(errors="replace").partition("/")
        if kind == "key":
            former = self.keys.pop(name, None)
            if former is not None:
                self._by_hash.pop(former.key_hash, None)
            if value is not None:
                api_key = msgspec.json.decode(value, type=Key)
                self.keys[name] = api_key
                self._by_hash[api_key.key_hash] = api_key
        elif kind == "project":
            self.rules.pop(name, None)
            if value is not None:
                self.rules[name] = msgspec.json.decode(value, type=ProjectRules)
        elif kind == "purges" and value is not None:
            self.purges = {**self.purges, name: msgspec.json.decode(value, type=Purges).logs}

    def find(self, key: str) -> Key | None:
        """Return the key that is in force, or None for an unknown or a revoked one.

        Looked up by hash: how long it takes says nothing about how much of a guess was right.
        """
        return self.in_force(hash_key(key))

    def in_force(self, key_hash: str) -> Key | None:
        """Return the key of a hash if it is in force, as `find`."""
        found = self._by_hash.get(key_hash)
        return found if found is not None and found.revoked_at_ms is None else None

    def knows(self, key: str) -> bool:
        """Tell whether a key is one of ours, in force or revoked."""
        return hash_key(key) in self._by_hash

    def projects_of(self, org_id: str) -> frozenset[str]:
        """Return the projects that belong to an organisation: by their rules, and by their keys where the rules name none."""
        ruled = {rules.project_id: rules.org_id for rules in self.rules.values() if rules.org_id}
        # A revoked key counts too: a project stays its organisation's while it has no key in force.
        keyed = {key.project_id for key in self.keys.values() if key.org_id == org_id and key.project_id} - ruled.keys()
        return frozenset(keyed | {project for project, of in ruled.items() if of == org_id}) if org_id else frozenset()

    def organisations_of(self, project_id: str) -> frozenset[str]:
        """Return the organisations that read a project: the one of its rules, else those of its keys; normally one at most."""
        if ruled := self.rules_of(project_id).org_id:
            return frozenset((ruled,))
        return frozenset(key.org_id for key in self.keys.values() if key.project_id == project_id and key.org_id)

    def rules_of(self, project_id: str) -> ProjectRules:
        """Return a project's rules, the defaults where it set none."""
        return self.rules.get(project_id) or ProjectRules(project_id=project_id)
