"""The response cache: a stored answer replaces a request, and equal requests of one run get different answers."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl
from rowloop.engine.models.provider import ChatParameters, Reply
from rowloop.engine.models.response_cache import ResponseCache
from rowloop.engine.models.verdict import Judge

if TYPE_CHECKING:
    from pathlib import Path

    from fake_openai import FakeOpenAI
    from rowloop.engine.models.provider import Message

QUIET: Any = {"progress": False}


def recipe(url: str, **changes: Any) -> rl.Recipe:
    """Make a recipe of a column that asks the same of many rows, and one that asks each row its own."""
    model = {"base_url": url, **changes}
    return rl.Recipe(
        models={"m": rl.Model("openai:any", **model)},
        columns=[
            rl.Category("topic", values=["a", "b"]),
            rl.Text("question", model="m", prompt="Ask about {{ topic }}."),
            rl.Text("answer", model="m", prompt="Answer: {{ question }}"),
        ],
        seed=1,
    )


def test_an_answered_request_is_not_sent_again(server: FakeOpenAI, tmp_path: Path):
    """The second run makes no request and gives the same rows; usage and cost count real requests only."""
    first = recipe(server.url).preview(20, cache=tmp_path / "cache" / "replies.sqlite", **QUIET)
    assert server.counters().requests == first.usage.requests == 40
    again = recipe(server.url).build(tmp_path / "out", 20, cache=str(tmp_path / "cache" / "replies.sqlite"), **QUIET)
    assert server.counters().requests == 40
    assert (again.usage.requests, again.usage.prompt_tokens) == (0, 0)
    assert sorted(again.dataset["answer"]) == sorted(first.dataset["answer"])
    more = recipe(server.url).preview(30, cache=tmp_path / "cache" / "replies.sqlite", **QUIET)
    assert server.counters().requests <= 60
    assert more.usage.requests == server.counters().requests - 40
    assert "  cache     " in str(again.report)


@pytest.mark.parametrize(
    "changes", [{"temperature": 0.5}, {"max_tokens": 9}, {"extra": {"top_p": 0.5}}], ids=lambda c: next(iter(c))
)
def test_a_different_request_is_sent(server: FakeOpenAI, tmp_path: Path, changes: dict[str, Any]):
    """Every parameter counts."""
    recipe(server.url).preview(2, cache=tmp_path / "c", **QUIET)
    recipe(server.url, **changes).preview(2, cache=tmp_path / "c", **QUIET)
    assert server.counters().requests == 8


def test_failures_are_not_stored(tmp_path: Path):
    """A request that failed is sent again, and its answer is the first that is stored."""
    asked: list[str] = []

    async def ask(messages: list[Message]) -> Reply:
        asked.append(str(messages))
        if len(asked) == 1:
            raise rl.ModelError("no", kind="server", retryable=True)
        return Reply(f"answer {len(asked)}", "stop", 3, 4)

    async def run() -> None:
        cache = ResponseCache(tmp_path / "c")
        call = cache.wrap(ask, "m", ChatParameters(), Judge("m").accepts)
        with pytest.raises(rl.ModelError):
            await call([{"role": "user", "content": "x"}])
        assert (await call([{"role": "user", "content": "x"}])).text == "answer 2"
        assert (await call([{"role": "user", "content": "x"}])).text == "answer 3"
        cache.close()
        cache = ResponseCache(tmp_path / "c")
        call = cache.wrap(ask, "m", ChatParameters(), Judge("m").accepts)
        replies = [await call([{"role": "user", "content": "x"}]) for _ in range(2)]
        assert [(reply.text, reply.prompt_tokens) for reply in replies] == [("answer 2", 0), ("answer 3", 0)]
        assert (cache.hits, len(asked)) == (2, 3)
        cache.close()

    asyncio.run(run())


def test_a_file_of_another_format_is_named_and_not_changed(server: FakeOpenAI, tmp_path: Path):
    """A foreign database, text, a directory: refused before anything is paid for."""
    with sqlite3.connect(tmp_path / "mine.sqlite") as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    (tmp_path / "text").write_text("not a database, but long enough to be looked at" * 50)
    (tmp_path / "directory").mkdir()
    for name in ("mine.sqlite", "text", "directory"):
        before = (tmp_path / name).stat().st_size
        with pytest.raises(rl.RecipeError, match=rf"cache: '.*{name}' cannot be used as a response cache"):
            recipe(server.url).preview(1, cache=tmp_path / name, **QUIET)
        assert (tmp_path / name).stat().st_size == before
    assert server.counters().requests == 0


def test_no_key_is_in_the_cache(server: FakeOpenAI, tmp_path: Path):
    """It has the hashes of requests, and replies."""
    recipe(server.url, api_key="sk-a-very-secret-key").preview(2, cache=tmp_path / "c", **QUIET)
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"sk-a-very-secret-key" not in kept
