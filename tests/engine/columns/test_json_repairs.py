"""JSON repairs: which JSON is found in an answer, and what is left alone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import rowloop as rl
from rowloop.engine.columns.schemas import DisobedientError, JsonReader

NOTE: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": ["integer", "string", "null", "boolean", "array"]}, "b": {}},
    "required": ["a"],
    "additionalProperties": False,
}


def repaired(text: str, schema: dict[str, Any] | None = None) -> Any:
    """Read an answer that is not JSON as it stands, or does not obey."""
    reader = JsonReader(NOTE if schema is None else schema)
    with pytest.raises(DisobedientError) as caught:
        reader.read(text)
    return asyncio.run(reader.repair(caught.value))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```\n{"a": 1}```', {"a": 1}),
        ('``` json\n{"a": 1}', {"a": 1}),
        ('Sure! {"a": 1} I hope that helps.', {"a": 1}),
        ('As in [1] and {this}: {"a": 1}. See [2].', {"a": 1}),
        ('{"thought": {"a": 5}} and so {"a": 1}', {"a": 1}),
        ('{"a": 1}\n\n{"a": 2}', {"a": 1}),
        ('Not {"a": 1} but\n```json\n{"a": 2}\n```', {"a": 2}),
        ('```python\nprint()\n```\n{"a": 1}', {"a": 1}),
        ('{"a": "```"} is it', {"a": "```"}),
        ("{'a': 'x',}", {"a": "x"}),
        ("{a: True, b: None}", {"a": True, "b": None}),
        ('{"a": 1', {"a": 1}),
        ('{"a": ["x", "y"', {"a": ["x", "y"]}),
        ('{"a": "she said "no" to me"}', {"a": 'she said "no" to me'}),
        ('{"a": 1 "b": 2}', {"a": 1, "b": 2}),
        ('{"a": "two\nlines"}', {"a": "two\nlines"}),
        ('{"a": 1} // so it is', {"a": 1}),
        ('```json\n{"a": 1,}\n``` or so', {"a": 1}),
        ('Result: {"x": 1,} or {"a": 2,}', {"a": 2}),
    ],
    ids=lambda text: repr(text)[:40],
)
def test_json_is_found_and_repaired(text: str, value: Any):
    """Fences, prose, several pieces, and the slips that models make."""
    assert repaired(text) == value


@pytest.mark.parametrize(
    ("text", "schema", "problem"),
    [
        ("", NOTE, "it is not JSON: "),
        ("I cannot do that.", {}, "it is not JSON: "),
        ("yes", {"type": "string"}, "it is not JSON: "),
        ('{"a": 1.5}', NOTE, "a: 1.5 is not of types "),
        ('```\n{"a": 1.5}\n```', NOTE, "a: 1.5 is not of types "),
        ('{"b": 1', NOTE, '"a" is a required property'),
        ('{"a": [{"b": [1, "x"]}]}', {"additionalProperties": {"items": {"$ref": "#/$defs/x"}}, "$defs": {"x": {
            "additionalProperties": {"items": {"type": "integer"}}}}}, 'a.0.b.1: "x" is not of type "integer"'),
        ('{"a": "\\ud800"}', NOTE, "it is not JSON: "),
        ("{" * 100_000, {}, "it is not JSON: "),
        ("[" * 100_000, {}, "it is not JSON: "),
        ('{"a": "' * 100_000, {}, "it is not JSON: "),
    ],
    ids=lambda text: repr(text)[:40],
)  # fmt: skip
def test_an_answer_that_does_not_obey_is_not_changed(text: str, schema: dict[str, Any], problem: str):
    """The error says where the fault is, in one line, and quickly even for a runaway answer."""
    began = time.perf_counter()
    with pytest.raises(rl.ModelError) as caught:
        repaired(text, schema)
    assert isinstance(caught.value, DisobedientError)
    assert caught.value.problem.startswith(problem)
    assert len(str(caught.value)) < 700
    assert time.perf_counter() - began < 5


def test_a_long_answer_is_repaired_off_the_loop():
    """The loop keeps running meanwhile."""
    text = '{"a": "' + 'say "hi" ' * 5_000 + '", "b": [1, 2'
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    async def mend() -> Any:
        turning = asyncio.ensure_future(turn())
        reader = JsonReader(NOTE)
        with pytest.raises(DisobedientError) as caught:
            reader.read(text)
        try:
            return await reader.repair(caught.value)
        finally:
            turning.cancel()

    assert asyncio.run(mend())["b"] == [1, 2]
    assert turns > 2
