"""The HTTP server: aiohttp reads requests and runs connections; answers go to the transport as ready bytes.

Writing the bytes ourselves is what lets an answer be cut, trickled or left out, and it costs half as much as aiohttp's
own responses.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from itertools import count
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from . import answers, messages
from .answers import ChatRequest, EmbeddingRequest, Prompt, Reply
from .behaviour import Behaviour, Dice
from .billing import charged
from .dialects import VENDORS
from .ledger import Arrived, Gate, Ledger, Visit
from .messages import MessagesRequest

_ERRORS = {
    400: ("invalid_request_error", None, "Your request could not be understood."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("permission_error", "forbidden", "You are not allowed to use this model."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    405: ("invalid_request_error", None, "Not allowed method for this path."),
    408: ("timeout_error", None, "The request took too long."),
    409: ("conflict_error", None, "The resource was changed by another request."),
    413: ("invalid_request_error", None, "The request is too large."),
    422: ("invalid_request_error", None, "The request cannot be processed."),
    425: ("invalid_request_error", None, "Too early."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("server_error", "overloaded", "The engine is currently overloaded, please try again later."),
    529: ("server_error", "overloaded", "Overloaded"),
}
_PAGE = b"<html><body><h1>%b</h1><p>proxy</p></body></html>\n"
_TRICKLED_PIECES = 256

Request = ChatRequest | EmbeddingRequest | MessagesRequest

_decode_chat = msgspec.json.Decoder(ChatRequest).decode
_decode_embedding = msgspec.json.Decoder(EmbeddingRequest).decode
_decode_messages = msgspec.json.Decoder(MessagesRequest).decode

_MESSAGES = "/v1/messages"
_POSTS: dict[str, Callable[[bytes], Request]] = {
    "/v1/chat/completions": _decode_chat,
    "/v1/embeddings": _decode_embedding,
    _MESSAGES: _decode_messages,
}


class RefusedError(Exception):
    """A request that gets an error object."""

    def __init__(self, status: int, message: str | None = None, *, body: Any = None) -> None:
        """Take the status, and a message where the usual one says too little; or the whole body."""
        kind, code, usual = _ERRORS.get(status, ("", None, ""))
        super().__init__(message or usual)
        self.status = status
        self.own = body is not None
        self.body = msgspec.json.encode(
            body or {"error": {"message": message or usual, "type": kind, "param": None, "code": code}}
        )


class Fate(NamedTuple):
    """What is going to be sent, when and how."""

    status: int
    reply: Reply
    wait: float = 0.0
    fault: str = ""
    content_type: str = "application/json"
    headers: bytes = b""
    id_header: str = "x-request-id"


class _Sent(web.StreamResponse):
    """Tells aiohttp that the answer is out already."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:  # noqa: ARG002 - aiohttp's signature
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass


