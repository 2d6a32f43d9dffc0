"""How the embedded ClickHouse takes a request's text apart: pure, without a server."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from deploy.embedded.clickhouse.compression import choose_encoding, decode, encoder
from deploy.embedded.clickhouse.errors import ClickHouseError, parse_engine_error
from deploy.embedded.clickhouse.external import parse_form
from deploy.embedded.clickhouse.insert import Kind
from deploy.embedded.clickhouse.loading import statement_bytes
from deploy.embedded.clickhouse.native_frames import NativeFrameEncoder, read_frames
from deploy.embedded.clickhouse.settings import assigned_by_set
from deploy.embedded.clickhouse.sql_tokens import quote_identifier, quote_string, string_value, tokens
from deploy.embedded.clickhouse.statement import parse_statement
from tests.contract.clickhouse_http import form

FORMATS = st.sampled_from(["TSV", "CSV", "Native", "JSONEachRow", "RowBinary"])
TABLES = st.sampled_from(
    ["t", "db.t", "`odd name`", '"FORMAT"', "t (a, `VALUES`)", "FUNCTION null('a Int8')", "values", "format.values"]
)


@given(data=st.binary(max_size=300), table=TABLES, name=FORMATS)
def test_rows_of_an_insert_are_never_read_as_sql(data: bytes, table: str, name: str) -> None:
    """Whatever bytes the rows are, they begin right behind the statement and none is lost."""
    head = f"INSERT INTO {table} FORMAT {name}\n".encode()
    statement = parse_statement(head + data, complete=True)
    assert statement.kind is Kind.INSERT_DATA
    assert (head + data)[statement.data_at :] == data
    assert statement.input_format == name
    assert statement.text == head[: head.index(b"FORMAT " + name.encode())]


@given(data=st.binary(min_size=1, max_size=300), table=TABLES, name=FORMATS, cut=st.integers(min_value=0, max_value=400))
def test_the_statement_is_cut_off_only_where_it_surely_ends(data: bytes, table: str, name: str, cut: int) -> None:
    """However the body arrives, its first piece gives the whole statement or nothing."""
    head = f"INSERT INTO {table} FORMAT {name}\n".encode()
    assert statement_bytes((head + data)[:cut]) in (0, len(head))


@given(texts=st.lists(st.text(max_size=20), min_size=1, max_size=5))
def test_strings_and_names_are_one_token_each(texts: list[str]) -> None:
    """No text can break out of its quotes, and quoting is undone without loss where there are no backslashes."""
    for quote, kind in ((quote_string, "string"), (quote_identifier, "quoted")):
        found = list(tokens(", ".join(map(quote, texts)).encode("utf-8", "surrogatepass")))
        assert [token.kind for token in found] == [kind, *["other", kind] * (len(texts) - 1)]
        for token, text in zip(found[::2], texts, strict=True):
            if "\\" not in text:
                assert string_value(token.text).decode("utf-8", "surrogatepass") == text


@given(sql=st.binary(max_size=400))
def test_the_lexer_takes_any_bytes(sql: bytes) -> None:
    """Tokens are in order, do not overlap, and say what stands at their place."""
    end = 0
    for token in tokens(sql):
        assert end <= token.start < token.end
        assert sql[token.start : token.end] == token.text
        end = token.end


@pytest.mark.parametrize(
    ("sql", "kind", "output_format"),
    [
        (b"SELECT 1", Kind.SELECT, None),
        (b"(SELECT 1) UNION ALL SELECT 2 FORMAT JSON;", Kind.SELECT, "JSON"),
        (b"FROM t SELECT a", Kind.SELECT, None),
        (b"WITH insert AS (SELECT 1) SELECT * FROM insert", Kind.SELECT, None),
        (b"WITH 13 AS insert SELECT insert", Kind.SELECT, None),
        (b"SELECT format FROM t FORMAT CSV SETTINGS max_threads = 1", Kind.SELECT, "CSV"),
        (b"SELECT 'FORMAT JSON'", Kind.SELECT, None),
        (b"SELECT * FROM (SELECT 1 FORMAT x) AS y", Kind.SELECT, None),
        (b"SHOW TABLES FORMAT TSV", Kind.SMALL_RESULT, "TSV"),
        (b"KILL QUERY WHERE query_id = 'x' SYNC", Kind.KILL, None),
        (b"KILL MUTATION WHERE 1", Kind.SMALL_RESULT, None),
        (b"INSERT INTO t SELECT 1", Kind.NO_RESULT, None),
        (b"INSERT INTO t (SELECT 1)", Kind.NO_RESULT, None),
        (b"WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", Kind.NO_RESULT, None),
        (b"INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x", Kind.NO_RESULT, None),
        (b"WITH 1 AS y INSERT INTO t FORMAT TSV\n1;", Kind.INSERT_DATA, None),
        (b"CREATE TABLE t (a Int8) ENGINE = Memory", Kind.NO_RESULT, None),
        (b"/* SELECT */ DROP TABLE t", Kind.NO_RESULT, None),
    ],
)
def test_kinds_of_statements(sql: bytes, kind: Kind, output_format: str | None) -> None:
    """The kind decides how a statement runs."""
    statement = parse_statement(sql, complete=True)
    assert (statement.kind, statement.output_format) == (kind, output_format)


@pytest.mark.parametrize(
    "sql",
    [
        b"",
        b" ; ; ",
        b"-- only a comment",
        b"SELECT 1; DROP TABLE t",
        b"SELECT 1 INTO OUTFILE '/tmp/x'",
        b"SELECT 1 into /* */ outfile '/tmp/x' FORMAT JSON",
        b"INSERT INTO t FROM INFILE '/etc/passwd' FORMAT TSV",
        b"INSERT INTO t (a) FROM /**/ INFILE '/etc/passwd' FORMAT TSV",
    ],
)
def test_what_a_server_does_not_run_is_refused(sql: bytes) -> None:
    """Nothing, several statements, and files of the server are errors."""
    with pytest.raises(ClickHouseError):
        parse_statement(sql, complete=True)


def test_a_statement_longer_than_clickhouse_reads_is_refused() -> None:
    """A SELECT may not be longer than `max_query_size`; rows may."""
    with pytest.raises(ClickHouseError, match="Max query size"):
        parse_statement(b"SELECT '" + b"x" * 600_000, complete=False)
    assert parse_statement(b"INSERT INTO t FORMAT TSV\n" + b"x" * 600_000, complete=False).data_at == 25


_FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}


def decoded(content: bytes, encoding: str) -> bytes:
    return b"".join(decode(lambda size, offset: content[offset : offset + size], len(content), encoding))


@given(frames=st.lists(st.binary(max_size=2000), min_size=1, max_size=5), encoding=st.sampled_from(sorted(_FRAMES)))
def test_all_frames_are_decoded(frames: list[bytes], encoding: str) -> None:
    """A body of several frames is their contents in a row."""
    assert decoded(b"".join(map(_FRAMES[encoding], frames)), encoding) == b"".join(frames)


@given(
    content=st.binary(min_size=1, max_size=2000),
    cut=st.integers(min_value=1, max_value=10_000),
    encoding=st.sampled_from(sorted(_FRAMES)),
)
def test_a_cut_off_frame_is_an_error(content: bytes, cut: int, encoding: str) -> None:
    """Missing bytes never pass for the end."""
    packed = _FRAMES[encoding](content)
    cut_off = packed[: -(1 + cut % (len(packed) - 1))]
    with pytest.raises(ClickHouseError):
        decoded(cut_off, encoding)


@given(pieces=st.lists(st.binary(max_size=500), max_size=5), encoding=st.sampled_from(["gzip", "deflate", "zstd", "lz4"]))
def test_results_decode_to_what_was_encoded(pieces: list[bytes], encoding: str) -> None:
    """Encoding piece by piece loses nothing."""
    coder = encoder(encoding, 3)
    packed = b"".join(coder.encode(piece) for piece in pieces) + coder.flush()
    assert decoded(packed, encoding) == b"".join(pieces)


@given(pieces=st.lists(st.binary(max_size=500), max_size=5))
def test_native_blocks_decode_to_what_was_encoded(pieces: list[bytes]) -> None:
    """ClickHouse's own compressed blocks, written and read, lose nothing."""
    coder = NativeFrameEncoder()
    packed = b"".join(coder.encode(piece) for piece in pieces) + coder.flush()
    assert b"".join(read_frames(lambda size, at: packed[at : at + size], len(packed), verify=True)) == b"".join(pieces)


