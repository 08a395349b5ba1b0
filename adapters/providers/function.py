"""CallableProvider: plain Python functions as models, `Model(fn)`.

The function takes the prompt as text, or a list of messages if its parameter is called `messages`. It returns text, or
a dict for structured columns. A synchronous one is called in a thread, an asynchronous one is awaited.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic

from ...engine.core.errors import ModelError, RecipeError
from ...engine.models.provider import IN_PROCESS_UNUSED, Embedded, Limits, Reply
from ...runtime.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...engine.models.model import Model
    from ...engine.models.provider import Ask, ChatModel, ChatParameters, Embed, EmbeddingParameters, Message, Provider
    from ...runtime import Runtime


_IDLE = 10.0
"""Seconds without a call after which a thread of a model ends."""


class CallableProvider:
    """Connects models that are functions."""

    limits = Limits(most=32, in_process=True)
    unused = IN_PROCESS_UNUSED

    def check(self, model: Model) -> None:
        """Refuse anything that cannot be called with one argument."""
        if not callable(model.spec):
            raise RecipeError(f"Model({model.spec!r})", "this is no function; write PROVIDER:NAME or give a function")
        try:
            inspect.signature(model.spec).bind("prompt")
        except ValueError:
            return  # some builtins have no signature
        except TypeError:
            problem = "the function must take one argument, the prompt (or the messages, if it is called `messages`)"
            raise RecipeError(f"Model({model.name})", problem) from None

    async def connect(self, model: Model, runtime: Runtime) -> ChatModel:
        """Get threads for a synchronous function, as many as its calls in flight."""
        function: Any = model.spec
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            return CallableChat(model.name, function, None)
        most = model.max_parallel or self.limits.most
        key = ("python", id(function), most)  # a reused id finds threads that serve any function
        threads: Threads = await runtime.aenter(partial(Threads, most, f"rowloop-{model.name}", idle=_IDLE), key=key)
        return CallableChat(model.name, function, threads)


class CallableChat:
    """A function as a connected model."""

    def __init__(self, name: str, function: Callable[..., Any], threads: Threads | None) -> None:
        """Read the function's signature once."""
        self._name = name
        self._function = function
        self._threads = threads
        self._takes_messages = "messages" in _parameters(function)

    def chat(self, parameters: ChatParameters) -> Ask:  # noqa: ARG002 - a function has no temperature
        """Return the function as an Ask."""
        return self._ask

    def embed(self, parameters: EmbeddingParameters) -> Embed:  # noqa: ARG002 - nor dimensions
        """Return the function as an Embed, which must return a list of numbers."""
        return self._embed

    async def _ask(self, messages: list[Message]) -> Reply:
        return Reply(self._text(await self._called(messages)), "stop")

    async def _embed(self, text: str) -> Embedded:
        answer = await self._called([{"role": "user", "content": text}])
        numbers: Any = answer.tolist() if hasattr(answer, "tolist") else answer
        try:
            # The letters of a text could be read as numbers if they are digits.
            numbers = None if isinstance(numbers, str) else numbers
            return Embedded([float(number) for number in numbers])
        except (TypeError, ValueError):
            problem = (
                f"{self._name}() returned {type(answer).__name__}; for embeddings a function returns a list of numbers"
            )
            raise ModelError(problem, kind="function", retryable=False) from None

    async def _called(self, messages: list[Message]) -> Any:
        argument = messages if self._takes_messages else _prompt(messages, self._name)
        try:
            if self._threads is None:
                answer = await self._function(argument)
            else:
                answer = await self._threads.call(self._function, argument)
                if inspect.isawaitable(answer):
                    answer = await answer
            return answer  # noqa: TRY300 - the whole block is there to get it
        except ModelError:
            raise
        except Exception as error:
            problem = f"{self._name}() raised {type(error).__name__}: {error}"
            raise ModelError(problem, kind="function", retryable=False) from error

    def _text(self, answer: object) -> str:
        if isinstance(answer, str):
            return answer
        if isinstance(answer, pydantic.BaseModel):
            return answer.model_dump_json()
        if isinstance(answer, (dict, list)):
            try:
                return msgspec.json.encode(answer).decode()
            except (TypeError, ValueError, msgspec.MsgspecError) as error:
                problem = f"{self._name}() returned a {type(answer).__name__} that is not JSON: {error}"
                raise ModelError(problem, kind="function", retryable=False) from None
        problem = (
            f"{self._name}() returned {type(answer).__name__}; a model returns str, or dict for structured columns"
        )
        raise ModelError(problem, kind="function", retryable=False)


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:
        return []


def _prompt(messages: list[Message], name: str) -> str:
    """Join the texts of the messages."""
    if any(isinstance(message["content"], list) for message in messages):
        problem = f"{name}() takes a prompt alone; call its parameter `messages`, and it gets the images too"
        raise ModelError(problem, kind="function", retryable=False)
    return "\n\n".join(str(message["content"]) for message in messages)


provider: Provider = CallableProvider()
