"""Processors: what they may change of whole frames, and how they fail."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import rowloop as rl
from rowloop.engine.datasets.parts import without_note

if TYPE_CHECKING:
    from pathlib import Path

    from fake_openai import FakeOpenAI


class Shout(rl.Processor):
    """Upper-case topics before they are used."""

    def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(topic=frame["topic"].str.upper())


class Halve(rl.Processor):
    """Drop every other row of a finished row group."""

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
        assert row_group >= 0
        return frame.iloc[::2]


class Raising(rl.Processor):
    """Raise in the stage that it was made for."""

    def __init__(self, stage: str) -> None:
        self.stage = stage

    def _maybe(self, frame: pd.DataFrame, stage: str) -> pd.DataFrame:
        if self.stage == stage:
            raise ValueError("on purpose")
        return frame

    def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self._maybe(frame, "before_batch")

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
        assert row_group >= 0
        return self._maybe(frame, "after_batch")

    def after_generation(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self._maybe(frame, "after_generation")


def a_recipe(*processors: Any, columns: tuple[Any, ...] = ()) -> rl.Recipe:
    """Two samplers and an expression over them."""
    base = [
        rl.Category("topic", ["math", "law"]),
        rl.Uniform("n", 1, 6, decimals=0),
        rl.Expression("line", "{{ topic }}:{{ n }}"),
    ]
    return rl.Recipe(columns=[*base, *columns], processors=processors, seed=7)


def test_before_batch_changes_what_other_columns_see() -> None:
    """A value changed in before_batch is the one that templates render."""
    frame = a_recipe(Shout()).preview(20, progress=False).dataset
    assert set(frame["topic"]) == {"MATH", "LAW"}
    assert (frame["line"] == frame["topic"] + ":" + frame["n"].astype(str)).all()


def test_before_batch_comes_before_columns_without_needs() -> None:
    """Even a column without needs waits, so that nothing is paid for if the processor refuses the rows."""
    seen = threading.Event()

    @rl.cell
    def constant() -> int:
        seen.set()
        return 1

    with pytest.raises(rl.DatasetProcessingError):
        a_recipe(Raising("before_batch"), columns=(constant,)).preview(3, progress=False)
    assert not seen.is_set()


@pytest.mark.parametrize("rows", [1, 30], ids=["fewer", "more"])
def test_before_batch_must_not_change_the_row_count(rows: int) -> None:
    """A changed row count, in either direction, is refused with both counts and the alternative."""

    class Resize(rl.Processor):
        def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
            return pd.concat([frame] * 3).head(rows)

    with pytest.raises(rl.DatasetProcessingError, match=rf"from 10 to {rows}.*after_batch") as caught:
        a_recipe(Resize()).preview(10, progress=False)
    assert isinstance(caught.value, rl.DatasetGenerationError)


def test_preview_and_build_agree_on_the_row_count(tmp_path: Path) -> None:
    """Both refuse with the same words."""

    class Shrink(rl.Processor):
        def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame.head(1)

    recipe = a_recipe(Shrink())
    with pytest.raises(rl.DatasetProcessingError) as in_preview:
        recipe.preview(10, progress=False)
    with pytest.raises(rl.DatasetProcessingError) as in_build:
        recipe.build(tmp_path, 10, progress=False)
    assert str(in_preview.value) == str(in_build.value)


def test_before_batch_must_not_change_the_columns() -> None:
    """A column more or less is refused by name, as no template could have been checked against it."""

    class Extra(rl.Processor):
        def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame.assign(more=1)

    with pytest.raises(rl.DatasetProcessingError, match=r"Extra\.before_batch.*more"):
        a_recipe(Extra()).preview(3, progress=False)


@pytest.mark.parametrize("stage", ["before_batch", "after_batch", "after_generation"])
@pytest.mark.parametrize("kind", ["preview", "build"])
def test_a_processor_that_raises_ends_the_run(stage: str, kind: str, tmp_path: Path) -> None:
    """The error names stage and processor, and keeps the cause."""
    recipe = a_recipe(Raising(stage))
    with pytest.raises(rl.DatasetGenerationError) as caught:
        recipe.preview(9, progress=False) if kind == "preview" else recipe.build(tmp_path, 9, progress=False)
    assert f"Raising.{stage}" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)
    if stage != "after_generation":
        assert caught.value.row_group == 0


def test_cells_inside_a_request_are_cancelled_before_the_error_leaves(server: FakeOpenAI, tmp_path: Path) -> None:
    """A coroutine inside an HTTP request sees CancelledError, the server the disconnect, and earlier parts stay."""
    cancelled: list[int] = []
    server.configure(fault_hang=1.0)

    @rl.cell(max_parallel=4)
    async def hanging(n: int, row: int) -> int:
        if row < 2:
            return n
        import aiohttp  # noqa: PLC0415 - for this function alone

        body = {"model": "m", "messages": [{"role": "user", "content": str(row)}]}
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{server.url}/chat/completions", json=body),
            ):
                return n
        except asyncio.CancelledError:
            cancelled.append(row)
            raise

    class FailLate(rl.Processor):
        def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
            if row_group == 1:
                server.wait_for(in_flight=2)
                raise ValueError("on purpose")
            return frame

    seed = rl.Seed(pd.DataFrame({"row": range(4), "n": range(4)}))
    recipe = rl.Recipe(columns=[seed, hanging], processors=[FailLate()])
    with pytest.raises(rl.DatasetProcessingError, match="row group 1"):
        recipe.build(tmp_path, 4, row_group_size=1, progress=False)
    assert sorted(cancelled) == [2, 3]
    assert server.wait_for(client_disconnects=2).in_flight == 0
    assert pq.read_table(tmp_path / "data" / "part-00000.parquet").num_rows == 1


def test_after_batch_may_change_rows_and_columns(tmp_path: Path) -> None:
    """Rows that after_batch removes are not in the parts; the counts are right, and the run is complete."""
    result = a_recipe(Halve(), lambda frame: frame.assign(twice=frame["n"] * 2)).build(
        tmp_path, 10, row_group_size=4, progress=False
    )
    assert (result.status, result.actual) == ("complete", 5)
    assert result.metadata["actual_num_records"] == 5
    assert (result.dataset["twice"] == result.dataset["n"] * 2).all()


def test_a_row_group_that_after_batch_empties_writes_no_part(tmp_path: Path) -> None:
    """No empty part is written, and the others can be read."""
    result = a_recipe(lambda frame, row_group: frame.head(0) if row_group == 1 else frame).build(
        tmp_path, 9, row_group_size=3, progress=False
    )
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["part-00000.parquet", "part-00002.parquet"]
    assert len(result.dataset) == 6


def test_types_that_processors_widen_are_widened_in_all_parts(tmp_path: Path) -> None:
    """Parts written before a processor's column became a float have the same schema as later ones."""
    recipe = a_recipe(lambda frame, row_group: frame.assign(x=[0.5 if row_group == 2 else 1] * len(frame)))
    recipe.build(tmp_path, 9, row_group_size=3, progress=False)
    schemas = {str(without_note(pq.read_schema(path))) for path in (tmp_path / "data").iterdir()}
    assert len(schemas) == 1
    assert "x: double" in schemas.pop()


