"""What the server tells about the requests it has had."""

from typing import Any

import msgspec


class Counters(msgspec.Struct):
    """Counts since the start or the last reset. Control calls and GET /v1/models count in connections at most.

    At every moment requests == answered + client_disconnects + broken + in_flight.
    """

    requests: int = 0
    in_flight: int = 0
    peak: int = 0
    """The most that were in flight at once."""
    answered: int = 0
    """Answers written to their end, of any status, garbage included."""
    client_disconnects: int = 0
    """Requests whose client went away before its answer."""
    broken: int = 0
    """Requests whose connection the server closed: cut, disconnect, stop()."""
    refused: int = 0
    """429s for the hidden limit, requests_per_minute or tokens_per_minute (not those of fault_429)."""
    distinct_prompts: int = 0
    repeats: int = 0
    """Requests whose prompt (with its model) had been asked before."""
    connections: int = 0
    """TCP connections accepted on the public port."""
    prompt_tokens: int = 0
    """Sum over the usage of complete answers."""
    completion_tokens: int = 0
    billed: float = 0.0
    """What all answers have cost in US dollars at the setting `price`, those that broke off included."""
    cpu_seconds: float = 0.0
    """Processor time of the server's process since it started."""
    by_status: dict[int, int] = {}
    by_fault: dict[str, int] = {}
    """Requests per fault drawn: "429", "cut", "hang" ..."""
    requests_by_model: dict[str, int] = {}
    peak_by_model: dict[str, int] = {}


class Recorded(msgspec.Struct, frozen=True):
    """A request as it was sent."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    answered_at: float | None
    """When its answer was written to its end, by time.monotonic(); None if it was not (yet)."""

    def json(self) -> Any:
        """Decode the body."""
        return msgspec.json.decode(self.body)
