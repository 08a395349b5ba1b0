"""Plain Python functions as models."""

import asyncio
import contextvars
import functools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import rowloop as rl
from rowloop.adapters.providers.function import provider
from rowloop.engine.core.errors import ModelError, RecipeError
from rowloop.engine.models.model import Model
from rowloop.engine.models.provider import ChatParameters, Message, Reply
from rowloop.runtime.runtime import Runtime

TALK: list[Message] = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    """Give each test a loop of its own."""
    with Runtime() as runtime:
        yield runtime


def answer(runtime: Runtime, function: Callable[..., Any]) -> Reply:
    """Connect a function and ask it once."""
    model = Model(function)
    provider.check(model)

    async def call() -> Reply:
        return await (await provider.connect(model, runtime)).chat(ChatParameters())(TALK)

    return runtime.run(call())


def test_a_function_gets_the_prompt_as_text(runtime):
    """System message and all."""
    assert answer(runtime, lambda prompt: prompt.upper()) == Reply("BE BRIEF\n\nHELLO", "stop")


def test_a_function_gets_messages_if_it_asks_for_them(runtime):
    """The parameter's name decides."""

    def last(messages: list[Message]) -> str:
        return messages[-1]["content"]

    assert answer(runtime, last).text == "hello"


def test_a_coroutine_function_is_awaited_on_the_loop(runtime):
    """Also a method, a partial, an object with an async __call__, and a lambda that returns a coroutine."""

    async def where(prompt: str) -> str:
        await asyncio.sleep(0)
        return f"{threading.current_thread().name} {len(prompt)}"

    class Callee:
        async def __call__(self, prompt: str) -> str:
            return await where(prompt)

        async def method(self, prompt: str) -> str:
            return await where(prompt)

    def two(_: int, prompt: str) -> Any:
        return where(prompt)

    texts = {answer(runtime, f).text for f in (where, Callee(), Callee().method, functools.partial(two, 1))}
    assert len(texts) == 1
    assert "function" not in texts.pop()


def test_synchronous_functions_run_side_by_side_in_threads(runtime):
    """As many as max_parallel allows: 20 calls that all wait for each other end."""
    together = threading.Barrier(20, timeout=5)

    def wait(_prompt: str) -> str:
        together.wait()
        return threading.current_thread().name

    async def calls() -> set[str]:
        ask = (await provider.connect(Model(wait, max_parallel=20), runtime)).chat(ChatParameters())
        return {reply.text for reply in await asyncio.gather(*(ask(TALK) for _ in range(20)))}

    assert len(runtime.run(calls())) == 20


def test_a_synchronous_function_may_use_the_runtime(runtime):
    """It is in a thread, so a blocking call into the loop is allowed there."""

    async def inner() -> str:
        return "from the loop"

    assert answer(runtime, lambda _: runtime.run(inner())).text == "from the loop"


def test_context_variables_reach_the_function(runtime):
    """In a thread as well."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    assert answer(runtime, lambda _: variable.get()).text == "set"


def test_structures_become_json(runtime):
    """A dict, a list, or a pydantic model."""

    class Grade(BaseModel):
        score: int

    assert json.loads(answer(runtime, lambda _: {"score": 3}).text) == {"score": 3}
    assert json.loads(answer(runtime, lambda _: [1, 2]).text) == [1, 2]
    assert json.loads(answer(runtime, lambda _: Grade(score=3)).text) == {"score": 3}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, r"tell\(\) returned NoneType; a model returns str, or dict"),
        (5, r"tell\(\) returned int; a model returns str, or dict"),
        ({"a": object()}, r"tell\(\) returned a dict that is not JSON: "),
        ({"a": "\ud800"}, r"tell\(\) returned a dict that is not JSON: "),
    ],
)
def test_anything_else_is_an_error(runtime, value, problem):
    """With the function's name and the type that it returned."""

    def tell(_prompt: str) -> Any:
        return value

    with pytest.raises(ModelError, match=problem) as caught:
        answer(runtime, tell)
    assert (caught.value.kind, caught.value.retryable) == ("function", False)


def test_an_exception_of_a_function_is_its_cells_failure(runtime):
    """Wrapped, with the cause kept; a ModelError of its own states whether to retry."""

    def fail(_prompt: str) -> str:
        raise LookupError("nothing there")

    with pytest.raises(ModelError, match=r"fail\(\) raised LookupError: nothing there") as caught:
        answer(runtime, fail)
    assert isinstance(caught.value.__cause__, LookupError)

    mine = ModelError("busy", kind="rate_limited", retryable=True)

    async def busy(_prompt: str) -> str:
        raise mine

    with pytest.raises(ModelError) as caught:
        answer(runtime, busy)
    assert caught.value is mine


def test_a_function_of_another_shape_is_refused():
    """Before a run."""
    with pytest.raises(RecipeError, match="must take one argument"):
        provider.check(Model(lambda: ""))
    with pytest.raises(RecipeError, match="must take one argument"):
        provider.check(Model(lambda prompt, system: prompt + system))
    provider.check(Model(lambda prompt, system="": prompt + system))
    provider.check(Model(str))


def test_the_threads_of_a_function_end_when_it_is_not_called(monkeypatch):
    """A long-lived process keeps no thread of a model that it no longer uses."""
    monkeypatch.setattr("rowloop.adapters.providers.function._IDLE", 0.02)

    def fleeting(prompt: str) -> str:
        return prompt

    recipe = rl.Recipe(models={"m": rl.Model(fleeting)}, columns=[rl.Text("text", model="m", prompt="any")])
    for _ in range(2):
        assert recipe.preview(20, progress=False).actual == 20
        threads = [thread for thread in threading.enumerate() if thread.name.startswith("rowloop-fleeting")]
        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)