@given(
    content=st.binary(min_size=1, max_size=300), place=st.integers(min_value=0), change=st.integers(min_value=1, max_value=255)
)
def test_a_changed_byte_of_a_native_block_is_found(content: bytes, place: int, change: int) -> None:
    """Checksums find what went wrong on the way, wherever it is."""
    coder = NativeFrameEncoder()
    packed = bytearray(coder.encode(content) + coder.flush())
    packed[place % len(packed)] ^= change
    with pytest.raises(ClickHouseError):
        list(read_frames(lambda size, at: bytes(packed[at : at + size]), len(packed), verify=True))


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [("gzip", "gzip"), ("gzip, deflate, br, zstd", "zstd"), ("lz4;q=0.5", "lz4"), ("identity", None), ("", None), ("br", None)],
)
def test_the_encoding_of_a_result(accepted: str, chosen: str | None) -> None:
    """The best encoding that both sides know."""
    assert choose_encoding(accepted) == chosen


@given(
    fields=st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(st.characters(codec="utf-8"), max_size=30), max_size=3
    ),
    files=st.dictionaries(st.from_regex(r"f[0-9]", fullmatch=True), st.binary(max_size=60), max_size=3),
)
def test_multipart_bodies_come_apart_as_they_were_put_together(fields: dict[str, str], files: dict[str, bytes]) -> None:
    """Fields and files are whole, line breaks and dashes in them included."""
    parsed = parse_form(
        form("a-boundary-nobody-writes", fields, files), "multipart/form-data; boundary=a-boundary-nobody-writes"
    )
    assert dict(parsed.fields) == fields
    assert parsed.files == files


