"""Whatever a tool takes or returns becomes JSON that ingest accepts, within its limit, and the object is left alone."""

import dataclasses
import datetime
import decimal
import enum
import itertools
import json
import uuid
from collections import OrderedDict, deque, namedtuple
from types import MappingProxyType
from typing import Any
from unittest.mock import MagicMock

import msgspec
import numpy
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from ingest.client.events import compose, labels_json, source_json, tool_json
from ingest.client.failures import error_json
from ingest.client.snapshots import REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, snapshot, text
from ingest.contract.event import EVENT_BYTES_MAX, decode_event

# Half surrogate pairs and control characters included.
texts = st.text(st.characters(exclude_categories=()))
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
odd = st.recursive(
    st.none()
    | st.floats()
    | texts
    | st.binary()
    | st.datetimes()
    | st.uuids()
    | st.decimals()
    | st.complex_numbers()
    | st.builds(object)
    | st.integers(min_value=-(10**400), max_value=10**400),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(texts | st.integers() | st.tuples(st.integers()) | st.binary(), inner, max_size=5)
        | st.frozensets(st.integers() | texts, max_size=4)
        | st.lists(inner, max_size=4).map(deque)
    ),
    max_leaves=20,
)


def event_of(request: bytes | None, response: bytes | None = None, **more: Any) -> bytes:
    return compose(
        log_id="log_1", started_ms=1_776_421_500_000, duration_ms=1.5, members=tool_json("A_TOOL"), request=request,
        response=response, **more,
    )  # fmt: skip


@given(plain)
def test_what_is_json_already_is_kept_as_it_is(value: Any) -> None:
    """Nothing is lost or changed on the fast way."""
    assert json.loads(snapshot(value, REQUEST_BYTES_MAX)) == value


@given(odd, st.integers(min_value=200, max_value=5_000))
@example(decimal.Decimal("1" * 199), 200)
def test_anything_becomes_json_within_its_limit(value: Any, bytes_max: int) -> None:
    """UTF-8, never longer than asked for, and an event that ingest takes."""
    raw = snapshot(value, bytes_max)
    assert len(raw) <= bytes_max
    json.loads(raw.decode())
    assert memoryview(decode_event(event_of(raw)).data).nbytes > 0


@given(texts, texts, st.dictionaries(texts, odd, max_size=3))
def test_any_label_and_any_error_makes_an_event_that_ingest_takes(label: str, said: str, metadata: dict[str, Any]) -> None:
    """Whatever users and tools are called, and whatever a failure says of itself."""
    labels = {"user_id": label, "session_id": said, "trace_id": label, "metadata": metadata}
    members = tool_json(label) + labels_json(labels) + source_json(framework=said)
    raw = compose(
        log_id="log_1", started_ms=0, duration_ms=-5, members=members, failure=error_json(RuntimeError(said)), message=label
    )
    event = decode_event(raw)
    assert event.status == "failed"
    assert event.duration_ms == 0


def test_the_largest_event_that_can_be_made_is_one_that_ingest_takes() -> None:
    """The limits of the parts add up to less than that of the whole, at the worst that escaping does to texts."""
    worst = "\x00" * 2_000_000
    labels = {name: worst for name in ("user_id", "session_id", "toolkit_slug", "connected_account_id", "auth_config_id")}
    labels |= {"sandbox_id": worst, "trace_id": worst, "request_id": worst, "metadata": {"a": worst}}
    raw = compose(
        log_id="log_1",
        started_ms=1_776_421_500_000,
        duration_ms=1e300,
        members=tool_json(worst) + labels_json(labels) + source_json(framework=worst),
        failure=error_json(type("E" * 999, (Exception,), {"code": worst})(worst)),
        message=worst,
        request=snapshot(worst, REQUEST_BYTES_MAX),
        response=snapshot([worst] * 3, RESPONSE_BYTES_MAX),
    )
    assert len(raw) <= EVENT_BYTES_MAX
    decode_event(raw)


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("leave me alone")

    def __repr__(self) -> str:
        raise RuntimeError("leave me alone")


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    when: datetime.date
    inner: dict[str, Any]


@dataclasses.dataclass
class Data:
    a: int
    b: Any


class Struct(msgspec.Struct):
    a: int


