"""YAML text: scalars as YAML 1.2's core schema has them, mistakes with their line, and bounded expansion."""

from __future__ import annotations

import math
import time
from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given, settings

import rowloop as rl
from rowloop.engine.yaml_text import read_yaml, write_yaml

SCALARS: list[tuple[str, Any]] = [
    *((word, word) for word in ("yes", "no", "on", "off", "Yes", "NO", "y", "n", "tRUE", "nUll")),
    *((text, text) for text in ("1:30", "12:30:45", "2020-01-01", "2001-12-14t21:59:43.10-05:00", "1_000", "0b11")),
    *((text, text) for text in ("0o8", "0xg", "+0x1", "-0o1", ".", "+", "1e", "e3", "=", "infinity", "nan", ".Nan")),
    *((text, True) for text in ("true", "True", "TRUE")),
    *((text, False) for text in ("false", "False", "FALSE")),
    *((text, None) for text in ("null", "Null", "NULL", "~", "")),
    ("010", 10), ("0o10", 8), ("0x1F", 31), ("-7", -7), ("+7", 7), ("0", 0), ("007", 7),
    ("18446744073709551615", 2**64 - 1), ("-9223372036854775808", -(2**63)),
    ("1e3", 1000.0), ("1E-3", 0.001), (".5", 0.5), ("5.", 5.0), ("-1.5e+2", -150.0), ("1.0", 1.0),
    (".inf", math.inf), ("-.INF", -math.inf), ("+.Inf", math.inf),
    ("!!str 5", "5"), ('!!int "5"', 5), ("!!float 1", 1.0), ("'5'", "5"), ('"true"', "true"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_a_scalar_has_the_value_of_the_core_schema(text: str, value: Any):
    """Its type too: True is not 1, and 1.0 is not 1."""
    found = read_yaml(f"a: {text}\n")["a"]
    assert (found, type(found)) == (value, type(value))
    assert read_yaml(write_yaml({"a": value})) == {"a": value}


def test_not_a_number_is_read():
    """In its three spellings."""
    assert all(math.isnan(value) for value in read_yaml("[.nan, .NaN, .NAN]"))


LOOKALIKES = st.text("+-0123456789.eExoXyYnNtTrRuUlL:_~ #\"'\n", max_size=8)
PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | LOOKALIKES
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(LOOKALIKES, inner, max_size=4),
    max_leaves=12,
)


def types_of(value: Any) -> Any:
    """Return a value with each scalar replaced by its type and repr, because True equals 1 and 1.0 equals 1."""
    if isinstance(value, dict):
        return {key: types_of(part) for key, part in value.items()}
    if isinstance(value, list):
        return [types_of(part) for part in value]
    return type(value), repr(value)


@given(st.dictionaries(LOOKALIKES, PLAIN, max_size=4))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back_the_same(data: dict[str, Any]):
    """Also text that looks like a number, a truth value or nothing."""
    assert types_of(read_yaml(write_yaml(data))) == types_of(data)


@given(LOOKALIKES)
@settings(max_examples=60, deadline=None)
def test_text_that_is_written_is_text_to_readers_of_yaml_1_1_as_well(text: str):
    """What either version takes for another type is quoted."""
    assert yaml.safe_load(write_yaml({"a": text})) == {"a": text}


DEEP = 5_000
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefghijklmnopqrs", "bcdefghijklmnopqrst", strict=True)
)
MAPPINGS = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{{', '.join(f'{key}: *{before}' for key in 'uvwxyz')}}}\n"
    for before, name in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)
TWICE = "appears twice in one mapping, first in"
REFUSED: dict[str, tuple[str, str]] = {
    "a key twice": ("a: 1\nb: 2\na: 3\n", f"the key 'a' {TWICE} line 1 (line 3)"),
    "a key twice, deeper": ("a:\n  b: 1\n  'b': 2\n", f"the key 'b' {TWICE} line 2 (line 3)"),
    "a key twice, in flow": ("a: {b: 1, b: 2}\n", f"the key 'b' {TWICE} line 1 (line 1)"),
    "a number twice": ("a: {010: x, 10: y}\n", f"the key 10 {TWICE} line 1 (line 1)"),
    "a merge": ("a: &a {b: 1}\nc:\n  <<: *a\n", "merge keys (<<) are not part of YAML 1.2; write the"),
    "a list as a key": ("? [a]\n: 1\n", "a key is text or a number, not a list or a mapping (line 1)"),
    "lists without end": (f"a: {'[' * DEEP}\n", "it is nested deeper than 100 levels (line 1)"),
    "mappings without end": (f"a: {'{a: ' * DEEP}\n", "it is nested deeper than 100 levels (line 1)"),
    "dashes without end": (f"a:\n{'- ' * DEEP}\n", "it is nested deeper than 100 levels (line 2)"),
    "a bomb of lists": (BOMB, "aliases repeat more than 100,000 values (line"),
    "a bomb of mappings": (MAPPINGS, "aliases repeat more than 100,000 values (line"),
    "long text, repeated": (f"a: &a {'x' * 100_000}\nb: [{'*a,' * 100}]\n", "aliases repeat more than 100,000 values"),
    "an alias in itself": ("a: &a [*a]\n", "an alias contains itself (line 1)"),
    "an alias of nothing": ("a: *b\n", "found undefined alias 'b' (line 1)"),
    "digits": (f"a: {'9' * 5000}\n", "the number 99999999999999999999... has 5,000 digits; "),
    "hexadecimal digits": (f"a: 0x{'f' * 5000}\n", "the number 0xffffffffffffffffff... has 5,002 digits; "),
    "a tag": ("a: !!set {b}\n", "could not determine a constructor for the tag 'tag:yaml.org,2002:set' (line 1)"),
    "a false tag": ("a: !!int x\n", "'x' does not have the type of its tag (line 1)"),
    "a tag on a list": ("a: !!str [b]\n", "could not determine a constructor for the tag 'tag:yaml.org,20"),
    "two documents": ("a: 1\n---\na: 2\n", "but found another document (line 2)"),
    "a null character": ("a: \0\n", "unacceptable character #x0000: special characters are not allowed"),
    "half a character": ("a: \ud800\n", "unacceptable character #xd800: special characters are not allowed"),
    "too much": ("#" * 10_000_001 + "\n", "it has 10,000,002 characters; at most 10,000,000 are read"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_meant_is_refused_with_its_line_and_at_once(kind: str):
    """In one line, and within a second where a walk of all values would take years."""
    text, problem = REFUSED[kind]
    begun = time.process_time()
    with pytest.raises(rl.RecipeError) as caught:
        rl.Recipe.from_yaml(text)
    assert time.process_time() - begun < 1
    assert str(caught.value).startswith(f"the recipe is not YAML: {problem}")
    assert "\n" not in str(caught.value)


def test_aliases_repeat_what_they_name():
    """Within bounds."""
    models = "models: {m: &m {spec: openai:x, max_tokens: 5}, n: *m}\n"
    text = f"{models}columns: [{{type: category, name: a, values: [yes, 010]}}]\n"
    recipe = rl.Recipe.from_yaml(text)
    assert recipe.models["m"] == recipe.models["n"]
    assert recipe.to_dict()["columns"][0]["values"] == ["yes", 10]
    assert "*" not in recipe.to_yaml()


def test_a_path_that_cannot_be_one_is_refused_by_name():
    """With a null character, half of a character, or too long."""
    for path in ("a\0b", "a\ud800b", "a" * 10_000):
        with pytest.raises(rl.RecipeError, match=r"^cannot read the recipe "):
            rl.Recipe.from_yaml(path)
