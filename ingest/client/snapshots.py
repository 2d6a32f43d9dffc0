"""Whatever a tool takes or returns, as JSON, at this moment: nothing that happens to the object later changes it.

What the encoder knows goes the fast way (a microsecond). Everything else, what is too large, too deep, cyclic, half a
surrogate pair or broken in its own `repr`, goes the slow way: as much of it as fits, the rest said in words. Never raises.
"""

import dataclasses
import itertools
import types
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

# A call's request and response, its metadata, and texts (16,384 characters, 6 bytes each at worst) together stay below the
# limit of an event, `ingest.contract.event.EVENT_BYTES_MAX`.
REQUEST_BYTES_MAX: Final = 256 * 1024
RESPONSE_BYTES_MAX: Final = 448 * 1024
METADATA_BYTES_MAX: Final = 32 * 1024
# Looked at before encoding: so many nodes tell a giant from an ordinary value, and cost 2 us.
_LOOKED_AT_MAX: Final = 64
# Encoding that many items takes about as long as a caller may be held up; what has more is cut.
_ITEMS_MAX: Final = 20_000
# JSON readers give up at about 1000 levels; no tool's answer that a person could read has more than a few.
_DEPTH_MAX: Final = 64
# Fewer brackets than that cannot be nested deeper than they are many.
_BRACKETS_FEW: Final = 2 * _DEPTH_MAX
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_REPR_CHARS_MAX: Final = 2_000
_TEXTS: Final = frozenset({str, bytes, bytearray})
_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})


