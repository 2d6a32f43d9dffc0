"""Read members of JSON bodies and query strings; each fault is kept with its place, so that one answer names them all. Pure."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from ingest.contract.errors import InvalidEvent, QueryError
from ingest.contract.event import timestamp_ms

# Instants beyond these mean the same as these: before all events, after all events. Both fit every column they meet.
AT_MS_MIN: Final = 0
AT_MS_MAX: Final = 9_000_000_000_000
# Faults beyond this say nothing that the first ones did not.
_FAULTS_MAX: Final = 20
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BOM: Final = b"\xef\xbb\xbf"
# A plus sign in a query string arrives as a space; in a time it can only have been the sign of the zone.
_LOST_PLUS: Final = re.compile(r"(T[\d:.]+) (\d\d:?\d\d)$")


class Faults:
    """What is wrong with one request."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._lines: list[str] = []

    @property
    def any(self) -> bool:
        """Tell whether there is a fault so far."""
        return bool(self._lines)

    def add(self, path: str, reason: str) -> None:
        """Note a fault of the member at `path`."""
        self._lines.append(f"Error in {self._where}{f'.{path}' if path else ''}: {reason}")

    def check(self) -> None:
        """Refuse the request if there is a fault.

        Raises:
            QueryError: 400; its message holds the first fault, its `errors` all.
        """
        if self._lines:
            raise QueryError(
                400,
                "HTTP_BadRequest",
                f"Validation error while processing request. {self._lines[0]}",
                suggested_fix=f"Please check the {self._where}.",
                errors=tuple(self._lines[:_FAULTS_MAX]),
            )


def json_object(body: bytes, faults: Faults) -> dict[str, Any]:
    """Return a body's members; no body is an empty object.

    Raises:
        QueryError: 400 for what is not a JSON object.
    """
    body = body.removeprefix(_BOM)
    if not body.strip():
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        faults.add("", f"not valid JSON: {error}")
        value = {}
    if not isinstance(value, dict):
        faults.add("", f"must be a JSON object, not {kind(value)}")
    faults.check()
    return dict(value)


def kind(value: Any) -> str:
    """Return the JSON name of a value's type."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def whole(value: Any, path: str, faults: Faults, *, low: int, high: int, default: int) -> int:
    """Return a whole number in any spelling (`100.0`); null and absent are the default."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        faults.add(path, f"must be a number, not {kind(value)}")
    elif not float(value).is_integer() or not low <= value <= high:
        faults.add(path, f"must be a whole number from {low} to {high}, got {value}")
    else:
        return int(value)
    return default


def instant(value: Any, path: str, faults: Faults) -> int | None:
    """Return epoch ms of a number, fractions cut, kept within the time of events; null and absent are None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        faults.add(path, f"must be a number of epoch milliseconds, not {kind(value)}")
        return None
    return int(min(max(value, AT_MS_MIN), AT_MS_MAX))


def one_of(value: Any, path: str, faults: Faults, allowed: Sequence[str], *, default: str) -> str:
    """Return one of the allowed words; null and absent are the default."""
    if value is None:
        return default
    if not isinstance(value, str) or value not in allowed:
        faults.add(path, f"must be one of {', '.join(allowed)}")
        return default
    return value


def objects(value: Any, path: str, faults: Faults) -> dict[str, Any]:
    """Return the members of an object; null and absent are an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        faults.add(path, f"must be an object, not {kind(value)}")
        return {}
    return value


def texts(value: Any, path: str, faults: Faults, *, most: int) -> tuple[str, ...]:
    """Return the strings of an array, or a single string, without repeats; null, absent and empty are none."""
    if value is None:
        return ()
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list):
        faults.add(path, f"must be an array of strings or a string, not {kind(value)}")
        return ()
    if len(given) > most:
        faults.add(path, f"holds {len(given)} values; at most {most} are taken")
        return ()
    wrong = [index for index, one in enumerate(given) if not isinstance(one, str)]
    for index in wrong:
        faults.add(f"{path}.{index}", f"must be a string, not {kind(given[index])}")
    return () if wrong else tuple(dict.fromkeys(given))


class Parameters:
    """The parameters of a query string, each allowed one known by name."""

    def __init__(self, items: Sequence[tuple[str, str]], *, known: Sequence[str], repeated: Sequence[str]) -> None:
        self.faults = Faults("query")
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            self._values.setdefault(name, []).append(value)
        for name, values in self._values.items():
            if name not in known and name not in repeated:
                every = ", ".join((*known, *repeated))
                self.faults.add(name, f"unknown parameter; {f'known are {every}' if every else 'none is taken here'}")
            elif len(values) > 1 and name not in repeated:
                self.faults.add(name, "given more than once")

    def all(self, name: str, *, most: int) -> tuple[str, ...]:
        """Return every value of a repeated parameter, without repeats."""
        return texts(self._values.get(name, []), name, self.faults, most=most)

    def text(self, name: str) -> str | None:
        """Return a single value; absent and empty are None."""
        return (self._values.get(name) or [""])[0].strip() or None

    def whole(self, name: str, *, low: int, high: int, default: int) -> int:
        """Return a whole number in any spelling."""
        text = self.text(name)
        if text is None:
            return default
        if not _NUMBER.fullmatch(text):
            self.faults.add(name, f"must be a whole number from {low} to {high}")
            return default
        value = float(text)
        return whole(int(value) if value.is_integer() else value, name, self.faults, low=low, high=high, default=default)

    def one_of(self, name: str, allowed: Sequence[str], *, default: str) -> str:
        """Return one of the allowed words."""
        return one_of(self.text(name), name, self.faults, allowed, default=default)

    def instant(self, name: str) -> int | None:
        """Return epoch ms of a number or of ISO 8601 (UTC without a zone)."""
        text = self.text(name)
        if text is None:
            return None
        if _NUMBER.fullmatch(text):
            value = float(text)
            if math.isinf(value):
                return AT_MS_MIN if value < 0 else AT_MS_MAX
            # Whole numbers by themselves: a float has no room for the last digit of large ones.
            exact = text.lstrip("+-").isdigit() and abs(value) <= AT_MS_MAX
            return instant(int(text.lstrip("+-0") or "0") * (-1 if value < 0 else 1) if exact else value, name, self.faults)
        try:
            return instant(timestamp_ms(_LOST_PLUS.sub(r"\1+\2", text)), name, self.faults)
        except (InvalidEvent, OverflowError):
            self.faults.add(name, "must be epoch milliseconds or ISO 8601, as in 2026-04-17T10:25:00Z")
            return None


def members(value: Mapping[str, Any], *names: str) -> list[Any]:
    """Return the values of some members, None where absent."""
    return [value.get(name) for name in names]
