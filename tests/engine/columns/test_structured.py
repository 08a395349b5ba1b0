"""Structured columns against a real server: whatever it supports and answers, values obey the schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import jsonschema_rs
import pydantic
import pytest

import rowloop as rl
from rowloop.engine.datasets.metadata import json_schema
from rowloop.engine.datasets.reading import read_result
from rowloop.engine.telemetry.spending import StructuredCounts
from ways import by_address

if TYPE_CHECKING:
    from pathlib import Path

    from fake_openai import FakeOpenAI

ROWS = 12
OBEYS = 'fixed:{"score": 7, "verdict": "good"}'

Way = Callable[..., rl.Model]

pytestmark = pytest.mark.usefixtures("nothing_known")


class Grade(pydantic.BaseModel):
    """A grade."""

    score: int = pydantic.Field(ge=1, le=10)
    verdict: Literal["good", "bad"]


def graded(model: rl.Model, *, schema: Any = Grade, **fields: Any) -> rl.Recipe:
    """Make a recipe with one structured column."""
    return rl.Recipe(
        models={"judge": model},
        columns=[
            rl.Uniform("n", 1, 100_000),
            rl.Structured("grade", model="judge", prompt="Grade {{ n }}", schema=schema, **fields),
        ],
        seed=3,
    )


def previewed(recipe: rl.Recipe, rows: int = ROWS, **options: Any) -> tuple[rl.Result, StructuredCounts]:
    """Run it, and check that every value obeys."""
    result = recipe.preview(rows, progress=False, **options)
    for value in result.dataset["grade"]:
        Grade.model_validate(value)
    return result, result.structured_by_column["grade"]


def counts(result: rl.Result, server: FakeOpenAI) -> None:
    """Check that requests and tokens are those the server counted."""
    counted = server.counters()
    assert result.usage.requests == counted.requests
    assert result.usage.prompt_tokens == counted.prompt_tokens
    assert result.usage.completion_tokens == counted.completion_tokens


def test_an_endpoint_that_supports_schemas_gets_them(server: FakeOpenAI, way: Way):
    """All answers are native, and the report has nothing to add."""
    result, told = previewed(graded(way(server.url)))
    assert told == StructuredCounts(native=ROWS)
    assert "json" not in dict(result.report.lines())
    counts(result, server)


@pytest.mark.parametrize(
    ("behaviour", "form", "refused"),
    [({"json_schema": False}, {"type": "json_object"}, 1), ({"structured": False}, None, 2)],
    ids=["json_object", "prompt"],
)
def test_a_form_that_an_endpoint_refuses_is_found_out_once(
    server: FakeOpenAI, way: Way, behaviour: dict[str, Any], form: dict[str, str] | None, refused: int
):
    """Then the schema is in the prompt; no row fails, and a second run in the process starts with that form."""
    server.configure(reply=OBEYS, **behaviour)
    recipe = graded(way(server.url))
    result, told = previewed(recipe, 1)
    assert told == StructuredCounts()
    assert server.counters().by_status == {200: 1, 400: refused}
    counts(result, server)
    (request,) = server.requests()
    body = request.json()
    assert body.get("response_format") == form
    assert body["messages"][-1]["content"].startswith("Grade ")
    assert '"score"' in body["messages"][-1]["content"]
    result, _ = previewed(recipe)
    assert server.counters().by_status == {200: 1 + ROWS, 400: refused}
    assert (result.status, result.metadata["retries"]) == ("complete", 0)


def test_many_first_requests_at_once_find_out_the_form_together(server: FakeOpenAI, way: Way):
    """Each is repeated at once, in the form known by then."""
    server.configure(reply=OBEYS, structured=False, latency=0.05)
    result, told = previewed(graded(way(server.url, max_parallel=ROWS)))
    assert (result.status, told) == ("complete", StructuredCounts())
    assert server.counters().by_status[400] <= 2 * ROWS
    counts(result, server)


def test_a_refused_schema_does_not_affect_others(server: FakeOpenAI, way: Way):
    """The endpoint accepts schemas, but not one that its own rules forbid."""
    nonsense = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 1}}}
    recipe = rl.Recipe(
        models={"m": way(server.url)},
        columns=[
            rl.Structured("first", model="m", prompt="a", schema=nonsense),
            rl.Structured("grade", model="m", prompt="b {{ first }}", schema=Grade),
        ],
    )
    result = recipe.preview(1, progress=False)
    assert result.structured_by_column["first"].native == 0
    assert result.structured_by_column["grade"].native == 1


def test_fences_prose_and_slips_are_repaired(server: FakeOpenAI, way: Way):
    """None of these answers is requested again."""
    server.configure(fault_fenced=0.5, fault_invalid_json=0.5)
    result, told = previewed(graded(way(server.url)))
    assert told == StructuredCounts(native=ROWS, repaired=ROWS)
    assert server.counters().requests == ROWS
    assert dict(result.report.lines())["json"] == f"grade: {ROWS} repaired"
    counts(result, server)


def test_a_model_is_shown_its_mistake(server: FakeOpenAI, way: Way):
    """Together with its answer and the schema; the usage is counted, and no attempt is lost."""
    server.configure(fault_prose=1, heals=True)
    result, told = previewed(graded(way(server.url), system="Be strict."))
    assert told == StructuredCounts(native=ROWS, reasked=ROWS)
    assert (result.metadata["retries"], result.status) == (0, "complete")
    assert dict(result.report.lines())["json"] == f"grade: {ROWS} asked again"
    counts(result, server)
    previewed(graded(way(server.url), system="Be strict."), 1)
    messages = server.requests()[-1].json()["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[-1]["content"].startswith("That answer will not do: Invalid JSON: expected value ")
    assert '"score"' in messages[-1]["content"]


@pytest.mark.parametrize("reasks", [0, 1, 3])
def test_an_answer_that_never_obeys_fails_for_good(server: FakeOpenAI, way: Way, reasks: int):
    """After `reasks` further requests; the error has the fault's place and the beginning of the answer."""
    server.configure(reply='fixed:{"score": 11, "verdict": "good"}')
    recipe = graded(way(server.url), reasks=reasks, on_error="null")
    result = recipe.preview(3, progress=False, error_budget=rl.ErrorBudget(rate=None))
    assert result.structured_by_column["grade"] == StructuredCounts(reasked=3 * reasks, failed=3)
    assert server.counters().requests == 3 * (1 + reasks)
    counts(result, server)
    (error,) = set(result.failures["error"])
    (message,) = set(result.failures["message"])
    assert error == "ModelError(invalid_output)"
    assert message.startswith("the answer does not obey the schema: score: Input should be less than or equal to 10")
    assert message.endswith("""it was '{"score": 11, "verdict": "good"}'""")
    assert set(result.failures["attempts"]) == {1}
    again = f", {3 * reasks} asked again" if reasks else ""
    assert dict(result.report.lines())["json"] == f"grade: {again.removeprefix(', ')}{', ' if again else ''}3 failed"


