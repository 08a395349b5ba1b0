"""Failures: the error of each way in which a request can fail, by plain calls without a server."""

import math
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import example, given
from hypothesis import strategies as st

from rowloop.adapters.http.errors import Failures
from rowloop.adapters.http.headers import retry_after
from rowloop.engine.core.events import UNKNOWN_USAGE

KEY = "sk-very-secret-1234"
FAILURES = Failures("openai:m at http://host/v1", KEY)


def body(**error) -> bytes:
    """Write an error as OpenAI does."""
    return msgspec.json.encode({"error": error})


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (b'{"error": {"message": "Too long."}}', "Too long"),
        (b'{"error": "Too long."}', "Too long"),
        (b'{"message": "Too long."}', "Too long"),
        (b'{"detail": "Too long."}', "Too long"),
        (b'[{"error": {"message": "Too long."}}]', "Too long"),
        (b'{"detail": [{"loc": ["body"], "msg": "Too long"}]}', '[{"loc":["body"],"msg":"Too long"}]'),
        (b"Too long.\n", "Too long"),
        (b"Too   \r\n long.", "Too long"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_the_endpoints_message_is_found(sent, message):
    """Endpoints have many shapes for an error, and plain text is one."""
    assert str(FAILURES.status(400, {}, sent)) == f"openai:m at http://host/v1 answered 400 Bad Request: {message}"


@pytest.mark.parametrize(
    "sent", [b"", b"{}", b"<html><body>Bad</body></html>", b"\n<!DOCTYPE html>", b'{"error": null}']
)
def test_a_body_without_a_message_adds_nothing(sent):
    """Neither does an empty body or a page."""
    assert str(FAILURES.status(400, {}, sent)) == "openai:m at http://host/v1 answered 400 Bad Request"


def test_long_words_are_cut():
    """Some endpoints send the whole prompt back."""
    error = FAILURES.status(400, {}, body(message="x" * 10_000))
    assert str(error).endswith(f": {'x' * 300}...")


def test_the_key_is_cut_out_wherever_it_stands():
    """Whole, twice, half masked, in a plain body and in a moved address."""
    for error in (
        FAILURES.status(401, {}, body(message=f"Incorrect key {KEY}, {KEY}; sk-ve***1234")),
        FAILURES.status(401, {}, f"no {KEY}".encode()),
        FAILURES.status(302, {"location": f"http://x/?key={KEY}"}, b""),
        FAILURES.unreadable(f"why {KEY}".encode(), truncated=False),
        FAILURES.transport(OSError(f"no route to {KEY}")),
    ):
        assert KEY not in str(error)
        assert "***" not in str(error)
        assert "[key]" in str(error)
    assert KEY not in repr(FAILURES)


@pytest.mark.parametrize(
    ("status", "code", "kind", "fatal"),
    [
        (429, "insufficient_quota", "quota", True),
        (429, "rate_limit_exceeded", "rate_limited", False),
        (400, "invalid_api_key", "auth", True),
        (400, "model_not_found", "not_found", True),
        (400, "context_length_exceeded", "bad_request", False),
        (402, None, "quota", True),
        (405, None, "not_found", True),
        (413, None, "bad_request", False),
        (504, None, "server", False),
        (529, None, "server", False),
        (599, None, "server", False),
    ],
)
def test_error_codes_override_statuses(status, code, kind, fatal):
    """A used-up quota arrives as 429, and waiting does not help."""
    error = FAILURES.status(status, {}, body(message="So.", code=code))
    assert (error.kind, error.fatal, error.status) == (kind, fatal, status)
    assert error.retryable == (kind in {"rate_limited", "server"})


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "1"}, 1.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 11:00:00 GMT", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, 0.0),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30", "date": "Sat, 21 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Sat, 21 Nov 2026 12:00:30 GMT", "date": "now"}, None),
        ({"retry-after": "Sun, 31 Dec 2000 23:59:59 GMT"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m30.5s"}, 90.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "20s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s", "retry-after": "2"}, 2.0),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_nothing(headers, seconds):
    """Never negative, never infinite, and nothing that an endpoint sends raises."""
    assert retry_after(headers) == seconds


def test_errors_in_answers_with_status_200_are_errors():
    """Gateways send them; the code in the body is then the status."""
    error = FAILURES.unreadable(body(message="Slow down", code=429), truncated=False)
    assert (error.kind, error.retryable, error.status) == ("rate_limited", True, 429)
    assert str(error) == "openai:m at http://host/v1 answered with an error: Slow down"
    error = FAILURES.unreadable(body(message="Upstream failed", code=None), truncated=False)
    assert (error.kind, error.retryable, error.status) == ("server", True, None)


def test_an_empty_answer_is_truncated():
    """A body of no bytes with status 200 is an answer that broke off."""
    error = FAILURES.unreadable(b"", truncated=True)
    assert (error.kind, error.retryable) == ("truncated", True)
    assert str(error) == "openai:m at http://host/v1 broke off its answer after 0 bytes"


def test_the_innermost_cause_counts():
    """Clients wrap exceptions in others with less or other information."""
    outer = RuntimeError("wrapped")
    outer.__cause__ = TimeoutError()
    error = FAILURES.transport(outer)
    assert (error.kind, error.retryable) == ("timeout", True)


def test_an_exception_of_no_client_is_not_tried_again():
    """The message has the class of whatever a user's own authentication raises."""
    error = FAILURES.transport(LookupError("no token for this tenant"))
    assert (error.kind, error.retryable) == ("connection", False)
    assert str(error) == "openai:m at http://host/v1 could not be asked: LookupError: no token for this tenant"


def test_a_request_that_may_be_billed_has_an_unknown_usage():
    """It was sent, and no whole answer arrived. An error's status is not billed, nor is what was not sent."""
    billed = [
        FAILURES.transport(aiohttp.ServerDisconnectedError()),
        FAILURES.transport(aiohttp.ClientPayloadError("half")),
        FAILURES.transport(TimeoutError()),
        FAILURES.undecoded(b"", ValueError("Input data was truncated")),
        FAILURES.unreadable(b"<html>", truncated=False),
    ]
    assert [error.usage for error in billed] == [UNKNOWN_USAGE] * 5
    key: Any = ConnectionKey("host", 443, True, True, None, None, None)  # noqa: FBT003 - its own positions
    free = [
        FAILURES.transport(aiohttp.ClientConnectorError(key, OSError(111, "refused"))),
        FAILURES.transport(aiohttp.ConnectionTimeoutError()),
        FAILURES.status(500, {}, b""),
        FAILURES.status(429, {}, b""),
        FAILURES.unreadable(b'{"error": {"message": "no"}}', truncated=False),
        FAILURES.unsendable(ValueError("no")),
    ]
    assert [error.usage for error in free] == [None] * 6


GROQ = {"message": "Failed to generate JSON", "code": "json_validate_failed"}
GEMINI = {"error": {"code": 429, "message": "Too fast.", "details": [{"retryDelay": "37s"}]}}


def json(value) -> str:
    """Write a value as JSON text."""
    return msgspec.json.encode(value).decode()


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"message": "Provider returned error", "metadata": {"raw": '{"error": {"message": "Too deep"}}'}}, "Too deep"),
        ({"message": "Provider returned error", "metadata": {"raw": "Too deep"}}, "Provider returned error: Too deep"),
        ({"message": "Provider returned error", "metadata": {"raw": {"detail": "Too deep"}}}, "Too deep"),
        ({"message": "Provider returned error", "metadata": {"raw": "<html>Bad</html>"}}, "Provider returned error"),
        ({"message": json({"error": {"code": 400, "message": json({"message": "Too deep"})}})}, "Too deep"),
        ({"message": "litellm.BadRequestError: - {'error': {'message': 'Too deep', 'code': None}}"}, "Too deep"),
        ({"message": 'HTTP 400: [{"error": {"message": "Too\ndeep"}}]'}, "Too deep"),
        ({"message": "failed", "error": {"message": "Too deep"}}, "Too deep"),
        ({"message": "{'message': {'type': 'string'}} is too deep"}, "{'message': {'type': 'string'}} is too deep"),
        ({"message": '{"error": ' * 5}, ('{"error": ' * 5).strip()),
        ({"message": "{'a': ("}, "{'a': ("),
    ],
)
def test_the_innermost_reason_is_shown(sent, message):
    """Gateways wrap the error of the endpoint behind them: as an object, as JSON, inside a sentence."""
    shown = str(FAILURES.status(400, {}, body(**sent)))
    assert shown.removeprefix("openai:m at http://host/v1 answered 400 Bad Request: ") == message