Named = namedtuple("Named", ["a", "b"])
DAY = datetime.date(2026, 4, 17)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime.datetime(2026, 4, 17, 10, 25, tzinfo=datetime.UTC), "2026-04-17T10:25:00Z"),
        (float("nan"), None),
        ({"a": float("inf")}, {"a": None}),
        (b"\x00\xff", "AP8="),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.50"), "1.50"),
        (Colour.RED, "red"),
        (Model(when=DAY, inner={"a": 1}), {"when": "2026-04-17", "inner": {"a": 1}}),
        (Data(1, [DAY]), {"a": 1, "b": ["2026-04-17"]}),
        (Struct(1), {"a": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (range(3), [0, 1, 2]),
        (numpy.arange(3), [0, 1, 2]),
        (numpy.float64(1.5), 1.5),
        ({(1, 2): "tuple", None: "none"}, {"(1, 2)": "tuple", "None": "none"}),
        (2**70, 2**70),
        (10**5000, "<integer of 16610 bits>"),
        ("a\ud800b", "a?b"),
        ({"a\ud800": 1}, {"a?": 1}),
        (ValueError("no"), {"type": "ValueError", "message": "no"}),
        (Hostile(), "<Hostile that cannot be shown>"),
        ([1, Hostile()], [1, "<Hostile that cannot be shown>"]),
    ],
    ids=itertools.count(),
)
def test_what_json_does_not_know_is_shown_as_people_expect(value: Any, shown: Any) -> None:
    """Times as ISO 8601, models as objects, numbers of other kinds as numbers, what is broken by its type."""
    assert json.loads(snapshot(value, REQUEST_BYTES_MAX)) == shown


def test_a_named_tuple_and_a_mock_and_a_lambda_are_shown_somehow() -> None:
    """Of what has no better form there is a text."""
    assert json.loads(snapshot(Named(1, 2), 1000)) in ([1, 2], {"a": 1, "b": 2})
    for value in (MagicMock(), lambda: None, object(), Data, json):
        assert snapshot(value, REQUEST_BYTES_MAX).startswith((b'"', b"{"))


def test_what_contains_itself_or_goes_too_deep_ends_somewhere() -> None:
    """Cycles are named, levels beyond what readers take are cut; what stands before them is kept."""
    cyclic: dict[str, Any] = {"a": 1}
    cyclic["self"] = [cyclic]
    assert json.loads(snapshot(cyclic, 10_000)) == {"a": 1, "self": ["<contains itself>"]}
    deep: Any = "bottom"
    for _ in range(5_000):
        deep = [deep]
    shown = snapshot(deep, REQUEST_BYTES_MAX)
    assert b"<nested too deep>" in shown
    decode_event(event_of(shown))
    barely: Any = "bottom"
    for _ in range(300):
        barely = {"a": barely}
    decode_event(event_of(snapshot(barely, REQUEST_BYTES_MAX)))


def test_a_giant_is_cut_and_says_how_much_is_missing() -> None:
    """Long texts, many items, many members, and many large ones."""
    assert json.loads(snapshot("x" * 1_000_000, 10_000)).endswith(" more characters>")
    assert json.loads(snapshot(list(range(100_000)), 10_000))[-1].endswith(" more items>")
    assert "<left out>" in json.loads(snapshot({f"key{n}": n for n in range(50_000)}, 10_000))
    assert len(snapshot([{"body": "x" * 5_000}] * 500, 100_000)) <= 100_000
    # Brackets within texts are no levels.
    tricky = {"a": ["[{" * 400] * 3}
    assert json.loads(snapshot(tricky, REQUEST_BYTES_MAX)) == tricky


def test_a_snapshot_is_of_its_moment() -> None:
    """What is changed later was recorded before."""
    value: dict[str, Any] = {"list": [1]}
    raw = snapshot(value, 1000)
    value["list"].append(2)
    assert json.loads(raw) == {"list": [1]}


@given(st.lists(texts, max_size=5).map("".join), st.integers(0, 50))
def test_a_text_is_cut_and_can_be_encoded(value: str, chars_max: int) -> None:
    """Whatever stands in it."""
    made = text(value, chars_max)
    assert len(made) <= chars_max
    made.encode()