def test_the_usage_of_a_failed_conversation_is_counted(server: FakeOpenAI, way: Way):
    """The first answer was paid for, even if the second request fails."""
    server.configure(fault_prose=0.5, fault_500=0.5, seed=5)
    retry = rl.RetryPolicy(wait=lambda _: 0.001, attempts=30)
    recipe = graded(way(server.url), on_error="null", reasks=2)
    result = recipe.preview(ROWS, progress=False, retry=retry, error_budget=rl.ErrorBudget(rate=None))
    assert result.metadata["retries"] > 0
    assert result.structured_by_column["grade"].reasked > 0
    counts(result, server)


def test_a_reask_keeps_its_permit_in_the_lane(server: FakeOpenAI, way: Way):
    """No more requests are in flight than max_parallel."""
    server.configure(fault_prose=1, heals=True, latency=0.01)
    previewed(graded(way(server.url, max_parallel=3)))
    assert server.counters().peak <= 3


def test_an_answer_cut_off_is_not_repaired(server: FakeOpenAI, way: Way):
    """Half an object might obey by chance; max_tokens has to be raised."""
    server.configure(fault_length=1)
    result = graded(way(server.url, max_tokens=9), on_error="null", schema={}).preview(1, progress=False)
    assert list(result.failures["message"]) == ["the answer was cut off at max_tokens=9; raise max_tokens"]
    assert server.counters().requests == 1


def test_counts_are_in_the_metadata_and_add_up_when_a_dataset_is_resumed(server: FakeOpenAI, tmp_path: Path):
    """Over all runs, for structured columns only."""
    server.configure(fault_prose=1, heals=True)
    recipe = graded(by_address(server.url))
    recipe.build(tmp_path / "out", 5, progress=False)
    result = recipe.build(tmp_path / "out", 8, resume="always", progress=False)
    told = {column["name"]: column["structured"] for column in result.metadata["columns"]}
    assert told == {"n": None, "grade": {"native": 8, "repaired": 0, "reasked": 8, "failed": 0}}
    assert result.structured_by_column == {"grade": StructuredCounts(native=8, reasked=8)}
    assert read_result(tmp_path / "out").structured_by_column == result.structured_by_column
    assert dict(result.report.lines())["json"] == "grade: 3 asked again"
    jsonschema_rs.validator_for(json_schema()).validate(result.metadata)


def test_functions_may_answer_in_prose_too():
    """Repairs and reasks do not depend on the provider."""
    asked: list[list[dict[str, Any]]] = []

    def judge(messages: list[dict[str, Any]]) -> str:
        asked.append(messages)
        return "I say: {score: 3, verdict: 'good',}" if len(messages) > 1 else "Hm."

    result, told = previewed(graded(rl.Model(judge)), 1)
    assert told == StructuredCounts(repaired=1, reasked=1)
    assert result.dataset["grade"][0] == {"score": 3, "verdict": "good"}
    assert len(asked) == 2


@pytest.mark.parametrize("reasks", [-1, 1.5, "x", None])
def test_reasks_is_a_whole_number(reasks: object):
    """From 0 on."""
    with pytest.raises(rl.RecipeError, match=r"Structured\('s'\)\.reasks"):
        rl.Structured("s", model="m", prompt="p", schema={}, reasks=reasks)  # type: ignore[arg-type]
