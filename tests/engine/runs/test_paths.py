"""Paths of a run are those of the working directory at its call, wherever the process works later."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import rowloop as rl

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory with another one beside it, which has a dataset of the same name."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "there")
    rl.Recipe(columns=[rl.Uniform("mine")], seed=1).build("out", 2, progress=False)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def leaving(here: Path) -> rl.Recipe:
    """Make a recipe that changes the working directory at its second row."""

    @rl.cell
    def place(row: int) -> str:
        if row == 1:
            os.chdir(here.parent / "there")
        return os.getcwd()  # noqa: PTH109 - as users write it

    return rl.Recipe(
        models={"m": rl.Model(lambda prompt: prompt)},
        columns=[rl.Seed([{"row": n} for n in range(6)]), rl.Text("t", model="m", prompt="{{ row }}"), place],
    )


def names(path: Path) -> set[str]:
    """Name what is in a directory."""
    return {entry.name for entry in path.iterdir()}


def test_a_run_writes_where_it_was_told_when_it_was_called(here: Path):
    """Its parts, its metadata and its response cache; another dataset of the same name elsewhere is untouched."""
    before = {file: file.read_bytes() for file in (here.parent / "there").rglob("*") if file.is_file()}
    result = leaving(here).build("out", 6, row_group_size=1, cache="replies.sqlite", progress=False)
    assert (result.status, result.path) == ("complete", here / "out")
    assert result.dataset["t"].tolist() == [str(n) for n in range(6)]
    assert names(here) >= {"out", "replies.sqlite"}
    assert len(names(here / "out/data")) == 6
    assert {file: file.read_bytes() for file in (here.parent / "there").rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_seed_is_that_of_the_directory_in_which_the_run_was_called(here: Path, suffix: str):
    """Also for a run in the background that has not opened it yet, and for one that reads it to its end elsewhere."""
    for folder, text in ((here, "mine"), (here.parent / "there", "another's")):
        frame = pd.DataFrame({"row": range(6), "whose": [text] * 6})
        write = {"csv": frame.to_csv, "jsonl": partial(frame.to_json, orient="records", lines=True)}
        write.get(suffix, frame.to_parquet)(folder / f"seed.{suffix}", **({"index": False} if suffix == "csv" else {}))

    @rl.cell
    def place(row: int) -> str:
        if row == 1:
            os.chdir(here.parent / "there")
        return os.getcwd()  # noqa: PTH109 - as users write it

    run = rl.Recipe(columns=[rl.Seed(f"seed.{suffix}"), place]).start("out", row_group_size=1, progress=False)
    os.chdir(here.parent)
    assert run.result(20).dataset["whose"].tolist() == ["mine"] * 6
    assert names(here) == {"out", f"seed.{suffix}"}


def test_the_stages_of_a_workflow_are_beside_each_other(here: Path):
    """The first stage changes the working directory."""
    second = rl.Recipe(columns=[rl.Seed(columns=["row"]), rl.Expression("line", "row {{ row }}")])
    stages: list[Any] = [rl.Stage("first", leaving(here), rows=6), rl.Stage("second", second)]
    results = rl.Workflow(stages).build("flow", progress=False)
    assert [result.path for result in results] == [here / "flow/first", here / "flow/second"]
    assert results[-1].dataset["line"].tolist() == [f"row {n}" for n in range(6)]


def test_messages_show_a_path_below_the_working_directory_as_it_was_written(
    here: Path, caplog: pytest.LogCaptureFixture
):
    """The log says where the dataset is, and the error names it, without the way to it."""
    recipe = rl.Recipe(columns=[rl.Uniform("u")], seed=1)
    with caplog.at_level("INFO"):
        recipe.build("out", 2, progress=False)
    assert "\n  written to out" in caplog.text
    with pytest.raises(rl.RecipeError, match=r"'out' has a dataset already"):
        recipe.build("out", 2, progress=False)
    assert here.name == "here"
