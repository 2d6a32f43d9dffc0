"""The Error body and what stands around it."""

import json

import pytest

from ingest.contract.http_errors import credentials, error_body, mask_key, request_id, slug_of


def test_the_error_body_carries_the_four_required_members_and_the_request_id() -> None:
    body = json.loads(error_body(status=401, message="Invalid API key: ak_abc*****", request_id="req_1"))
    assert body == {
        "error": {
            "message": "Invalid API key: ak_abc*****",
            "code": 10401,
            "slug": "HTTP_Unauthorized",
            "status": 401,
            "request_id": "req_1",
        }
    }


def test_optional_members_appear_only_when_given() -> None:
    body = json.loads(
        error_body(
            status=400,
            message="m",
            request_id="r",
            slug="Own_Slug",
            code=4242,
            suggested_fix="Please check the payload.",
            errors=["Error in payload.limit: too large"],
            extra={"rejected": [{"index": 0}]},
        )
    )
    assert body["error"]["slug"] == "Own_Slug"
    assert body["error"]["code"] == 4242
    assert body["error"]["suggested_fix"] == "Please check the payload."
    assert body["error"]["errors"] == ["Error in payload.limit: too large"]
    assert body["rejected"] == [{"index": 0}]


def test_a_429_also_carries_the_flat_message_of_the_incumbent() -> None:
    body = json.loads(error_body(status=429, message="Too much in flight", request_id="r"))
    assert body["message"] == body["error"]["message"] == "Too much in flight"


@pytest.mark.parametrize(
    ("status", "slug"), [(400, "HTTP_BadRequest"), (404, "HTTP_NotFound"), (405, "HTTP_MethodNotAllowed"), (599, "HTTP_599")]
)
def test_a_status_without_a_name_of_its_own_gets_the_slug_of_its_phrase(status: int, slug: str) -> None:
    assert slug_of(status) == slug


@pytest.mark.parametrize("given", ["656de46bb3d84bb8ad8f0f6d144547d7", "req_abc123def456", "a/b:c+d=e@f.g-h_i"])
def test_a_sane_request_id_is_kept(given: str) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, "", "a b", "x\r\ny", "é", "x" * 129])
def test_a_request_id_that_could_break_out_of_a_header_is_replaced(given: str | None) -> None:
    assert request_id(given).startswith("req_")
    assert request_id(given) != request_id(given)


@pytest.mark.parametrize(
    ("key", "masked"), [("ak_o1Og5abcdefghijklmnopqrst", "ak_o1Og5*****"), ("short", "s*****"), ("", "*****")]
)
def test_a_key_is_never_shown_beyond_its_head(key: str, masked: str) -> None:
    assert mask_key(key) == masked


def test_every_credential_is_seen_so_that_two_can_be_refused() -> None:
    assert credentials([(b"x-api-key", b"a"), (b"x-request-id", b"r")]) == [("x-api-key", "a")]
    assert credentials([(b"x-api-key", b"a"), (b"x-api-key", b"b")]) == [("x-api-key", "a"), ("x-api-key", "b")]
    both = credentials([(b"authorization", b"Bearer t"), (b"x-org-api-key", b"o")])
    assert both == [("authorization", "t"), ("x-org-api-key", "o")]


def test_basic_credentials_belong_to_a_proxy_and_not_to_us() -> None:
    assert credentials([(b"authorization", b"Basic dTpw"), (b"x-api-key", b"a")]) == [("x-api-key", "a")]