class FakeServer:
    """The endpoints under /v1."""

    def __init__(self, behaviour: Behaviour) -> None:
        """Start with a behaviour and an empty ledger."""
        self.listening = True
        self._numbers = count(1)
        self._kept_alive = _Sent(keep_alive=True)
        self._closed = _Sent(keep_alive=False)
        self._watchers: set[asyncio.Future[None]] = set()
        self.configure(behaviour)
        self.reset()

    def configure(self, behaviour: Behaviour) -> None:
        """Behave differently from the next request on."""
        self.behaviour = behaviour
        self._vendor = VENDORS.get(behaviour.dialect)
        self._dice = Dice(behaviour)
        self._gate = Gate(behaviour, time.monotonic())

    def reset(self) -> None:
        """Forget all requests; those in flight are booked out of the ledger they arrived under."""
        self.ledger = Ledger(self.behaviour)
        self._gate = Gate(self.behaviour, time.monotonic())

    async def changed(self) -> None:
        """Wait until a request arrives or leaves."""
        future = asyncio.get_running_loop().create_future()
        self._watchers.add(future)
        try:
            await future
        finally:
            self._watchers.discard(future)

    def _tell_watchers(self) -> None:
        for future in self._watchers:
            if not future.done():
                future.set_result(None)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request under /v1, or do to it what the dice say."""
        ledger = self.ledger
        counters = ledger.counters
        visit = None
        try:
            if request.method == "POST":
                visit = ledger.arrive()
                self._tell_watchers()
            body = await request.content.read()
            fate = self._decide(request, body, visit)
            if fate.wait:
                await asyncio.sleep(fate.wait)
            whole = await self._send(request, fate)
            if visit is not None:
                self._book(visit, fate, whole=whole)
        except (asyncio.CancelledError, ConnectionError, web.RequestPayloadError):
            if visit is not None and self.listening:
                counters.client_disconnects += 1
            elif visit is not None:
                counters.broken += 1
            raise
        finally:
            if visit is not None:
                ledger.leave(visit)
                self._tell_watchers()
        return self._kept_alive if whole and request.keep_alive else self._closed

    def _book(self, visit: Visit, fate: Fate, *, whole: bool) -> None:
        counters = visit.ledger.counters
        visit.ledger.billed += fate.reply.billed
        counters.billed = float(visit.ledger.billed)
        if not whole:
            counters.broken += 1
            return
        counters.answered += 1
        if visit.recorded is not None:
            visit.recorded.answered_at = time.monotonic()
        counters.by_status[fate.status] = counters.by_status.get(fate.status, 0) + 1
        if usage := fate.reply.usage:
            counters.prompt_tokens += usage.prompt_tokens
            counters.completion_tokens += usage.completion_tokens

    def _decide(self, request: web.BaseRequest, body: bytes, visit: Visit | None) -> Fate:
        fate = self._judge(request, body, visit)
        if request.path != _MESSAGES:
            return fate
        reply = (
            fate.reply if fate.status == 200 else fate.reply._replace(body=messages.error(fate.status, fate.reply.body))
        )
        return fate._replace(reply=reply, id_header="request-id")

    def _judge(self, request: web.BaseRequest, body: bytes, visit: Visit | None) -> Fate:
        behaviour = self.behaviour
        try:
            if behaviour.api_key is not None:
                self._check_key(request)
            if visit is None:
                return self._list_models(request)
            if behaviour.record:
                visit.ledger.record(behaviour, visit, Arrived(request.method, request.rel_url, request.headers, body))
            return self._weigh(_parse(request, body), visit)
        except RefusedError as refused:
            fate = self._refusal(refused)
            return fate._replace(headers=fate.headers + self._gate.headers())

    def _check_key(self, request: web.BaseRequest) -> None:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        given = request.headers.get("x-api-key", bearer)
        if given != self.behaviour.api_key:
            if self._vendor is not None:
                raise RefusedError(self._vendor.wrong_key[0], body=self._vendor.wrong_key[1])
            # Some servers repeat the key they were given; ours does, so that tests see whether it leaks from there.
            raise RefusedError(401, f"Incorrect API key provided: {given}.")

    def _list_models(self, request: web.BaseRequest) -> Fate:
        if request.path != "/v1/models":
            raise RefusedError(405 if request.path in _POSTS else 404, f"GET {request.path}: there is no such thing.")
        names = self.behaviour.models or ("fake-model",)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in names]
        return Fate(200, Reply(msgspec.json.encode({"object": "list", "data": data})))

    def _weigh(self, asked: Request, visit: Visit) -> Fate:
        behaviour, ledger = self.behaviour, visit.ledger
        prompt = Prompt.of(asked)
        key = prompt.key
        ledger.ask(visit, asked.model, key)
        if behaviour.models and asked.model not in behaviour.models:
            if self._vendor is not None:
                raise RefusedError(self._vendor.no_model[0], body=self._vendor.no_model[1])
            raise RefusedError(404, f"The model `{asked.model}` does not exist or you do not have access to it.")
        chat = None if isinstance(asked, EmbeddingRequest) else asked
        if chat and (problem := chat.refusal(behaviour)):
            raise RefusedError(400, problem)
        if self._vendor and not isinstance(asked, MessagesRequest) and (error := self._vendor.refusal(asked)):
            raise RefusedError(error[0], body=error[1])
        if not self._gate.admits(ledger.working, len(prompt.text) // 4 + 16, time.monotonic()):
            ledger.counters.refused += 1
            raise RefusedError(429)
        fault, wait = self._dice.throw(key, ledger.admit(visit, key))
        if behaviour.heals and chat and chat.goes_on:
            fault = ""
        if fault:
            ledger.counters.by_fault[fault] = ledger.counters.by_fault.get(fault, 0) + 1
        fate = self._failure(fault) or self._answer(asked, prompt, fault)
        return fate._replace(wait=wait, fault=fault, headers=fate.headers + self._gate.headers())

    def _failure(self, fault: str) -> Fate | None:
        """Make the answer of a fault that takes the place of an answer."""
        if fault == "garbage":
            return Fate(200, Reply(_PAGE % b"Please log in"), content_type="text/html")
        if fault == "502":
            return Fate(502, Reply(_PAGE % b"502 Bad Gateway"), content_type="text/html")
        if fault == "script":
            return Fate(200, Reply(self.behaviour.script.encode()))
        if fault.isdigit():
            return self._refusal(RefusedError(int(fault)))
        return None

    def _refusal(self, refused: RefusedError) -> Fate:
        headers = self._retry_after() if refused.status in {429, 503} and not refused.own else b""
        body = refused.body
        if self._vendor is not None and not refused.own:
            body = msgspec.json.encode(self._vendor.write(refused.status, str(refused)))
        return Fate(refused.status, Reply(body), headers=headers)

    def _answer(self, asked: Request, prompt: Prompt, fault: str) -> Fate:
        if isinstance(asked, EmbeddingRequest):
            return Fate(200, charged(answers.embeddings(asked, self.behaviour.dimensions), self.behaviour))
        try:
            if isinstance(asked, MessagesRequest):
                reply = messages.answer(asked, prompt, self.behaviour.reply, fault)
            else:
                reply = answers.chat(asked, prompt, self.behaviour.reply, fault)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RefusedError(400, f"Invalid schema for response_format: {error!r}") from error
        reply = charged(reply, self.behaviour)
        return Fate(200, reply, content_type="application/json" if reply.events is None else "text/event-stream")

    def _retry_after(self) -> bytes:
        value = self.behaviour.retry_after
        if value is None:
            return b""
        if not isinstance(value, str):
            value = f"{value:.15g}"
        kind, _, seconds = value.partition(":")
        if kind == "date":
            value = formatdate(time.time() + float(seconds), usegmt=True)
        return f"Retry-After: {value}\r\n".encode()

    async def _send(self, request: web.BaseRequest, fate: Fate) -> bool:
        """Write the answer; return whether it went out whole."""
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        reply, fault = fate.reply, fate.fault
        if fault == "hang":
            await asyncio.get_running_loop().create_future()
        if fault == "disconnect":
            transport.close()
            return False
        head = self._head(fate, keep_alive=request.keep_alive)
        if fault not in {"cut", "trickle"}:
            tail = reply.body if reply.events is None else b"".join(_chunks(reply.events))
            transport.write(head + tail)
            return True
        pieces = _pieces(reply)
        transport.write(head)
        if fault == "cut":
            transport.write(b"".join(pieces[: len(pieces) // 2]))
            transport.close()
            return False
        for piece in pieces:
            await asyncio.sleep(self.behaviour.trickle_seconds / len(pieces))
            transport.write(piece)
        return True

    def _head(self, fate: Fate, *, keep_alive: bool) -> bytes:
        body = "Transfer-Encoding: chunked" if fate.reply.events else f"Content-Length: {len(fate.reply.body)}"
        return b"%b%b%b\r\n" % (
            f"HTTP/1.1 {_STATUS_LINES[fate.status]}\r\nContent-Type: {fate.content_type}\r\n{body}\r\n"
            f"{fate.id_header}: req_{next(self._numbers):08d}\r\n".encode(),
            fate.headers,
            b"" if keep_alive else b"Connection: close\r\n",
        )


_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus} | {529: "529 Overloaded"}


def _parse(request: web.BaseRequest, body: bytes) -> Request:
    path = request.path
    if path not in _POSTS:
        raise RefusedError(404, f"POST {path}: there is no such thing.")
    try:
        asked = _POSTS[path](body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(400, f"The body is not a valid request: {error}") from error
    if isinstance(asked, MessagesRequest) and (problem := asked.fault(request.headers)):
        raise RefusedError(400, problem)
    return asked


def _chunks(events: Sequence[bytes]) -> list[bytes]:
    """Frame each event as an HTTP chunk; the last one is the end."""
    return [*(b"%x\r\n%b\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]


def _pieces(reply: Reply) -> list[bytes]:
    """Break an answer up: a stream into its events, a body into bytes, or a few hundred slices where it is long."""
    if reply.events is not None:
        return _chunks(reply.events)
    step = len(reply.body) // _TRICKLED_PIECES + 1
    return [reply.body[start : start + step] for start in range(0, len(reply.body), step)]
