"""Fuzz: whatever is passed to a public name, a recipe file or the command line, the error is ours, and comes soon."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import io
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import SecretStr

import rowloop as rl
from rowloop.adapters.cli.commands import main
from rowloop.engine.core.errors import shown
from rowloop.engine.runs.settings import RunOptions
from rowloop.engine.yaml_text import write_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "stress"
pytestmark = [pytest.mark.stress] if LONG else []


LONGEST = 2.0
"""Seconds that a case may take."""


def cases(short: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run `short` cases, always the same; ten times as many, and others each time, in `make stress`."""
    chosen = settings(
        max_examples=short * 10 if LONG else short,
        derandomize=not LONG,
        deadline=None,  # `timely` measures in its place
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )
    return lambda test: chosen(timely(test))


def timely(case: Callable[..., None]) -> Callable[..., None]:
    """Fail a case that takes over two seconds, as a user feels it.

    The processor time is the same on a busy machine. A wait uses none, so the wall time has a limit as well, which
    grows with the number of processes that want to run: they may be what the case waits for.
    """

    @functools.wraps(case)
    def timed(*args: object, **kwargs: object) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        case(*args, **kwargs)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        assert processor < LONGEST, f"used the processor for {processor:.1f} s"
        assert wall < LONGEST * max(1.0, os.getloadavg()[0]), f"took {wall:.1f} s"

    return timed


@dataclass(frozen=True)
class Odd:
    """A value to pass. Hypothesis shows a failing case by its repr, and cannot walk 5,000 lists in each other."""

    value: Any

    def __repr__(self) -> str:
        """Show the beginning."""
        return f"Odd({shown(self.value, 200)})"


def circle() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


def nested(levels: int, *, bomb: bool = False) -> Any:
    """Return lists in each other, or a few that stand for very many values."""
    value: Any = "x"
    for _ in range(levels):
        value = [value] * (9 if bomb else 1)
    return value


HOSTILE: st.SearchStrategy[Odd] = st.sampled_from(
    list(map(Odd,
    [
        None, True, 0, -1, 1, 2**63, 2**64, 10**30, -(10**30), 10**5000, math.nan, math.inf, -math.inf, 1e308, -0.0,
        "", " ", "\0", "\ud800", "a\nb", "{{", "{{ a }}", "{% for", "{{ a.b.c }}", "http://[", "python:f", ":", "a:",
        "nope:x", "../..", "x" * 50_000, b"\xff", [], {}, (), [None], [[]], [""], {"": ""}, {1: 2}, {None: None},
        {"type": "object"}, {"$ref": "http://127.0.0.1:9/"}, {"$ref": "#"}, {"a": "\ud800"}, {"a": math.nan}, set(),
        object(), len, int, rl.Model, circle(), nested(5000), nested(40, bomb=True), {"a": nested(150)}, SecretStr("x"),
        range(3), pd.DataFrame(), pd.DataFrame({"a": [1]}), lambda a: a, lambda: 1,
    ]))
)  # fmt: skip
ANY = HOSTILE | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
).map(Odd)

RIGHT: dict[str, dict[str, Any]] = {
    "Category": {"name": "c", "values": ["a", "b"]},
    "DropColumns": {"columns": ["c"]},
    "Embedding": {"name": "e", "model": "m", "text": "{{ c }}"},
    "ErrorBudget": {},
    "Expression": {"name": "x", "template": "{{ c }}"},
    "Model": {"spec": "openai:m"},
    "Price": {"prompt": 1.0, "completion": 2.0},
    "Recipe": {"columns": [rl.Uniform("u")]},
    "RetryPolicy": {},
    "SchemaTransform": {"template": {"a": "{{ c }}"}},
    "Seed": {"data": pd.DataFrame({"a": [1, 2]})},
    "Stage": {"name": "s", "recipe": rl.Recipe(columns=[rl.Uniform("u")]), "rows": 2},
    "Structured": {"name": "s", "model": "m", "prompt": "p", "schema": {"type": "object"}},
    "Text": {"name": "t", "model": "m", "prompt": "p"},
    "Uniform": {"name": "u"},
    "Validate": {"name": "v", "columns": ["c"], "sql": "c > 1"},
    "Workflow": {"stages": [rl.Stage("s", rl.Recipe(columns=[rl.Uniform("u")]), rows=2)]},
    "batch": {"name": "f"},
    "cell": {"name": "f"},
}
"""Right arguments of every public name that users call to describe something."""


def fields_of(name: str) -> list[str]:
    """Return the names of the parameters of a public name."""
    return [parameter for parameter in inspect.signature(getattr(rl, name)).parameters if parameter != "args"]


def attempt(call: Callable[[], object]) -> object:
    """Call, and accept RowloopErrors of one line that can be written."""
    try:
        return call()
    except rl.RowloopError as error:
        message = str(error)
    assert message.encode()
    assert "\n" not in message
    assert len(message) < 5000
    return None


