"""Reasoning against a real server: not in the value, but in a column beside it, and never taken for an answer."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl
from ways import by_address

if TYPE_CHECKING:
    from pathlib import Path

    from fake_openai import FakeOpenAI

THOUGHT = "Let me think about this step by step."
ROWS = 6

pytestmark = pytest.mark.usefixtures("nothing_known")


def thinking(model: rl.Model, **fields: Any) -> rl.Recipe:
    """Make a recipe whose model thinks aloud, and a column that needs its thoughts."""
    return rl.Recipe(
        models={"m": model},
        columns=[
            rl.Uniform("n", 1, 100_000),
            rl.Text("answer", model="m", prompt="Say {{ n }}", reasoning="thoughts", **fields),
            rl.Expression("both", "{{ thoughts }} So: {{ answer }}"),
        ],
        seed=3,
    )


@pytest.mark.parametrize("fault", ["think", "reasoning"])
@pytest.mark.parametrize("engine", ["async", "sequential"])
def test_reasoning_is_a_column_beside_the_answer(server: FakeOpenAI, way: Any, fault: str, engine: Any):
    """Whether it comes as a tag or as a field, in both engines; other columns may need it."""
    server.configure(**{f"fault_{fault}": 1})
    recipe = thinking(way(server.url))
    assert recipe.columns == ["n", "answer", "thoughts", "both"]
    frame = recipe.preview(ROWS, progress=False, engine=engine).dataset
    assert list(frame["thoughts"]) == [THOUGHT] * ROWS
    assert not frame["answer"].str.contains("think").any()
    assert list(frame["both"]) == [f"{THOUGHT} So: {answer}" for answer in frame["answer"]]


def test_reasoning_is_null_where_the_endpoint_reports_none(server: FakeOpenAI, way: Any):
    """Its column is text all the same."""
    result = thinking(way(server.url)).preview(ROWS, progress=False)
    assert result.dataset["thoughts"].isna().all()
    assert str(result.to_arrow().schema.field("thoughts").type) == "string"
    told = {column["name"]: column for column in result.metadata["columns"]}["thoughts"]
    assert (told["type"], told["model"], told["completed"], told["requests"]) == ("reasoning", None, ROWS, 0)


def test_structured_answers_have_reasoning_too(server: FakeOpenAI, way: Any):
    """It is the reasoning of the accepted answer."""
    server.configure(fault_reasoning=1)
    grade = rl.Structured("s", model="m", prompt="p", schema={"type": "object"}, reasoning="why")
    recipe = rl.Recipe(models={"m": way(server.url)}, columns=[grade])
    assert recipe.preview(1, progress=False).dataset["why"][0] == THOUGHT


def test_reasoning_is_restored_when_a_dataset_is_resumed(server: FakeOpenAI, tmp_path: Path):
    """It is kept with the answers, which are not requested again."""
    server.configure(fault_reasoning=1)
    recipe = thinking(by_address(server.url))
    broken = True

    @recipe.column(on_error="raise")
    def last(answer: str, n: float) -> int:
        if broken and n > 50_000:
            raise ValueError("not yet")
        return len(answer)

    with pytest.raises(rl.DatasetGenerationError, match="not yet"):
        recipe.build(tmp_path / "out", 40, progress=False)
    asked = server.counters().distinct_prompts
    broken = False
    frame = recipe.build(tmp_path / "out", 40, progress=False, resume="always").dataset
    assert list(frame["thoughts"]) == [THOUGHT] * 40
    assert asked > 0
    assert server.counters().distinct_prompts == 40


def test_a_recipe_with_reasoning_goes_through_yaml(server: FakeOpenAI):
    """The column beside the answer is not written: it follows from the field."""
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:m", base_url=server.url)},
        columns=[rl.Text("answer", model="m", prompt="p", reasoning="thoughts")],
    )
    again = rl.Recipe.from_yaml(recipe.to_yaml())
    assert again.columns == ["answer", "thoughts"]
    assert [column["name"] for column in again.to_dict()["columns"]] == ["answer"]


@pytest.mark.parametrize("name", ["answer", "n"])
def test_a_name_that_is_taken_is_refused(name: str):
    """Before anything is paid for."""
    columns = [rl.Uniform("n"), rl.Text("answer", model="m", prompt="p", reasoning=name)]
    with pytest.raises(rl.RecipeError, match="two columns of this name"):
        rl.Recipe(models={"m": "openai:m"}, columns=columns)


@pytest.mark.parametrize("allow_truncated", [False, True])
def test_reasoning_that_leaves_no_answer_is_an_error(server: FakeOpenAI, way: Any, *, allow_truncated: bool):
    """Also with allow_truncated: there is no answer at all."""
    server.configure(fault_overthink=1)
    recipe = thinking(way(server.url, max_tokens=50), allow_truncated=allow_truncated, on_error="null")
    result = recipe.preview(1, progress=False)
    assert list(result.failures["error"]) == ["ModelError(length)"]
    (message,) = result.failures["message"]
    assert message == "there is no answer: the model's reasoning used up max_tokens=50; raise max_tokens"
    assert result.usage.completion_tokens == server.counters().completion_tokens > 0


@pytest.mark.parametrize(
    ("unknown", "sent", "refused"),
    [
        (["max_tokens"], {"max_completion_tokens": 50, "temperature": 0.5}, 1),
        (["temperature"], {"max_tokens": 50}, 1),
        (["max_tokens", "temperature"], {"max_completion_tokens": 50}, 2),
    ],
)
def test_a_field_that_a_reasoning_model_refuses_is_found_out_once(  # noqa: PLR0913, PLR0917 - fixtures and one table
    server: FakeOpenAI,
    way: Any,
    caplog: pytest.LogCaptureFixture,
    unknown: list[str],
    sent: dict[str, Any],
    refused: int,
):
    """Then it is sent under its other name, or left out with a warning; no row fails, and the requests are counted."""
    server.configure(unknown=unknown)
    recipe = thinking(way(server.url, max_tokens=50, temperature=0.5))
    with caplog.at_level(logging.WARNING, "rowloop"):
        result = recipe.preview(1, progress=False)
        again = recipe.preview(ROWS, progress=False)
    assert (result.status, result.metadata["retries"]) == ("complete", 0)
    assert (result.usage.requests, again.usage.requests) == (1 + refused, ROWS)
    assert server.counters().by_status == {200: 1 + ROWS, 400: refused}
    (request,) = server.requests()
    body = request.json()
    assert {name: value for name, value in body.items() if name not in {"model", "messages"}} == sent
    told = [record.getMessage() for record in caplog.records if "temperature" in record.getMessage()]
    assert len(told) == ("temperature" in unknown)


def test_a_field_that_cannot_be_left_out_is_named(server: FakeOpenAI, way: Any):
    """Neither name of max_tokens is known: the error quotes the endpoint."""
    server.configure(unknown=["max_tokens", "max_completion_tokens"])
    recipe = thinking(way(server.url, max_tokens=50), on_error="null")
    result = recipe.preview(1, progress=False)
    assert list(result.failures["error"]) == ["ModelError(bad_request)"]
    assert "Unsupported parameter: 'max_completion_tokens'" in result.failures["message"][0]
