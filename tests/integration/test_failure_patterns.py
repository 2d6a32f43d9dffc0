"""The pattern of a failure, as the engine works it out: values do not split a group, different errors do not share one."""

import json
import string
import uuid

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from deploy.sql_text import statements
from ingest.contract.store import client as open_client
from tests.support import rows

pytestmark = pytest.mark.real

# `#` is where a value stands. No two of these are the same error.
TEMPLATES = (
    "User # not found",
    "User # is not active",
    "flight # not available on date #",
    "payment amount does not add up, total price is #, but paid #",
    "Request # timed out after # ms",
    "connect ECONNREFUSED #",
    "connect ETIMEDOUT #",
    "Request failed with status code 404: #",
    "Request failed with status code 403: #",
    "404 Not Found: #",
    "429 Too Many Requests (retry after #)",
    "Error code: 429 - try again in #",
    "HTTP 500 from #",
    "HTTP 502 from #",
    "MCP error -32601: method # not found",
    "MCP error -32602: # is not valid",
    "AADSTS50058: session # has ended",
    "AADSTS70008: session # has ended",
    "User's token # can't be used",
    "No such channel: #",
    "Missing field #",
    '{"error": {"code": 403, "message": "Request had insufficient scopes", "request": "id #"}}',
    '{"error": {"code": 403, "message": "Daily limit exceeded", "request": "id #"}}',
    'returned "Request had insufficient authentication scopes." for #',
    'returned "The caller does not have permission to do this." for #',
    "The text of ticket # is longer than it may be",
    "nicht gefunden: # (für # Benutzer)",
    "用户 # 不存在",
    "Client error '404 Not Found' for url #",
    "Server error '502 Bad Gateway' for url #",
    "Server error '503 Service Unavailable' for url #",
    "Error: # rows were expected",
    "the default # seconds are over",
    "# contacts match",
)
WORD = st.text(string.ascii_letters, min_size=1, max_size=8)
VALUES = st.one_of(
    st.integers(0, 10**12).map(str),
    st.integers(-(10**6), -1).map(str),
    st.floats(0, 10**6, allow_nan=False).map(lambda value: f"{value:,.2f}"),
    st.uuids().map(str),
    st.uuids().map(lambda value: value.hex),
    st.binary(min_size=4, max_size=20).map(lambda value: "0x" + value.hex()),
    st.binary(min_size=4, max_size=20).map(lambda value: value.hex()),
    st.from_regex(r"\A(log|req|user|cus)_[a-z][A-Z]\w{6,12}\Z", alphabet=string.ascii_letters + string.digits + "_"),
    st.from_regex(r"\A[A-Z]{2,4}[0-9]{2,5}\Z"),
    st.tuples(WORD, WORD).map(lambda parts: f"{parts[0]}.{parts[0]}@{parts[1]}.example"),
    st.tuples(WORD, st.integers(1, 99)).map(lambda parts: f"https://api.{parts[0]}.example/v1/items?page={parts[1]}&q=%20x"),
    st.lists(WORD, min_size=1, max_size=3).flatmap(
        lambda words: st.sampled_from(['"{}"', "'{}'", "`{}`", "“{}”"]).map(lambda quotes: quotes.format(" ".join(words)))
    ),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.datetimes().map(lambda moment: moment.strftime("%d %b 2024 %H:%M:%S GMT")),
    st.datetimes().map(lambda moment: moment.strftime("%a, %d %b 2024 %H:%M:%S +0000")),
    st.tuples(WORD, WORD).map(lambda parts: f"/{parts[0]}/{parts[1]}.txt"),
    st.tuples(WORD, WORD).map(lambda parts: f"C:\\{parts[0]}\\{parts[1]}.txt"),
    st.ip_addresses(v=4).map(lambda address: f"{address}:443"),
    # "503, ..." at the start of a text is read as a status, which is part of the error.
    st.lists(st.integers(0, 10**6), min_size=1, max_size=5)
    .filter(lambda numbers: not 400 <= numbers[0] < 600)
    .map(lambda numbers: ", ".join(map(str, numbers))),
)


@pytest.fixture(scope="module")
def store(clickhouse_url):
    with rows.fresh_database(clickhouse_url) as url, open_client(url) as client:
        yield client


def patterns(store, errors, **fields):
    """Return the pattern of each error, in order."""
    batch = uuid.uuid4().hex
    given = [error if isinstance(error, dict) else {"error_message": error} for error in errors]
    events = [
        {"id": f"{index:04}", "timestamp": index, "project_id": batch, "status": "failed", "message": "T failed"} | one
        for index, one in enumerate(given)
    ]
    rows.insert(store, [event | fields for event in events], batches=1)
    question = "SELECT failure_pattern FROM tool_executions WHERE project_id = {batch:String} ORDER BY id"
    return [pattern for (pattern,) in store.query(question, parameters={"batch": batch}).result_rows]


@st.composite
def calls(draw):
    """An error with values in it."""
    template = draw(st.sampled_from(TEMPLATES))
    first, *rest = template.split("#")
    text = first
    for part in rest:
        value = draw(VALUES)
        # Quotes and backslashes within JSON are escaped.
        text += (json.dumps(value, ensure_ascii=False)[1:-1] if template.startswith("{") else value) + part
    return template, text


