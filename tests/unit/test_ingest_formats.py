"""Which bodies are taken, and what the refusal of the others says."""

import gzip

import pytest
import zstandard

from ingest.formats import FormatError, Shape, decompress, encodings_of, shape_of, split


@pytest.mark.parametrize(
    "value", ["", "application/json", "Application/JSON; charset=UTF-8", "text/json", 'application/json;charset="utf-8"']
)
def test_json_content_types_are_understood(value: str) -> None:
    assert shape_of(value) == "json"


@pytest.mark.parametrize("value", ["application/x-ndjson", "application/ndjson; charset=utf-8", "application/jsonl"])
def test_ndjson_content_types_are_understood(value: str) -> None:
    assert shape_of(value) == "ndjson"


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("text/plain", "text/plain"),
        ("application/x-www-form-urlencoded", "send application/json"),
        ("application/json; charset=utf-16", "utf-16"),
        ("multipart/form-data; boundary=x", "multipart/form-data"),
    ],
)
def test_another_content_type_or_charset_is_415_and_named(value: str, names: str) -> None:
    with pytest.raises(FormatError, match=names) as caught:
        shape_of(value)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", ()), ("identity", ()), ("gzip", ("gzip",)), ("x-gzip", ("gzip",)), ("GZip, zstd", ("gzip", "zstd"))],
)
def test_content_encodings_are_read_in_the_order_they_were_applied(value: str, expected: tuple[str, ...]) -> None:
    assert encodings_of(value) == expected


@pytest.mark.parametrize("value", ["br", "deflate", "gzip, br", "gzip, gzip, gzip"])
def test_an_unknown_or_piled_up_content_encoding_is_415(value: str) -> None:
    with pytest.raises(FormatError) as caught:
        encodings_of(value)
    assert caught.value.status == 415


def test_encodings_are_undone_from_the_last_to_the_first() -> None:
    body = zstandard.ZstdCompressor().compress(gzip.compress(b"[{}]"))
    assert decompress(body, ("gzip", "zstd"), bytes_max=100) == b"[{}]"


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_decompression_bomb_stops_at_the_limit_and_the_refusal_names_it(encoding: str) -> None:
    content = bytes(64 << 20)
    bomb = gzip.compress(content, 9) if encoding == "gzip" else zstandard.ZstdCompressor().compress(content)
    with pytest.raises(FormatError, match="1048576") as caught:
        decompress(bomb, [encoding], bytes_max=1 << 20)
    assert caught.value.status == 413


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_flood_of_empty_members_is_refused(encoding: str) -> None:
    member = gzip.compress(b"") if encoding == "gzip" else zstandard.ZstdCompressor().compress(b"")
    with pytest.raises(FormatError, match="members") as caught:
        decompress(member * 20_000, [encoding], bytes_max=1 << 20)
    assert caught.value.status == 413


def test_a_zstd_frame_that_asks_for_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    body = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = body.compress(b"x" * 100) + body.flush()
    with pytest.raises(FormatError, match="memory") as caught:
        decompress(frame, ["zstd"], bytes_max=1 << 20)
    assert caught.value.status == 400


def test_zeros_between_and_after_gzip_members_are_padding() -> None:
    member = gzip.compress(b"{}")
    assert decompress(member + bytes(200_000) + member + bytes(3), ["gzip"], bytes_max=100) == b"{}{}"


@pytest.mark.parametrize(
    ("shape", "body"),
    [(shape, body) for shape in ("json", "ndjson") for body in (b"", b"   ", b"\n\n", b"\xef\xbb\xbf")] + [("json", b" [ ] ")],
)
def test_a_body_without_events_is_400(shape: Shape, body: bytes) -> None:
    with pytest.raises(FormatError, match="no events") as caught:
        split(body, shape, items_max=10)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"[", b"[{}", b"[{},]", b"[{} {}]", b"[{}]x", b'[{"a":NaN}]', b"[{}]\n[{}]", b"[" * 100_000])
def test_an_array_with_broken_syntax_is_400_as_a_whole(body: bytes) -> None:
    with pytest.raises(FormatError, match="array") as caught:
        split(body, "json", items_max=10)
    assert caught.value.status == 400


def test_too_many_items_are_413_and_the_limit_is_named() -> None:
    with pytest.raises(FormatError, match="at most 2") as caught:
        split(b"[{},{},{}]", "json", items_max=2)
    assert caught.value.status == 413


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    assert [bytes(raw) for raw in split(b"\xef\xbb\xbf{}\n{}", "ndjson", items_max=10).raws] == [b"{}", b"{}"]


def test_broken_utf8_anywhere_is_noted_for_the_whole_body() -> None:
    assert split(b'[{"a":"\xff"},{}]', "json", items_max=10).utf8 is False
    assert split('[{"a":"ü"},{}]'.encode(), "json", items_max=10).utf8 is True
