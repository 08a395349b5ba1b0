"""What a prompt's template sends over real HTTP: nothing where it renders to nothing, and the text of values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

import rowloop as rl

if TYPE_CHECKING:
    from fake_openai import FakeOpenAI

BODIES = [f"text {i}" for i in range(8)]
DATA = [{"body": body} for body in (*BODIES, None, " \n")]
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def made(server, *columns, data=DATA, **options):
    """Preview columns over a seed."""
    import pandas as pd  # noqa: PLC0415 - as users import it

    server.configure(record=len(data))
    model = rl.Model("openai:m", base_url=server.url, api_key=SecretStr("k"))
    recipe = rl.Recipe(models={"m": model}, columns=[rl.Seed(pd.DataFrame(data)), *columns])
    return recipe.preview(len(data), progress=False, **options)


def sent(server):
    """Return the messages of every request."""
    return [json.loads(request.body)["messages"] for request in server.requests()]


@pytest.mark.parametrize("more", [{}, {"system": "Be kind."}, {"images": ["photo"]}])
def test_a_prompt_that_renders_to_nothing_is_not_sent(server: FakeOpenAI, more):
    """The cell fails once, with its kind, and costs nothing."""
    data = [{**row, "photo": []} for row in DATA]
    answer = rl.Text("answer", model="m", prompt="{{ body }}", on_error="null", **more)
    result = made(server, answer, data=data)
    assert list(result.failures["error"]) == ["ModelError(empty_prompt)"] * 2
    assert list(result.failures["attempts"]) == [1, 1]
    assert sorted(messages[-1]["content"] for messages in sent(server)) == BODIES


@pytest.mark.parametrize(
    "empty", ["", " \n", "{# a comment #}", "{{ '' }}", "{% if false %}x{% endif %}", "{{ none }} "]
)
def test_a_prompt_that_is_always_empty_is_refused(empty):
    """When its column is made, with the field's name: no row could be sent."""
    with pytest.raises(rl.RecipeError, match=r"^Text\('a'\): prompt is empty, so nothing would be sent$"):
        rl.Text("a", model="m", prompt=empty)
    with pytest.raises(rl.RecipeError, match=r"^Structured\('a'\): prompt is empty"):
        rl.Structured("a", model="m", prompt=empty, system="x", schema={"type": "integer"})
    with pytest.raises(rl.RecipeError, match=r"^Embedding\('a'\): text is empty"):
        rl.Embedding("a", model="m", text=empty)
    assert rl.Text("a", model="m", prompt=empty, images=["photo"]).images == ["photo"]
    assert rl.Text("a", model="m", prompt="x", system=empty).system == empty
    assert rl.Expression("a", empty).template == empty


def test_an_image_is_a_prompt(server: FakeOpenAI):
    """It is sent without an empty text beside it."""
    data = [{"body": None, "photo": PIXEL}]
    made(server, rl.Text("answer", model="m", prompt="{{ body }}", images=["photo"]), data=data)
    assert [part["type"] for part in sent(server)[0][-1]["content"]] == ["image_url"]


def test_a_system_message_that_renders_to_nothing_is_left_out(server: FakeOpenAI):
    """Endpoints refuse an empty one."""
    made(server, rl.Text("answer", model="m", prompt="x", system="{{ body }}"))
    assert sorted(len(messages) for messages in sent(server)) == [1] * 2 + [2] * 8


def test_an_empty_text_is_not_embedded(server: FakeOpenAI):
    """The same failure."""
    result = made(server, rl.Embedding("vector", model="m", text="{{ body }}", on_error="null"))
    assert list(result.failures["error"]) == ["ModelError(empty_prompt)"] * 2
    assert len(server.requests()) == len(BODIES)


def test_null_is_sent_as_nothing_and_a_key_before_a_method(server: FakeOpenAI):
    """As the table has it."""
    data = [{"body": None, "order": {"items": "2 apples"}}]
    made(server, rl.Text("answer", model="m", prompt="<{{ body }}> {{ order.items }}"), data=data)
    assert sent(server)[0][0]["content"] == "<> 2 apples"


def test_a_method_in_a_prompt_is_a_failure_of_the_cell(server: FakeOpenAI):
    """Nothing is sent, and the failure names the path."""
    data = [{"order": {"a": 1}}, {"order": {"a": 2}}]
    result = made(server, rl.Text("answer", model="m", prompt="{{ order.keys }}", on_error="null"), data=data)
    assert all("order.keys is a method" in message for message in result.failures["message"])
    assert server.requests() == []


def test_what_is_random_in_a_prompt_is_the_same_when_a_run_resumes(server: FakeOpenAI, tmp_path):
    """Whatever the row groups: an expression made again has the value that its row's prompt had."""
    server.configure(record=200)
    model = rl.Model("openai:m", base_url=server.url, api_key=SecretStr("k"))
    dice = rl.Expression("die", "{{ range(1000)|list|random }}")
    text = rl.Text("text", model="m", prompt="{{ number }}: {{ range(1000)|list|random }}", system="{{ die }}")
    number = rl.Uniform("number", 0, 10**9, decimals=0)
    recipe = rl.Recipe(models={"m": model}, columns=[number, dice, text], seed=5)
    whole = recipe.preview(40, progress=False).dataset
    prompts = sorted(str(messages) for messages in sent(server))
    recipe.build(tmp_path / "a", 10, row_group_size=3, progress=False)
    grown = recipe.build(tmp_path / "a", 40, resume="always", progress=False).dataset
    other = recipe.preview(40, row_group_size=7, engine="sequential", progress=False).dataset
    assert list(grown["die"]) == list(other["die"]) == list(whole["die"])
    assert len(set(whole["die"])) > 30
    assert sorted(str(messages) for messages in sent(server)) == sorted(prompts * 3)


def test_what_is_random_follows_seed_and_column():
    """Columns and recipes do not share their draws, and a processor, which has no rows of its own, has none."""

    def drawn(seed):
        columns = [rl.Expression(name, "{{ range(1000)|list|random }}") for name in ("a", "b")]
        table = rl.Recipe(columns=columns, seed=seed).preview(50, progress=False).dataset
        return [tuple(table["a"]), tuple(table["b"])]

    assert len({*drawn(1), *drawn(2)}) == 4
    assert drawn(1) == drawn(1)
    with pytest.raises(ValueError, match="draw in an Expression column"):
        rl.SchemaTransform({"x": "{{ [1, 2]|random }}"})


@pytest.mark.parametrize("template", ["{{ [rows]|map('random')|first }}", "{{ lipsum(1, false) }}", "{{ lipsum() }}"])
def test_everything_random_follows_the_row(template):
    """By whatever way it is drawn."""

    def drawn(size):
        recipe = rl.Recipe(columns=[rl.Category("rows", ["abcdefghijklmnop"]), rl.Expression("x", template)], seed=1)
        return list(recipe.preview(20, row_group_size=size, progress=False).dataset["x"])

    assert drawn(3) == drawn(20)
    assert len(set(drawn(3))) > 5