def snapshot(value: Any, bytes_max: int) -> bytes:
    """Return JSON of a value, never more than `bytes_max` bytes."""
    try:
        if not _is_giant(value, bytes_max):
            raw = _encode(value)
            if len(raw) <= bytes_max and not _is_deep(raw):
                return raw
    except Exception:  # noqa: S110 - whatever an object of the caller's does; the slow way says what can be said
        pass
    try:
        raw = _plain_encode(_Plain(bytes_max).of(value, 0))
        if len(raw) <= bytes_max:
            return raw
        # Escapes made it longer than counted: control characters take six bytes.
        raw = _plain_encode(_Plain(bytes_max // 6).of(value, 0))
        return raw if len(raw) <= bytes_max else b'"<left out>"'
    except Exception:
        return _plain_encode(f"<{type(value).__name__} that cannot be shown>")


def text(value: Any, chars_max: int) -> str:
    """Return a text of at most so many characters that JSON can hold; of something else what it says of itself."""
    try:
        found = value if type(value) is str else str(value)
        found = found[:chars_max]
        if not found.isascii():
            # A lone surrogate is no character; what else there is stays.
            found = found.encode("utf-8", "replace").decode()
    except Exception:
        return f"<{type(value).__name__} that cannot be shown>"[:chars_max]
    return found


def _described(value: Any) -> Any:  # noqa: PLR0911 - one line for each kind
    """Describe an object that the encoder does not know, in terms of what it knows."""
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": text(value, _REPR_CHARS_MAX)}
    if isinstance(value, type):
        return f"<class {value.__qualname__}>"
    # Asked of the class: objects that have an answer to every name (mocks, proxies) would be followed without end.
    kind: Any = type(value)
    for name in ("model_dump", "_asdict"):  # pydantic; named tuples
        method = getattr(kind, name, None)
        if callable(method):
            return method(value)
    if isinstance(value, Mapping):
        return {_key(key): item for key, item in value.items()}
    if isinstance(value, range | deque | types.MappingProxyType):
        return list(value)
    if isinstance(value, complex):
        return str(value)
    # Numpy's numbers, and arrays as lists; a giant says of itself what fits a screen.
    as_list = getattr(kind, "tolist", None)
    if callable(as_list) and isinstance(size := getattr(value, "size", None), int) and size <= _ITEMS_MAX:
        return as_list(value)
    return text(repr(value), _REPR_CHARS_MAX)


_encode = msgspec.json.Encoder(enc_hook=_described).encode
_plain_encode = msgspec.json.Encoder().encode


def _key(key: Any) -> str:
    return text(key, _REPR_CHARS_MAX)


def _is_small(value: dict[Any, Any], bytes_max: int) -> bool:
    """Tell whether an object is as arguments mostly are: a few texts and numbers."""
    if len(value) > _LOOKED_AT_MAX:
        return False
    for child in value.values():
        kind = type(child)
        if kind in _CONTAINERS or (kind in _TEXTS and len(child) > bytes_max):
            return False
    return True


def _is_giant(value: Any, bytes_max: int) -> bool:
    """Tell, from a look at the first few nodes, whether encoding a value would hold the caller up."""
    if type(value) is dict and _is_small(value, bytes_max):
        return False
    waiting = [value]
    for looked_at, node in enumerate(waiting):
        if looked_at >= _LOOKED_AT_MAX:
            break
        kind = type(node)
        if kind in _TEXTS:
            if len(node) > bytes_max:
                return True
        elif kind in _CONTAINERS:
            if len(node) > _ITEMS_MAX:
                return True
            children = node.values() if kind is dict else node
            for child in children if len(node) <= _LOOKED_AT_MAX else itertools.islice(children, _LOOKED_AT_MAX):
                kind = type(child)
                if kind in _CONTAINERS:
                    waiting.append(child)
                elif kind in _TEXTS and len(child) > bytes_max:
                    return True
    return False


def _is_deep(raw: bytes) -> bool:
    """Tell whether JSON is nested too deep; brackets within texts may make a value seem so, which only costs the slow way."""
    if len(raw) <= _BRACKETS_FEW or raw.count(b"{") + raw.count(b"[") <= _BRACKETS_FEW:
        return False
    brackets = raw.translate(None, _NO_BRACKETS)
    for _ in range(_DEPTH_MAX):
        brackets = brackets.replace(b"{}", b"").replace(b"[]", b"")
        if not brackets:
            return False
    return True


class _Plain:
    """Makes plain JSON values of anything, within a budget of bytes."""

    def __init__(self, bytes_max: int) -> None:
        # What it says of what it left out, and quotes and commas, must fit too.
        self._left = max(bytes_max * 3 // 4, 64)
        self._within: set[int] = set()

    def of(self, value: Any, depth: int) -> Any:
        self._left -= 8
        if value is None or value is True or value is False:
            return value
        try:
            return self._of(value, depth)
        except Exception:
            return f"<{type(value).__name__} that cannot be shown>"

    def _of(self, value: Any, depth: int) -> Any:  # noqa: PLR0911 - one line for each kind
        kind = type(value)
        if kind is float:
            return value
        if kind is int:
            return value if value.bit_length() < 256 else f"<integer of {value.bit_length()} bits>"
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(bytes(value[:1])) and memoryview(value).nbytes} bytes>"
        if self._left <= 0:
            return "<left out>"
        if depth >= _DEPTH_MAX:
            return "<nested too deep>"
        if id(value) in self._within:
            return "<contains itself>"
        self._within.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._object(value, depth)
            if isinstance(value, list | tuple | set | frozenset | deque | range):
                return self._array(value, len(value), depth)
            return self._other(value, depth)
        finally:
            self._within.discard(id(value))

    def _other(self, value: Any, depth: int) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            named = {each.name: getattr(value, each.name, None) for each in dataclasses.fields(value)}
            return self.of(named, depth + 1)
        if isinstance(value, msgspec.Struct):
            return self.of({name: getattr(value, name, None) for name in value.__struct_fields__}, depth + 1)
        try:
            # Times, numbers of other kinds, enums: as the encoder writes them.
            raw = _plain_encode(value)
            if len(raw) <= min(_REPR_CHARS_MAX, self._left):
                self._left -= len(raw)
                return msgspec.Raw(raw)
        except Exception:  # noqa: S110 - not of a kind that the encoder knows
            pass
        described = _described(value)
        return self._text(described) if isinstance(described, str) else self.of(described, depth + 1)

    def _text(self, value: str) -> str:
        room = max(self._left, 0)
        cut = text(value, room)
        self._left -= len(cut.encode())
        return cut if len(value) <= room else f"{cut}<{len(value) - len(cut)} more characters>"

    def _object(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        # A copy at once: another thread may be changing it.
        items = list(value.items())
        for place, (key, item) in enumerate(items):
            if self._left <= 0:
                made["<left out>"] = f"{len(items) - place} more members"
                break
            name = _key(key)
            self._left -= len(name.encode())
            made[name] = self.of(item, depth + 1)
        return made

    def _array(self, value: Iterable[Any], size: int, depth: int) -> list[Any]:
        made: list[Any] = []
        for place, item in enumerate(value):
            if self._left <= 0:
                made.append(f"<{size - place} more items>")
                break
            made.append(self.of(item, depth + 1))
        return made
