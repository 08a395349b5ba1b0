"""Identity: a change that makes another dataset is found and shown, and any other change is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pandas as pd
import pytest

import rowloop as rl
from rowloop.engine.compiler.identity import differences, fingerprint
from rowloop.engine.datasets.journal_records import encode

if TYPE_CHECKING:
    from collections.abc import Mapping


def one(n: int) -> int:
    """Return a number."""
    return n + 1


def other(n: int) -> int:
    """Return another."""
    return n + 2


class Kept(rl.Processor):
    """Change nothing."""

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:  # noqa: ARG002 - a processor's
        return frame


def recipe(**changes: Any) -> rl.Recipe:
    """Make a recipe, or one that differs in something."""
    function = changes.pop("function", one)
    text = {"prompt": "about {{ n }}", **changes.pop("text", {})}
    return rl.Recipe(
        models={"m": rl.Model("openai:m", **{"base_url": "http://localhost:1/v1", **changes.pop("model", {})})},
        columns=[
            rl.Seed(changes.pop("data", pd.DataFrame({"n": [1, 2, 3]}))),
            rl.Category("topic", changes.pop("topics", ["math", "law"])),
            rl.Text("answer", model="m", **text),
            rl.cell(function, name="number"),
            *changes.pop("more", []),
        ],
        processors=changes.pop("processors", [Kept()]),
        **{"seed": 3, **changes},
    )


def identity(of: rl.Recipe) -> Mapping[str, Any]:
    """Return its identity."""
    return of._compile().identity


def stored(of: rl.Recipe) -> Any:
    """Return it as a journal restores it."""
    return msgspec.msgpack.decode(encode(identity(of)))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"text": {"prompt": "on {{ n }}"}}, ["columns.answer.prompt is 'on {{ n }}', and was 'about {{ n }}'"]),
        ({"text": {"system": "Brief."}}, ["columns.answer.system is new"]),
        ({"model": {"temperature": 0.5}}, ["models.m.temperature is new"]),
        ({"topics": ["math"]}, ["columns.topic.values is ['math'], and was ['math', 'law']"]),
        ({"seed": 4}, ["seed is 4, and was 3"]),
        ({"seed": None}, ["seed is None, and was 3"]),
        ({"function": other}, ["columns.number.code has changed"]),
        ({"data": pd.DataFrame({"n": [1, 2, 4]})}, ["columns.seed of n.data has changed"]),
        ({"data": pd.DataFrame({"n": [1.0, 2.0, 3.0]})}, ["columns.seed of n.data has changed"]),
    ],
)
def test_differences_are_shown_with_their_path(changes: dict[str, Any], shown: list[str]):
    """The new and the old value, or that code or data have changed."""
    assert list(differences(stored(recipe()), identity(recipe(**changes)))) == shown
    assert recipe(**changes).fingerprint != recipe().fingerprint


def test_new_removed_and_reordered_columns_are_named():
    """Each by its name."""
    more = recipe(more=[rl.Uniform("u", 0, 1)])
    came = list(differences(stored(recipe()), identity(more)))
    assert "columns.u is new" in came
    assert any(line.startswith("columns.order is ") for line in came)
    assert "columns.u is gone" in list(differences(stored(more), identity(recipe())))


def test_processors_count_by_their_fields_and_their_code():
    """Another processor, and a class of the same name with other code."""
    found = list(differences(stored(recipe()), identity(recipe(processors=[rl.DropColumns(["topic"])]))))
    assert [line.partition(" ")[0] for line in found] == ["processors"]

    class Kept(rl.Processor):
        """The same name, and other code."""

        def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:  # noqa: ARG002 - a processor's
            return frame.head(1)

    changed = recipe(processors=[Kept()])
    assert list(differences(stored(recipe()), identity(changed)))


@pytest.mark.parametrize(
    "model",
    [
        {"base_url": "http://localhost:2/v1"}, {"max_parallel": 1}, {"timeout": 3.0}, {"api_key": "sk-1"},
        {"api_key_env": "SOME_KEY"}, {"price": rl.Price(1, 2)},
    ],
    ids=lambda model: next(iter(model)),
)  # fmt: skip
def test_how_a_model_is_called_does_not_count(model: dict[str, Any]):
    """Its address, key, concurrency, timeout and price."""
    assert list(differences(stored(recipe()), identity(recipe(model=model)))) == []
    assert recipe(model=model).fingerprint == recipe().fingerprint


def test_an_identity_survives_a_journal():
    """Written and read back, it is equal."""
    same = recipe(topics=[("a", 1), None, 2.5], text={"on_error": "null"})
    assert list(differences(stored(same), identity(same))) == []
    assert fingerprint(stored(same)) == same.fingerprint


def test_no_key_is_in_an_identity():
    """Nor in its hash's input."""
    assert "sk-do-not-tell" not in str(stored(recipe(model={"api_key": "sk-do-not-tell"})))
