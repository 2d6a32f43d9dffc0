"""How `toolledger send` reads files."""

import gzip
import json
import os
import random
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from deploy.cli import send_text
from deploy.cli.send_input import BATCH_BYTES, BATCH_EVENTS, Batch, Source
from ingest.contract.errors import ConfigurationError
from ingest.contract.event import EVENT_BYTES_MAX

A, B = b'{"tool_slug":"A"}', b'{"tool_slug":"B"}'
BOM = b"\xef\xbb\xbf"


def _read(path: Path, content: bytes) -> list[Batch]:
    path.write_bytes(content)
    return list(Source(str(path)).batches())


def _found(batches: list[Batch]) -> list[tuple[str, int, bytes]]:
    return [(batch.kind, number, raw) for batch in batches for number, raw in zip(batch.numbers, batch.raws, strict=True)]


def _refused(batches: list[Batch]) -> list[tuple[int, str]]:
    return [(one.number, one.code) for batch in batches for one in batch.refused]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (A + b"\n" + B + b"\n", [("line", 1, A), ("line", 2, B)]),
        (b"\n\n" + A + b"\r\n\r\n" + B, [("line", 3, A), ("line", 5, B)]),
        (BOM + A, [("line", 1, A)]),
        (BOM + A + b"\n" + B, [("line", 1, A), ("line", 2, B)]),
        (b"[" + A + b",\n" + B + b"]", [("item", 1, A), ("item", 2, B)]),
        (BOM + b"\r\n [ " + A + b" \t,\r\n" + B + b"\n]\n\n", [("item", 1, A), ("item", 2, B)]),
        (b" \n[\n]", []),
        (b"[]", []),
        (b"", []),
        (b" \n\n\t", []),
        (BOM, []),
        (b'{"tool_slug":\n"A"}', [("item", 1, b'{"tool_slug":\n"A"}')]),
        (BOM + b'{"tool_slug":\r\n"A"}\n', [("item", 1, b'{"tool_slug":\r\n"A"}')]),
        # A broken first line does not make a document of lines.
        (b'{"tool_slug":\n' + B, [("line", 1, b'{"tool_slug":'), ("line", 2, B)]),
        (b"nonsense\n" + B, [("line", 1, b"nonsense"), ("line", 2, B)]),
        (b"{}", [("line", 1, b"{}")]),
        (b'{"a', [("line", 1, b'{"a')]),
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
        lambda content: gzip.compress(content) + b"\0" * 512,
        lambda content: zstandard.compress(content) * 2,
    ],
)
def test_compression_is_told_by_the_first_bytes(tmp_path: Path, compress) -> None:
    found = _found(_read(tmp_path / "f", compress(A + b"\n" + B + b"\n")))
    # A file of several members or frames is their texts, one after the other.
    assert found[:2] == [("line", 1, A), ("line", 2, B)]
    assert len(found) in (2, 4)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_refused_in_one_line(tmp_path: Path, compress, part: float) -> None:
    content = compress(random.Random(1).randbytes(50_000).hex().encode())
    with pytest.raises(ConfigurationError, match="data is cut short: get the whole file"):
        _read(tmp_path / "f", content[: max(8, int(len(content) * part))])