@given(st.data(), st.sampled_from(sorted(RIGHT)))
@cases(190)
def test_whatever_describes_a_table_works_or_is_refused(data: st.DataObject, name: str):
    """One or two arguments of a right call are replaced; the recipe with the result can be described."""
    wrong = data.draw(st.lists(st.sampled_from(fields_of(name)), min_size=1, max_size=2, unique=True))
    given_arguments = {**RIGHT[name], **{field: data.draw(ANY).value for field in wrong if field != "function"}}
    made = attempt(lambda: getattr(rl, name)(**given_arguments))
    if made is None or name in {"batch", "cell"}:
        return
    assert repr(made)
    parts: dict[str, Any] = {"models": {"m": "openai:m"}, "columns": [rl.Category("c", ["a"])]}
    if name == "Model":
        parts["models"] = {"m": made}
    elif name in {"DropColumns", "SchemaTransform"}:
        parts["processors"] = [made]
    elif hasattr(made, "expand"):
        parts["columns"] = [*(parts["columns"] if name != "Category" else []), made]
    recipe = made if isinstance(made, rl.Recipe) else attempt(lambda: rl.Recipe(**parts))
    if isinstance(recipe, rl.Recipe):
        attempt(lambda: (recipe.fingerprint, recipe.to_yaml(), repr(recipe)))


FILE: dict[str, Any] = {
    "seed": 7,
    "models": {"m": {"spec": "openai:m", "base_url": "http://h/v1", "extra": {"a": 1},
                     "price": {"prompt": 1, "completion": 2}}},
    "columns": [
        {"name": "c", "type": "category", "values": ["a", "b"], "weights": [1, 2]},
        {"name": "u", "type": "uniform", "low": 1, "high": 2},
        {"name": "t", "type": "text", "model": "m", "prompt": "{{ c }}", "stop": ["x"]},
        {"name": "s", "type": "structured", "model": "m", "prompt": "{{ t }}",
         "schema": {"type": "object", "properties": {"a": {}}}},
        {"name": "e", "type": "expression", "template": "{{ s.a }}"},
    ],
    "processors": [{"type": "drop_columns", "columns": ["u"]}],
}  # fmt: skip


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all parts of plain data."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in below for place in places_in(part, (*path, key)))]


PLACES = places_in(FILE)


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy with another value at a path."""
    if not path:
        return new
    if isinstance(value, dict):
        return {key: changed(part, path[1:], new) if key == path[0] else part for key, part in value.items()}
    return [changed(part, path[1:], new) if i == path[0] else part for i, part in enumerate(value)]


@given(st.sampled_from(PLACES), ANY)
@cases(90)
def test_a_recipe_as_plain_data_works_or_is_refused(place: tuple[Any, ...], new: Odd):
    """One part of a right one is replaced."""
    recipe = attempt(lambda: rl.Recipe.from_dict(changed(FILE, place, new.value)))
    if isinstance(recipe, rl.Recipe):
        attempt(recipe.to_yaml)


TEXT = write_yaml(FILE)
PIECES = st.text(max_size=3) | st.sampled_from(
    ["&a ", "*a", "<<: ", "? ", "- " * 300, "[" * 300, "{a: " * 300, "!!python/object:os.x ",
     "\t", "'", '"', "|", ">", "\0",
     "%YAML 1.1\n", "---\n", "...\n", "9" * 5000, ": ", "\ufeff", "\u2028", "@",
     "`", "!", "0x", "1e999", ".nan", "\ud800"]
)  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 20), PIECES), min_size=1, max_size=3))
@cases(60)
def test_a_recipe_as_text_works_or_is_refused(edits: list[tuple[int, int, str]]):
    """A few places of a right one are cut and filled with something else."""
    text = TEXT
    for at, cut, piece in edits:
        text = f"{text[:at]}{piece}{text[at + cut :]}"
    recipe = attempt(lambda: rl.Recipe.from_yaml(text + "\n"))
    if isinstance(recipe, rl.Recipe):
        attempt(recipe.to_yaml)


@given(
    st.sampled_from(["rows", "min_completion", "retry", "stall_after", "trace", "engine", "max_cost", "on_part"]), ANY
)
@cases(30)
def test_an_option_of_a_run_works_or_is_refused(option: str, odd: Odd):
    """Nothing but small runs are done."""
    value = odd.value
    if option == "rows" and isinstance(value, int) and 1000 < value <= 10**12:
        value = 3
    options: dict[str, Any] = {"rows": 2, "progress": False, option: value}
    attempt(lambda: rl.Recipe(columns=[rl.Uniform("u")]).preview(**options))


def simple() -> rl.Recipe:
    """Return a recipe that makes rows at once."""
    return rl.Recipe(columns=[rl.Uniform("u")], seed=1)


PATHS = HOSTILE | st.sampled_from(
    ["out", "out/", "file", "file/out", "~nobody/out", "a/" * 3000, "a" * 300, "out\n", "out\x1b[1m", "./out/../out",
     Path("out"), Path(), Path("file")]
).map(Odd)  # fmt: skip
OPTIONS = sorted(RunOptions.__annotations__)
WAYS: dict[str, Callable[..., object]] = {
    "build": lambda path, **options: simple().build(path, 2, **options),
    "abuild": lambda path, **options: rl.run_sync(simple().abuild(path, 2, **options), 10),
    "start": lambda path, **options: simple().start(path, 2, **options).result(10),
    "preview": lambda _, **options: simple().preview(2, **options),
    "workflow": lambda path, **options: rl.Workflow(RIGHT["Workflow"]["stages"]).build(path, **options),
    "workflow preview": lambda _, **options: rl.Workflow(RIGHT["Workflow"]["stages"]).preview(2, **options),
}
"""The ways to run a recipe."""


@given(st.data(), st.sampled_from(sorted(WAYS)), PATHS)
@cases(50)
def test_a_run_works_or_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, way: str, odd: Odd):
    """With any path and any options, on any of the ways; what it wrote can be run over, and resumed."""
    path = odd.value
    drawn = data.draw(st.dictionaries(st.sampled_from(OPTIONS), ANY, max_size=2))
    given_options = {name: option.value for name, option in drawn.items()}
    if given_options.get("runtime") is not None:
        given_options.pop("runtime")
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "file").write_text("x")
    with contextlib.chdir(folder):
        made = attempt(lambda: WAYS[way](path, **{"progress": False, **given_options}))
        if made is not None and "preview" not in way:
            attempt(lambda: WAYS[way](path, progress=False, overwrite=True))
            assert attempt(lambda: WAYS[way](path, progress=False, resume="always")) is not None


@given(PATHS, st.integers(0, 2))
@cases(20)
def test_what_a_result_gives_works_or_is_refused(tmp_path_factory: pytest.TempPathFactory, odd: Odd, rows: int):
    """Each property and method; a path that cannot be written is named."""
    result = simple().preview(rows or 1, trace=bool(rows), progress=False)
    with contextlib.chdir(tmp_path_factory.mktemp("fuzz")):
        attempt(lambda: result.export_trace(odd.value))
    for name in dir(rl.Result):
        if not name.startswith("_") and name != "export_trace":
            value = getattr(result, name)
            assert repr(value() if callable(value) else value)


@given(ANY, st.lists(ANY, max_size=2), ANY)
@cases(20)
def test_the_bridge_refuses_what_it_cannot_run(odd: Odd, arguments: list[Odd], odd_timeout: Odd):
    """A TypeError or a ValueError, as Python's own calls raise; never a hang."""
    called, timeout = odd.value, odd_timeout.value
    with pytest.raises(TypeError):
        rl.run_sync(called)
    if not callable(called):
        with pytest.raises(TypeError):
            rl.client(called, *(argument.value for argument in arguments))
    if not isinstance(timeout, int | float | None) or isinstance(timeout, bool) or timeout is None:
        timeout = -1
    with contextlib.suppress(TypeError, ValueError, TimeoutError, OverflowError):
        rl.run_sync(asyncio.sleep(0), timeout)


