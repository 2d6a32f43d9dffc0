"""How `toolledger send` reads files."""

import gzip
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from deploy.cli.send_input import BATCH_BYTES, BATCH_EVENTS, Batch, Source
from ingest.contract.errors import ConfigurationError
from ingest.contract.event import EVENT_BYTES_MAX

A, B = b'{"tool_slug":"A"}', b'{"tool_slug":"B"}'


def _read(path: Path, content: bytes) -> list[Batch]:
    path.write_bytes(content)
    return list(Source(str(path)).batches())


def _found(batches: list[Batch]) -> list[tuple[str, int, bytes]]:
    return [(place.kind, place.number, raw) for batch in batches for place, raw in zip(batch.places, batch.raws, strict=True)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (A + b"\n" + B + b"\n", [("line", 1, A), ("line", 2, B)]),
        (b"\n\n" + A + b"\r\n\r\n" + B, [("line", 3, A), ("line", 5, B)]),
        (b"\xef\xbb\xbf" + A, [("line", 1, A)]),
        (b"[" + A + b",\n" + B + b"]", [("item", 1, A), ("item", 2, B)]),
        (b" \n[\n]", []),
        (b"", []),
        (b'{"tool_slug":\n"A"}', [("item", 1, b'{"tool_slug":\n"A"}')]),
        # A broken first line does not make a document of lines.
        (b'{"tool_slug":\n' + B, [("line", 1, b'{"tool_slug":'), ("line", 2, B)]),
        (b"nonsense\n" + B, [("line", 1, b"nonsense"), ("line", 2, B)]),
    ],
)
def test_lines_arrays_and_single_objects_are_told_apart(
    tmp_path: Path, content: bytes, expected: list[tuple[str, int, bytes]]
) -> None:
    assert _found(_read(tmp_path / "f", content)) == expected


@pytest.mark.parametrize(
    "compress",
    [
        gzip.compress,
        zstandard.compress,
        lambda content: gzip.compress(content) * 2,
        lambda content: zstandard.compress(content) * 2,
    ],
)
def test_compression_is_told_by_the_first_bytes(tmp_path: Path, compress) -> None:
    found = _found(_read(tmp_path / "f", compress(A + b"\n" + B + b"\n")))
    # A file of several members or frames is their texts, one after the other.
    assert found[:2] == [("line", 1, A), ("line", 2, B)]
    assert len(found) in (2, 4)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_file_that_was_cut_short_is_refused_in_one_line(tmp_path: Path, compress) -> None:
    content = compress(b"\n".join([A] * 1000))
    with pytest.raises(ConfigurationError, match="cannot be read to its end"):
        _read(tmp_path / "f", content[: len(content) // 2])


def test_an_array_whose_own_syntax_is_broken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither NDJSON nor one JSON document"):
        _read(tmp_path / "f", b"[" + A + B + b"]")


def test_a_line_too_large_for_an_event_is_cut_and_the_next_one_keeps_its_number(tmp_path: Path) -> None:
    found = _found(_read(tmp_path / "f", b'{"x":"' + b"y" * (5 * EVENT_BYTES_MAX) + b'"}\n' + B))
    assert [(kind, number) for kind, number, _ in found] == [("line", 1), ("line", 2)]
    assert EVENT_BYTES_MAX < len(found[0][2]) <= 2 * EVENT_BYTES_MAX
    assert found[1][2] == B


def test_batches_are_bounded_in_events_and_bytes(tmp_path: Path) -> None:
    many = _read(tmp_path / "many", b"\n".join([A] * (2 * BATCH_EVENTS + 1)))
    assert [len(batch.raws) for batch in many] == [BATCH_EVENTS, BATCH_EVENTS, 1]
    large = json.dumps({"x": "y" * 900_000}).encode()
    for batch in _read(tmp_path / "large", b"\n".join([large] * 12)):
        assert sum(len(raw) for raw in batch.raws) <= BATCH_BYTES


def test_lines_travel_as_lines_because_one_may_be_broken_and_items_as_an_array(tmp_path: Path) -> None:
    (lines,) = _read(tmp_path / "lines", A + b"\nnonsense")
    assert lines.body() == (A + b"\nnonsense", "application/x-ndjson")
    (items,) = _read(tmp_path / "items", b"[" + A + b"," + B + b"]")
    assert items.body() == (b"[" + A + b"," + B + b"]", "application/json")


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=3), min_size=1, max_size=20))
def test_what_is_written_in_any_form_is_read_back(tmp_path_factory: pytest.TempPathFactory, events: list[dict]) -> None:
    folder = tmp_path_factory.mktemp("forms")
    forms = {
        "lines": "\n".join(json.dumps(event) for event in events),
        "array": json.dumps(events),
        "pretty": json.dumps(events, indent=2),
    }
    for name, text in forms.items():
        found = _found(_read(folder / name, text.encode()))
        assert [json.loads(raw) for _, _, raw in found] == events