@pytest.mark.parametrize(("compress", "name"), [(gzip.compress, "gzip"), (zstandard.compress, "zstd")])
def test_what_stands_behind_packed_data_and_is_none_is_said(tmp_path: Path, compress, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"behind its {name} data is something that is none .*: cut it off"):
        _read(tmp_path / "f", compress(A + b"\n") + b"and a word of somebody else's")


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_file_that_is_damaged_is_refused_in_one_line(tmp_path: Path, compress) -> None:
    content = bytearray(compress(random.Random(1).randbytes(50_000).hex().encode()))
    content[len(content) // 2 :: 7] = bytes(len(content[len(content) // 2 :: 7]))
    with pytest.raises(ConfigurationError, match="cannot be read to its end"):
        _read(tmp_path / "f", bytes(content))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PK\x03\x04 and so on", "is a zip archive: unzip -p"),
        (b"BZh91AY", "is bzip2: bzip2 -dc"),
        (b"\xfd7zXZ\x00\x00", "is xz: xz -dc"),
        (b"PAR1\x15", "is Parquet: write it as NDJSON first"),
        (A.decode().encode("utf-16"), "is UTF-16: iconv -f UTF-16"),
        (A.decode().encode("utf-16-le"), "is binary: send NDJSON"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "is binary: send NDJSON"),
        (b"{\n}\n{\n}", "neither NDJSON nor one JSON document.*jq -c"),
    ],
)
def test_what_is_no_json_is_refused_with_what_to_do(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        _read(tmp_path / "f", content)


def test_what_cannot_be_opened_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is a directory: name its files, as in .*/\*\.ndjson"):
        Source(str(tmp_path))
    with pytest.raises(ConfigurationError, match="there is no such file"):
        Source(str(tmp_path / "missing"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Source(str(tmp_path / ("x" * 300)))


def test_a_file_of_others_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Root may read everything, so as root the test is somebody else for a moment."""
    (tmp_path / "f").touch(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)
    try:
        with pytest.raises(ConfigurationError, match="permission denied"):
            Source(str(tmp_path / "f"))
    finally:
        os.seteuid(user)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" + A, "does not end"),
        (b"[" + A + b",", "does not end"),
        (b"[", "does not end"),
        (b'["never', "does not end"),
        (b"[" + A + b"] [" + B + b"]", "behind the end of its array"),
        (b"[] x", "behind the end of its array"),
    ],
)
def test_an_array_that_is_cut_or_goes_on_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        _read(tmp_path / "f", content)


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (A + B, "invalid_json"),
        (b'{"a":NaN}', "invalid_json"),
        (b"nonsense", "invalid_json"),
        (b"", "invalid_json"),
        (b'{"a":"\\ud800"}', "invalid_encoding"),
        (b'{"a":"\\\\\\""}}', "invalid_json"),
        (b'{"a":"[,]\\"]"]', "invalid_json"),
        (b"[" * 5_000 + b"]" * 5_000, "invalid_json"),
        (b'{"a":"' + b"y" * (3 * EVENT_BYTES_MAX) + b'"}', "event_too_large"),
        (b'{"a":[' + b'"\\\\",' * (EVENT_BYTES_MAX // 4) + b"1]}", "event_too_large"),
        (b'{"a":"' + b"y" * EVENT_BYTES_MAX + b'"}', "event_too_large"),
    ],
)
def test_a_broken_item_is_refused_and_its_neighbours_go_on(tmp_path: Path, broken: bytes, code: str) -> None:
    batches = _read(tmp_path / "f", b"[" + A + b"," + broken + b"," + B + b"]")
    assert _found(batches) == [("item", 1, A), ("item", 3, B)]
    assert _refused(batches) == [(2, code)]


def test_a_line_too_large_for_an_event_is_refused_and_the_next_one_keeps_its_number(tmp_path: Path) -> None:
    batches = _read(tmp_path / "f", A + b'\n{"x":"' + b"y" * (5 * EVENT_BYTES_MAX) + b'"}\n' + b" " * 5_000_000 + b"\n" + B)
    assert _found(batches) == [("line", 1, A), ("line", 4, B)]
    assert _refused(batches) == [(2, "event_too_large")]


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("before", [b"", b"\n" * 5_000_000], ids=["at once", "behind blank lines"])
def test_what_one_read_gives_may_be_any_amount(tmp_path: Path, compress, before: bytes) -> None:
    """A small file may become megabytes in one step."""
    content = before + b"\n".join([b'{"x":"' + b"y" * 500 + b'"}'] * 20_000)
    batches = _read(tmp_path / "f", compress(content))
    assert sum(len(batch.raws) for batch in batches) == 20_000


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


_VALUES = st.recursive(
    st.text(max_size=5) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.lists(st.dictionaries(st.text(max_size=3), _VALUES, max_size=3), min_size=1, max_size=8)


@given(EVENTS, st.sampled_from([1, 5, 40]))
def test_what_is_written_in_any_form_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict], read_bytes: int
) -> None:
    """Wherever one read ends and the next begins."""
    folder = tmp_path_factory.mktemp("forms")
    forms = {
        "lines": "\n".join(json.dumps(event) for event in events),
        "array": json.dumps(events),
        "pretty": json.dumps(events, indent=2),
        "unescaped": json.dumps(events, ensure_ascii=False),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(send_text, "READ_BYTES", read_bytes)
        for name, text in forms.items():
            found = _found(_read(folder / name, text.encode()))
            assert [json.loads(raw) for _, _, raw in found] == events


@given(st.lists(st.sampled_from([A, B, b"", b" ", b"nonsense", b'{"x":"' + b"y" * 900 + b'"}']), max_size=60), st.booleans())
def test_reading_from_any_mark_on_gives_the_same_batches(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], packed: bool
) -> None:
    """A resumed send makes the very batches that an uninterrupted one makes, in every form and codec."""
    folder = tmp_path_factory.mktemp("marks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.cli.send_input.BATCH_EVENTS", 7)
        patch.setattr("deploy.cli.send_input.BATCH_BYTES", 2_000)
        compress = gzip.compress if packed else bytes
        good = [line for line in lines if line.startswith(b"{")]
        for name, text in (("lines", b"\n".join(lines)), ("array", b"[" + b" ,\n".join(good) + b"]")):
            path = folder / name
            whole = _read(path, compress(text))
            for place, batch in enumerate(whole):
                assert list(Source(str(path)).batches(batch.start)) == whole[place:]
                assert list(Source(str(path)).batches(batch.end)) == whole[place + 1 :]