def test_of_a_page_its_title_is_shown():
    """A firewall names itself there."""
    page = b"<!DOCTYPE html><html><head><title>Attention Required!\n | Cloudflare</title></head><body>...</body></html>"
    assert "403 Forbidden: Attention Required! | Cloudflare" in str(FAILURES.status(403, {}, page))


@pytest.mark.parametrize(
    ("status", "sent", "kind", "fatal"),
    [
        (429, {"message": "on tokens per min (TPM): Limit 30000, Requested 41218."}, "too_large", False),
        (
            429,
            {"message": "tokens per min (TPM): Limit 30,000, Used 29,100, Requested 1,218."},
            "rate_limited",
            False,
        ),
        (429, {"message": "limit: 6000, requested: 6001", "code": "rate_limit_error"}, "too_large", False),
        (429, {"message": "Request too large for this tier"}, "too_large", False),
        (413, {"message": "Limit 6000, Requested 7210", "code": "rate_limit_exceeded"}, "too_large", False),
        (413, {"message": "Limit 6000, Used 5900, Requested 210"}, "rate_limited", False),
        (413, {"message": "Request too large for this tier"}, "bad_request", False),
        (400, {"message": "Your credit balance is too low to access the API"}, "quota", True),
        (403, {"message": "Your newly created team doesn't have any credits yet."}, "quota", True),
        (429, {"message": "Quota exceeded for metric: x.com/free_requests, limit: 0, model: m"}, "quota", True),
        (429, {"message": "no", "details": [{"violations": [{"quotaId": "RequestsPerDayPerModel"}]}]}, "quota", True),
        (
            429,
            {"message": "no", "details": [{"violations": [{"quotaId": "PerMinute"}]}]},
            "rate_limited",
            False,
        ),
        (429, {"message": "Rate limit exceeded: free-models-per-day"}, "quota", True),
        (400, {"message": "API key not valid. Please pass a valid API key."}, "auth", True),
        (403, {"message": "Your API key was reported as leaked."}, "auth", True),
        (403, {"message": "no", "metadata": {"reasons": ["violence"]}}, "refused", False),
        (403, {"message": "Content violates usage guidelines."}, "refused", False),
        (400, {"message": "Content Exists Risk"}, "refused", False),
        (400, {"message": "no", "code": "content_filter"}, "refused", False),
        (400, GROQ, "unreadable", False),
        (400, {"message": "Provider returned error", "metadata": {"raw": json({"error": GROQ})}}, "unreadable", False),
        (400, {"message": "the parameter limit 5 was requested"}, "bad_request", False),
    ],
)
def test_words_mean_what_status_and_code_leave_open(status, sent, kind, fatal):
    """Sizes, used-up quotas, keys and filters come with several statuses."""
    error = FAILURES.status(status, {}, body(**sent))
    assert (error.kind, error.fatal) == (kind, fatal)
    assert error.retryable == (kind in {"rate_limited", "unreadable"})