def test_after_generation_sees_the_whole_table_and_its_rows_are_chunked_anew(tmp_path: Path) -> None:
    """The frame has all rows in order, and what it returns is written in parts of the row-group size."""
    lengths: list[int] = []

    class Sort(rl.Processor):
        def after_generation(self, frame: pd.DataFrame) -> pd.DataFrame:
            lengths.append(len(frame))
            return frame.sort_values("n").head(7)

    result = a_recipe(Sort()).build(tmp_path, 10, row_group_size=3, progress=False)
    assert lengths == [10]
    assert result.dataset["n"].is_monotonic_increasing
    assert [part["rows"] for part in result.metadata["parts"]] == [3, 3, 1]
    assert not (tmp_path / "data.new").exists()
    assert not (tmp_path / "data.old").exists()


def test_after_generation_that_fails_leaves_every_part_as_it_was(tmp_path: Path) -> None:
    """The rows that were paid for are still there, and the metadata has the status failed."""
    with pytest.raises(rl.DatasetProcessingError):
        a_recipe(Raising("after_generation")).build(tmp_path, 10, row_group_size=5, progress=False)
    assert sum(pq.read_table(path).num_rows for path in (tmp_path / "data").iterdir()) == 10
    assert '"status": "failed"' in (tmp_path / ".rowloop/metadata.json").read_text()


def test_drop_columns_leaves_columns_out_of_the_table() -> None:
    """A dropped column is used by others and not in the table."""
    frame = a_recipe(rl.DropColumns(["topic", "n"])).preview(3, progress=False).dataset
    assert frame.columns.tolist() == ["line"]


def test_schema_transform_writes_rows_of_another_shape() -> None:
    """Nested templates become nested values."""
    transform = rl.SchemaTransform({"messages": [{"role": "user", "content": "{{ line }}"}], "n": "{{ n }}"})
    row = a_recipe(transform).preview(1, progress=False).dataset.iloc[0]
    assert row["messages"][0]["content"].endswith(f":{row['n']}")


@pytest.mark.parametrize(
    "processor", [rl.DropColumns(["topik"]), rl.SchemaTransform({"x": "{{ topik }}"})], ids=["drop", "transform"]
)
def test_a_built_in_processor_of_an_unknown_column_is_refused_at_construction(processor: rl.Processor) -> None:
    """The error names the column and the nearest right one."""
    with pytest.raises(rl.RecipeError, match="'topik'; did you mean 'topic'"):
        a_recipe(processor)


def test_anything_but_a_processor_or_function_is_refused() -> None:
    """The error names it."""
    with pytest.raises(rl.RecipeError, match="3 is not a processor"):
        a_recipe(3)


def test_a_fully_dropped_row_group_runs_no_processor_and_writes_no_part(tmp_path: Path) -> None:
    """No processor gets an empty frame, the group's rows count as dropped, and the other group is written."""
    sizes: list[int] = []

    class Watch(rl.Processor):
        def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
            assert row_group == 1
            sizes.append(len(frame))
            return frame

    @rl.cell
    def picky(row: int) -> int:
        if row < 2:
            raise ValueError("not this one")
        return row

    seed = rl.Seed(pd.DataFrame({"row": range(4)}))
    result = rl.Recipe(columns=[seed, picky], processors=[Watch()]).build(tmp_path, 4, row_group_size=2, progress=False)
    assert (sizes, result.dropped, result.status) == ([2], 2, "partial")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["part-00001.parquet"]


def test_processors_round_trip_through_yaml() -> None:
    """Built-in processors are read back as they were written."""
    recipe = a_recipe(rl.DropColumns(["n"]))
    assert rl.Recipe.from_yaml(recipe.to_yaml()).to_dict() == recipe.to_dict()