COMMANDS = {
    "run": ["recipe.yaml", "-o", "out"],
    "preview": ["recipe.yaml"],
    "schema": [],
}
FLAGS = [
    *("--output", "-o", "--rows", "-n", "--model", "--base-url", "--seed", "--row-group-size", "--resume", "--debug"),
    *("--retry-failed", "--overwrite", "--min-completion", "--max-cost", "--cache", "--quiet", "recipe", "metadata"),
]
GIVEN = st.sampled_from(
    ["", "0", "-1", "1", "3", "1e3", "nan", "inf", "9" * 400, "\ud800", "out", ".", "recipe.yaml", "/dev/null",
     "a" * 5000, "m=openai:x", "=", "http://[", "\x1b[1m", "[bold]", "--"]
) | st.text(st.characters(exclude_characters="\0"), max_size=4)  # fmt: skip


@given(st.sampled_from(sorted(COMMANDS)), st.lists(st.tuples(st.sampled_from(FLAGS), GIVEN), max_size=3))
@cases(40)
def test_a_command_with_odd_options_ends_with_a_status(
    tmp_path_factory: pytest.TempPathFactory, command: str, options: list[tuple[str, str]]
):
    """Whatever is passed to an option that it has, or has not."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "recipe.yaml").write_text("columns: [{name: u, type: uniform}]\n")
    given_arguments = [command, *COMMANDS[command], *(part for option in options for part in option)]
    errors = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = main(given_arguments)
    assert status in {0, 1, 2}
    assert "internal error" not in errors.getvalue()


ARGUMENTS = st.sampled_from(
    ["run", "preview", "schema", "recipe.yaml", "missing.yaml", ".", "-o", "out", "--rows", "-1", "10" * 300,
     "--nope", "--seed",
     "7", "--model", "m=", "m=openai:x", "=", "--base-url", "http://[", "--help",
     "--version", "\ud800", "", "--", "-", "--debug"]
) | st.text(st.characters(exclude_characters="\0"), max_size=5)  # fmt: skip


@given(st.lists(ARGUMENTS, max_size=5))
@cases(30)
def test_the_command_line_ends_with_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
):
    """One of those that the documentation lists, whatever it is passed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text("columns: [{name: u, type: uniform}]\n")
    try:
        status: object = main(arguments)
    except SystemExit as exit_:
        status = exit_.code
    assert status in {None, 0, 1, 2}
    assert "internal error" not in capsys.readouterr().err
