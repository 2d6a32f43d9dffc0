"""Logs on the wire."""

import orjson

from query_api import log_items
from query_api.logs import DETAIL_COLUMNS, SHOWN

DEFAULTS = {
    "id": "log_1",
    "toUnixTimestamp64Milli(timestamp)": 1_776_421_500_000,
    "status": "failed",
    "level": "error",
    "duration_ms": 202,
    "http_status": 0,
    "tool_slug": "GMAIL_SEND_EMAIL",
    "toolkit_slug": "gmail",
    "project_id": "proj_a",
}


def detail(**fields):
    values = {name: "" for name in (*DETAIL_COLUMNS, *SHOWN)} | DEFAULTS | fields
    values["shown"] = orjson.dumps([values[name] for name in SHOWN]).decode()
    return orjson.dumps(log_items.detail(log_items.values_of([values[name] for name in DETAIL_COLUMNS])))


def test_optional_members_are_absent_and_required_ones_are_there():
    """A log of nothing but its required columns."""
    assert orjson.loads(detail()) == {
        "id": "log_1",
        "timestamp": "2026-04-17T10:25:00.000Z",
        "type": "tool.execution",
        "status": "failed",
        "level": "error",
        "metadata": {
            "tool_slug": "GMAIL_SEND_EMAIL",
            "toolkit_slug": "gmail",
            "project_id": "proj_a",
            "log_id": "log_1",
            "tool": {"slug": "GMAIL_SEND_EMAIL"},
            "toolkit": {"slug": "gmail"},
        },
        "metrics": {"duration_ms": 202},
        "parent": None,
        "timings": {"start_time": 1_776_421_500_000, "end_time": 1_776_421_500_202},
        "context": {},
        "source": {},
        "data": {},
    }


def test_data_is_spliced_as_stored():
    """Spaces, order, repeated members, long numbers and escapes come back byte for byte."""
    stored = '{"b" : 1.00, "a": 12345678901234567890123, "b":"\\u00e9\\/", "c":[ ]}'
    assert b'"data":' + stored.encode() + b"}" in detail(data=stored)


def test_metadata_joins_the_producers_members_with_ours():
    """Numbers keep their spelling; what filters go by wins; an object `tool` gets its slug, another `tool` stays."""
    got = detail(metadata='{"n": 1.00, "tool": {"version": 2.0}, "tool_slug": "other", "user_id": "theirs"}', user_id="ours")
    metadata = orjson.loads(got)["metadata"]
    assert metadata["tool"] == {"version": 2.0, "slug": "GMAIL_SEND_EMAIL"}
    assert metadata["tool_slug"] == "GMAIL_SEND_EMAIL"
    assert metadata["user_id"] == "ours"
    assert b'"n":1.00' in got
    assert orjson.loads(detail(metadata='{"tool": "mine"}'))["metadata"]["tool"] == "mine"
    assert orjson.loads(detail(metadata='{"user_id": "theirs"}'))["metadata"]["user_id"] == "theirs"


def test_parent_context_and_source():
    """Their members are there where the event had them."""
    got = orjson.loads(
        detail(parent_log_id="log_0", parent_tool_slug="P", session_id="s", trace_id="t", host="sdk", message="m")
    )
    assert got["parent"] == {"log_id": "log_0", "tool_slug": "P"}
    assert got["context"] == {"session_id": "s", "trace_id": "t"}
    assert got["source"] == {"host": "sdk"}
    assert got["message"] == "m"


def test_members_that_the_contract_gives_a_type_are_of_it_or_left_out():
    """A client that checks answers would refuse the whole page over one event's metadata."""
    kept = '{"credential_source": "no_auth", "instant_charge": "0.10"}'
    assert orjson.loads(kept).items() <= orjson.loads(detail(metadata=kept))["metadata"].items()
    for wrong in ('"mine"', "5", "{}", "null", "[]"):
        charge = "1" if wrong.startswith('"') else wrong
        metadata = orjson.loads(detail(metadata=f'{{"credential_source": {wrong}, "instant_charge": {charge}, "other": 1}}'))[
            "metadata"
        ]
        assert metadata["other"] == 1
        assert not {"credential_source", "instant_charge"} & set(metadata)
