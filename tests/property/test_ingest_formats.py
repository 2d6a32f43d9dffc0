"""Bodies are taken apart without losing or changing a byte of any event."""

import gzip
import json
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ingest.formats import FormatError, decompress, is_utf8, shape_of, split

LIMIT = 1 << 20

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(texts, children, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, values, max_size=4)
documents = st.builds(lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only).encode(), objects, st.booleans())
blanks = st.sampled_from([b"", b" ", b"\r", b"\t \r"])


def raw_bytes(body: bytes, content_type: str = "application/json") -> list[bytes]:
    return [bytes(raw) for raw in split(body, shape_of(content_type), items_max=1000).raws]


@given(st.lists(documents, min_size=1, max_size=20), st.sampled_from([b",", b" , ", b",\n", b"\r\n,\t"]))
def test_an_array_gives_its_members_byte_for_byte(events: list[bytes], comma: bytes) -> None:
    assert raw_bytes(b" [ " + comma.join(events) + b" ] \n") == events


@given(documents)
def test_one_object_is_one_item_however_it_is_printed(event: bytes) -> None:
    assert raw_bytes(event) == [event]
    pretty = json.dumps(json.loads(event), indent=2).encode()
    assert raw_bytes(pretty) == [pretty]
    assert split(pretty, "json", items_max=1).lines is None


@given(st.lists(st.tuples(st.lists(blanks, max_size=2), documents), min_size=1, max_size=20), st.booleans())
def test_ndjson_gives_each_line_and_its_number_with_blank_ones_counted(
    parts: list[tuple[list[bytes], bytes]], last_line_ends: bool
) -> None:
    lines: list[bytes] = []
    expected: list[tuple[int, bytes]] = []
    for blank, event in parts:
        lines += blank
        lines.append(event)
        expected.append((len(lines), event))
    body = b"\n".join(lines) + (b"\n" if last_line_ends else b"")
    items = split(body, "ndjson", items_max=1000)
    assert items.lines is not None
    assert list(zip(items.lines, map(bytes, items.raws), strict=True)) == expected


@given(st.lists(documents, min_size=2, max_size=20))
def test_lines_of_objects_are_recognised_under_a_json_content_type(events: list[bytes]) -> None:
    items = split(b"\n".join(events), "json", items_max=1000)
    assert [bytes(raw) for raw in items.raws] == events
    assert items.lines == list(range(1, len(events) + 1))


@given(st.lists(documents, min_size=1, max_size=10), st.integers(0, 9), st.sampled_from([b"{", b"nonsense", b'{"a":NaN}']))
def test_a_broken_line_is_an_item_among_its_unharmed_neighbours(events: list[bytes], place: int, broken: bytes) -> None:
    lines = [*events[:place], broken, *events[place:]]
    for shape in ("ndjson", "json"):
        assert [bytes(raw) for raw in split(b"\n".join(lines), shape, items_max=100).raws] == lines  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=3000), max_size=5), st.sampled_from(["gzip", "zstd"]), st.integers(0, 9))
def test_decompression_gives_back_what_was_compressed_in_any_number_of_members(
    parts: list[bytes], encoding: str, level: int
) -> None:
    if encoding == "gzip":
        body = b"".join(gzip.compress(part, level) for part in parts)
    else:
        body = b"".join(zstandard.ZstdCompressor(level=level).compress(part) for part in parts)
    assert decompress(body, [encoding], bytes_max=LIMIT) == b"".join(parts)


@given(st.binary(min_size=1, max_size=3000), st.sampled_from(["gzip", "zstd"]), st.data())
def test_a_truncated_body_is_refused_and_never_read_as_a_shorter_one(
    content: bytes, encoding: str, data: st.DataObject
) -> None:
    body = gzip.compress(content) if encoding == "gzip" else zstandard.ZstdCompressor().compress(content)
    cut = data.draw(st.integers(1, len(body) - 1))
    with pytest.raises(FormatError) as caught:
        decompress(body[:cut], [encoding], bytes_max=LIMIT)
    assert caught.value.status == 400


@given(st.binary(max_size=200), st.sampled_from(["json", "ndjson"]), st.sampled_from([[], ["gzip"], ["zstd"]]))
def test_noise_is_refused_with_a_status_or_taken_apart_and_raises_nothing_else(
    noise: bytes, shape: Any, encodings: list[str]
) -> None:
    try:
        taken = bool(split(decompress(noise, encodings, bytes_max=LIMIT), shape, items_max=1000).raws)
    except FormatError as refusal:
        taken = refusal.status in (400, 413)
    assert taken


@given(st.binary(max_size=100))
def test_utf8_is_told_from_what_is_not(content: bytes) -> None:
    try:
        content.decode()
        expected = True
    except UnicodeDecodeError:
        expected = False
    assert is_utf8(content) is expected
