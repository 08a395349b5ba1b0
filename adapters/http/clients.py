"""Clients: what an exception means that a client of the user's own raises, by its status or by its cause.

The clients are aiohttp, httpx, requests and those like it, urllib, urllib3, http.client, openai and those like it,
botocore, gRPC, and whatever has a status where one of these keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...engine.runs.foreign import Judgement
from .causes import CLOSED, REQUEST, cause_of, meaning_of_status, root_of
from .chains import chain_of, names_of

if TYPE_CHECKING:
    from .causes import Meaning

_STATUSES = range(300, 600)  # an exception beside a status of success has another cause
_PLACES = ("status_code", "status", "http_status")
_WITH_CODE = frozenset({"urllib.HTTPError", "google.GoogleAPICallError", "google.APIError"})
_RATE = meaning_of_status(429)
_THROTTLED = frozenset(  # botocore's own retries know these codes, which arrive with status 400 as well
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "LimitExceededException",
        "SlowDown",
        "PriorRequestNotComplete",
        "TransactionInProgressException",
        "EC2ThrottledException",
    }
)
_GRPC = {
    "UNAVAILABLE": CLOSED.meaning,
    "DEADLINE_EXCEEDED": meaning_of_status(408),
    "RESOURCE_EXHAUSTED": _RATE,
    "ABORTED": meaning_of_status(409),
    "INTERNAL": meaning_of_status(500),
    "UNKNOWN": meaning_of_status(500),
    "UNAUTHENTICATED": meaning_of_status(401),
    "PERMISSION_DENIED": meaning_of_status(403),
}


def judge(error: BaseException) -> Judgement | None:
    """Judge an exception of a client that a user's function brings, None for one of no client."""
    if isinstance(error, BaseExceptionGroup):
        return _of_group(error)
    meaning = _by_status(error) or _by_cause(error)
    return None if meaning is None else Judgement(meaning.kind, meaning.retryable)


def _of_group(group: BaseExceptionGroup[BaseException]) -> Judgement | None:
    """Judge the exceptions of a task group: another attempt makes sense if it does for each of them."""
    judgements = [judge(error) for error in group.exceptions]
    hopeless = (judgement for judgement in judgements if judgement is None or not judgement.retryable)
    return next(hopeless, judgements[0])


def _by_status(error: BaseException) -> Meaning | None:
    """Return the meaning of the outermost status; functions raise exceptions of their own from those of clients."""
    return next((meaning for inner in chain_of(error) if (meaning := _own_status(inner)) is not None), None)


def _by_cause(error: BaseException) -> Meaning | None:
    """Return the meaning of the cause at the root of an exception, else of the first on the way there."""
    cause = cause_of(root_of(error)) or next(filter(None, map(cause_of, chain_of(error))), None)
    return None if cause is None else cause.meaning


def _own_status(error: BaseException) -> Meaning | None:
    names = names_of(error)
    if "grpc.RpcError" in names:
        return _of_grpc(error)
    if "aiohttp.HttpProcessingError" in names_of(error.__cause__ or error):
        return None  # it has a status of aiohttp's own invention: the answer was not HTTP
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        return _of_botocore(response)
    places = (*_PLACES, "code") if not _WITH_CODE.isdisjoint(names) else _PLACES
    for holder in (error, response):
        for place in places:
            status = getattr(holder, place, None)
            if isinstance(status, int) and status in _STATUSES:
                return meaning_of_status(status)
    return None


def _of_grpc(error: Any) -> Meaning:
    """Return the meaning of a StatusCode."""
    code = error.code() if callable(getattr(error, "code", None)) else None
    return _GRPC.get(getattr(code, "name", ""), REQUEST)


def _of_botocore(response: dict[str, Any]) -> Meaning | None:
    """Return the meaning of an answer as botocore parses it."""
    error, metadata = response.get("Error"), response.get("ResponseMetadata")
    if isinstance(error, dict) and error.get("Code") in _THROTTLED:
        return _RATE
    status = metadata.get("HTTPStatusCode") if isinstance(metadata, dict) else None
    return meaning_of_status(status) if isinstance(status, int) and status in _STATUSES else None