# To make an error of this smaller takes longer than to read it.
@settings(
    max_examples=25,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(calls=st.lists(calls(), min_size=20, max_size=60))
def test_values_do_not_split_and_errors_do_not_merge(store, calls):
    """Whatever stands where a value stands, calls share a pattern if and only if they share the error."""
    found = patterns(store, [text for _, text in calls])
    of_template, of_pattern = {}, {}
    for (template, text), pattern in zip(calls, found, strict=True):
        assert of_template.setdefault(template, pattern) == pattern, text
        assert of_pattern.setdefault(pattern, template) == template, text
    assert patterns(store, found) == found


@pytest.mark.parametrize(
    ("error", "pattern"),
    [
        ("Error: flight HAT030 not available on date 2024-05-13", "Error: flight <*> not available on date <*>"),
        ("User u7@x.example (id 5a3b) is gone", "User <*> (id <*>) is gone"),
        ("AADSTS50058: failed. Trace ID: 0f8fad5b-d9cb-469f-a165-70867728950e", "AADSTS50058: failed. Trace ID: <*>"),
        ("ids 1, 2 and 3 are missing", "ids <*> are missing"),
        ("line\nbreak\t\tand   blanks ", "line break and blanks"),
        ("read/write error and/or I/O", "read/write error and/or I/O"),
        ("it's the users' token", "it's the users' token"),
        ("3 validation errors for Model", "<*> validation errors for Model"),
        ("Zip code 90210 is invalid", "Zip code <*> is invalid"),
        ("HTTP/1.1 503 Service Unavailable", "HTTP/<*> 503 Service Unavailable"),
        ("{'error': {'code': 401, 'message': 'Bad credentials'}}", "{'error': {'code': 401, 'message': 'Bad credentials'}}"),
        ("ToolRouterV2_NoActiveConnection", "ToolRouterV2_NoActiveConnection"),
        ("Session has expired on Friday, 01-Mar-24 10:00:00 PST.", "Session has expired on <*> PST."),
        ("404: 5 items", "404: <*> items"),
        ("SQLSTATE[23000]: failed for 5", "SQLSTATE[23000]: failed for <*>"),
        ("Non-200 response: 502", "<*> response: 502"),
        ("The event on May 3 is over", "The event on <*> is over"),
        ("Closed from 14 June to Sept 2", "Closed from <*> to <*>"),
        ({"error_type": "ReadTimeout"}, "ReadTimeout: T failed"),
        ({"error_message": "Item 5 failed", "error_type": "ApiError", "error_code": "502"}, "ApiError 502: Item <*> failed"),
        ({"error_message": "404 Not Found", "error_code": "404"}, "404 Not Found"),
        ({"error_message": "Item 404 is gone", "error_code": "404"}, "404: Item <*> is gone"),
        ({"error_message": "Card declined (card_declined)", "error_code": "card_declined"}, "Card declined (card_declined)"),
        ({"message": "it broke at 12:30"}, "it broke at <*>"),
        ({"error_message": "5", "status": "success"}, ""),
    ],
)
def test_a_pattern_reads_as_the_error_did(store, error, pattern):
    """Words, statuses and codes stay; values are a star; type and code stand in front unless the text has them."""
    assert patterns(store, [error]) == [pattern]


def test_long_texts_that_differ_late_stay_apart_and_stay_short(store):
    """A pattern has at most 1,000 characters, and a hash of what was cut; values behind the cut do not count."""
    long = "é " * 4_000
    first, second, third = patterns(store, [long + "broke at 5", long + "broke at 77", long + "was locked"])
    assert first == second != third
    assert len(first) <= 1000
    assert first.startswith("é é é")


def test_a_hostile_text_takes_no_longer_than_another(store):
    """The largest message, of what sets patterns back elsewhere, is done within the time of any question."""
    hostile = ["a-" * 8_000, '"' * 16_000, "'a " * 5_000, "1." * 8_000 + "x", "/" * 16_000, "a@" * 8_000, "{'a':" * 3_000]
    assert len(patterns(store, hostile * 20)) == 140


def test_rows_older_than_the_column_have_their_pattern_too(clickhouse_url):
    """Whoever migrates a table with rows in it asks them like any other, before and after a merge."""
    with rows.fresh_database(clickhouse_url) as url, open_client(url) as client:
        client.command("ALTER TABLE tool_executions DROP COLUMN failure_pattern")
        old = {"status": "failed", "error_message": "Server error '503 Service Unavailable' for url https://x.example/7"}
        rows.insert(client, [{"id": str(number), "timestamp": number} | old for number in range(9)], batches=3)
        for file in sorted(rows.MIGRATIONS.glob("*_failure_pattern*.sql")):
            for statement in statements(file.read_text()):
                client.command(statement)
        asked = "SELECT DISTINCT failure_pattern FROM tool_executions"
        expected = [("Server error '503 Service Unavailable' for url <*>",)]
        assert client.query(asked).result_rows == expected
        client.command("OPTIMIZE TABLE tool_executions FINAL")
        assert client.query(asked).result_rows == expected
