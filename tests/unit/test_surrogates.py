"""Halves of surrogate pairs in JSON: only they are replaced, and what is left is JSON for every reader."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.surrogates import without_halves

halves = st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)
# Backslashes too: they stand before what is no escape at all.
texts = st.text(halves | st.sampled_from('\\"u/n\n😀d8') | st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (rb'{"a":"\ud83d"}', rb'{"a":"\ufffd"}'),
        (rb'"\uDE00 \uD83Dx"', rb'"\ufffd \ufffdx"'),
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"'),
        (rb'"\ud83d\ud83d\ude00\ude00"', rb'"\ufffd\ud83d\ude00\ufffd"'),
        (rb'"\\ud83d"', rb'"\\ud83d"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (rb'"\\ud83d\ude00"', rb'"\\ud83d\ufffd"'),
        (rb'{"\udc00":1}', rb'{"\ufffd":1}'),
        (b"", b""),
    ],
)
def test_halves_alone_are_replaced(given: bytes, left: bytes) -> None:
    """Pairs, and texts that only look like an escape, stay byte for byte."""
    assert without_halves(given) == left


@given(texts)
def test_what_is_left_is_json(text: str) -> None:
    """It says what was said, but for characters that were none."""
    # Two halves beside each other would be written as the character that they are together.
    said = json.loads(json.dumps(text))
    raw = without_halves(json.dumps(text).encode())
    assert msgspec.json.decode(raw) == "".join("\ufffd" if "\ud800" <= one <= "\udfff" else one for one in said)