@pytest.mark.parametrize(
    ("headers", "sent", "seconds"),
    [
        ({}, {"message": "Please try again in 2.4s. Visit"}, 2.4),
        ({}, {"message": "Please try again in 6m0s."}, 360.0),
        ({}, {"message": "Please retry after 26 seconds."}, 26.0),
        ({}, {"message": "Please retry in 45.578569677s."}, 45.578569677),
        ({}, {"message": "Please try again later."}, None),
        ({}, {"message": "no", "details": [{"retryDelay": "37s"}]}, 37.0),
        ({}, {"message": json(GEMINI)}, 37.0),
        ({"retry-after": "3"}, {"message": "Please try again in 2.4s."}, 3.0),
    ],
)
def test_a_wait_may_stand_in_the_body(headers, sent, seconds):
    """Some endpoints have no header for it; the header counts where there is one."""
    assert FAILURES.status(429, headers, body(**sent)).retry_after == seconds


WORDS = st.sampled_from(
    [
        "message",
        "error",
        "code",
        "metadata",
        "raw",
        "details",
        "Limit 1, Requested 2",
        "try again in 3s",
        "{'a': ",
        "[[",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(status=st.integers(300, 599), sent=st.binary() | VALUES.map(msgspec.json.encode))
@example(status=429, sent=b'{"error": {"message": "Limit %b, Requested 2"}}' % (b"9" * 5000))
@example(status=429, sent=b'{"error": {"message": "try again in %bs"}}' % (b"9" * 5000))
@example(status=400, sent=msgspec.json.encode({"error": {"message": "{'a': " * 5000}}))
@example(status=400, sent=msgspec.json.encode({"error": {"message": '{"error": ' * 5000 + "1" + "}" * 5000}}))
@example(status=400, sent=b"[" * 100_000)
@example(status=400, sent=msgspec.json.encode({"error": {"message": "{'a': " + "-" * 50_000 + "1}"}}))
@example(status=400, sent=msgspec.json.encode({"error": {"message": "any credits " * 50_000}}))
def test_whatever_an_endpoint_answers_is_one_error(status, sent):
    """With a short message on one line; nothing raises, and a wait is a finite number."""
    for made in (FAILURES.status(status, {}, sent), FAILURES.unreadable(sent, truncated=False)):
        assert len(str(made)) < 500
        assert "\n" not in str(made)
        assert made.retry_after is None or 0 <= made.retry_after < math.inf


def test_money_that_is_held_back_is_waited_for():
    """OpenRouter's 402 with Retry-After: requests in flight hold the credit, and give it back."""
    assert FAILURES.status(402, {"retry-after": "3"}, body(message="In-flight budget")).kind == "rate_limited"
    assert FAILURES.status(402, {}, body(message="Insufficient credits")).kind == "quota"