@pytest.mark.parametrize(
    ("text", "code", "name", "message"),
    [
        ("Code: 60. DB::Exception: Unknown table 't'. (UNKNOWN_TABLE)", 60, "UNKNOWN_TABLE", "Unknown table 't'."),
        (
            "Code: 27. DB::Exception: Code: 27. DB::Exception: Cannot parse: (at row 2)\n: While executing File."
            " (CANNOT_PARSE_INPUT_ASSERTION_FAILED) (version 26.9.2.1). (CANNOT_PARSE_INPUT_ASSERTION_FAILED)",
            27,
            "CANNOT_PARSE_INPUT_ASSERTION_FAILED",
            "Cannot parse: (at row 2)\n: While executing File.",
        ),
        ("something else", 1002, "UNKNOWN_EXCEPTION", "something else"),
    ],
)
def test_engine_errors_are_read_back(text: str, code: int, name: str, message: str) -> None:
    """Code, name and message come out of the engine's text."""
    error = parse_engine_error(text)
    assert (error.code, error.name, error.message) == (code, name, message)


def test_set_statements_are_understood() -> None:
    """What SET assigns in a session is known, so that it can be set again."""
    words = list(tokens(b"SET max_threads = 3, log_comment = 'it''s', x = -1.5"))
    assert assigned_by_set(words) == {"max_threads": "3", "log_comment": "it's", "x": "-1.5"}
    assert assigned_by_set(list(tokens(b"SELECT 1"))) == {}
