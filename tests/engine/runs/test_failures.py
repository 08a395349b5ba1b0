"""Failures are never silent: every error is reported, complete rows are kept, and nothing keeps running."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pandas as pd
import pyarrow.parquet as pq
import pytest

import rowloop as rl
from identifiers import by_repr
from rowloop import runtime as rt
from rowloop.engine.core.events import Done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fake_openai import FakeOpenAI
    from rowloop.engine.columns.functions import Function

LOGGER = "rowloop"


def numbered(rows: int, **columns: Any) -> rl.Seed:
    """Return a seed dataset with the number of each row."""
    return rl.Seed(pd.DataFrame({"row": range(rows), **columns}))


def run(recipe: rl.Recipe, path: Path | None, rows: int, **options: Any) -> rl.Result:
    """Build in a directory, or preview where there is none."""
    if path is None:
        return recipe.preview(rows, progress=False, **options)
    return recipe.build(path, rows, progress=False, **options)


def metadata(path: Path) -> dict[str, Any]:
    """Read metadata.json."""
    return dict(json.loads((path / ".rowloop/metadata.json").read_bytes()))


def parts(path: Path) -> dict[str, int]:
    """Name the parts on the disk, with their rows."""
    return {part.name: pq.read_table(part, partitioning=None).num_rows for part in sorted((path / "data").iterdir())}


def tasks_on_the_loop() -> list[str]:
    """Name the tasks on the shared loop, except our own and those that hold its clients open."""

    async def names() -> list[str]:
        holders = rt.default().thread.resources.holders()
        return [
            repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task() and task not in holders
        ]

    return rl.run_sync(names())


@pytest.fixture(params=["preview", "build"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Return each place that a run can write to: memory and a directory."""
    return None if request.param == "preview" else tmp_path / "out"


# Processors that raise


class RaisesInGroup(rl.Processor):
    """Raises in one stage, for one row group, when `ready` has returned."""

    def __init__(self, stage: str, row_group: int, ready: Callable[[], object]) -> None:
        self.stage = stage
        self.row_group = row_group
        self.ready = ready

    def _maybe_raise(self, frame: pd.DataFrame, stage: str, row_group: int) -> pd.DataFrame:
        if (stage, row_group) == (self.stage, self.row_group):
            self.ready()
            raise LookupError("on purpose")
        return frame

    def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self._maybe_raise(frame, "before_batch", int(frame["row"].iloc[0]))

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
        return self._maybe_raise(frame, "after_batch", row_group)

    def after_generation(self, frame: pd.DataFrame) -> pd.DataFrame:
        return self._maybe_raise(frame, "after_generation", 0)


@pytest.mark.parametrize("engine", ["async", "sequential"])
@pytest.mark.parametrize(("stage", "row_group"), [("before_batch", 3), ("after_batch", 2)])
def test_a_processor_that_raises_ends_the_run_when_all_requests_in_flight_have_been_cancelled_and_awaited(
    server: FakeOpenAI, place: Path | None, stage: str, row_group: int, engine: str
):
    """Cells inside an HTTP request see CancelledError, the server their disconnect; earlier parts stay on the disk."""
    server.configure(fault_hang=1.0)
    hanging = {1, 2} if stage == "before_batch" else {1, 3}
    cancelled: list[int] = []

    @rl.cell
    async def asked(row: int) -> int:
        if row not in hanging:
            return row
        body = {"model": "m", "messages": [{"role": "user", "content": str(row)}]}
        try:
            async with aiohttp.ClientSession() as session, session.post(f"{server.url}/chat/completions", json=body):
                return row
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)  # the error must not leave before this is over
            cancelled.append(row)
            raise

    processor = RaisesInGroup(stage, row_group, lambda: server.wait_for(in_flight=2))
    recipe = rl.Recipe(columns=[numbered(4), asked], processors=[processor])
    with pytest.raises(rl.DatasetGenerationError) as caught:
        run(recipe, place, 4, row_group_size=1, engine=engine)
    assert sorted(cancelled) == sorted(hanging)
    assert server.wait_for(client_disconnects=2).in_flight == 0
    assert tasks_on_the_loop() == []
    error = caught.value
    assert (error.stage, error.row_group) == (f"processor RaisesInGroup.{stage}", row_group)
    assert str(error) == f"processor RaisesInGroup.{stage}, row group {row_group}: LookupError: on purpose"
    assert isinstance(error.__cause__, LookupError)
    if place is not None:
        assert parts(place) == {"part-00000.parquet": 1}
        written = metadata(place)
        assert (written["status"], written["actual_num_records"]) == ("failed", 1)
        assert [part["file"] for part in written["parts"]] == ["data/part-00000.parquet"]
        assert written["error"] == f"DatasetProcessingError: {error}"


def test_a_processor_that_raises_after_generation_leaves_every_part_as_it_was(place: Path | None):
    """Nothing is in flight by then; the error names the stage and no row group, and keeps the cause."""
    recipe = rl.Recipe(columns=[numbered(4)], processors=[RaisesInGroup("after_generation", 0, lambda: None)])
    with pytest.raises(rl.DatasetProcessingError, match=r"RaisesInGroup.after_generation: .*on purpose") as caught:
        run(recipe, place, 4, row_group_size=3)
    assert caught.value.row_group is None
    assert isinstance(caught.value.__cause__, LookupError)
    if place is not None:
        assert parts(place) == {"part-00000.parquet": 3, "part-00001.parquet": 1}
        assert metadata(place)["actual_num_records"] == 4


def test_a_row_group_that_is_being_written_when_a_processor_raises_is_written_and_listed(tmp_path: Path):
    """The failure of one row group costs no other complete one: its part is on the disk and in the metadata."""
    writing, hanging, failed = threading.Event(), threading.Event(), threading.Event()

    class Interleaved(rl.Processor):
        """Row group 0 is written while row group 2 fails, and ends only when the failure is known."""

        def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
            if frame["row"].iloc[0] == 2:
                assert writing.wait(10)
                assert hanging.wait(10)
                raise LookupError("on purpose")
            return frame

        def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
            assert row_group == 0
            writing.set()
            assert failed.wait(10)
            return frame

    @rl.cell
    async def hangs_in_row_1(row: int) -> int:
        if row == 1:
            hanging.set()
            try:
                await asyncio.Event().wait()
            finally:
                failed.set()
        return row

    recipe = rl.Recipe(columns=[numbered(3), hangs_in_row_1], processors=[Interleaved()])
    with pytest.raises(rl.DatasetProcessingError, match="row group 2: LookupError"):
        recipe.build(tmp_path, 3, row_group_size=1, progress=False)
    assert parts(tmp_path) == {"part-00000.parquet": 1}
    assert [part["row_group"] for part in metadata(tmp_path)["parts"]] == [0]


# Processors that change the row count


@pytest.mark.parametrize("rows", [1, 9])
def test_a_processor_may_change_the_row_count_in_the_sequential_engine_only(place: Path | None, rows: int):
    """The asynchronous engine refuses it, in either direction, with both counts and what to use instead."""

    class Resize(rl.Processor):
        def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
            return pd.concat([frame] * 3).head(rows)

    recipe = rl.Recipe(columns=[numbered(3), rl.Expression("line", "{{ row }}")], processors=[Resize()])
    with pytest.raises(rl.DatasetProcessingError, match=rf"from 3 to {rows}.*after_batch or after_generation"):
        run(recipe, place, 3)
    again = {} if place is None else {"overwrite": True}
    result = run(recipe, place, 3, engine="sequential", **again)
    assert result.dataset["line"].tolist() == [str(i % 3) for i in range(rows)]
    assert result.status == "complete"


# Writing, observers, displays and callbacks


def a_directory(data: Path) -> None:
    """Put a directory in place of the part."""
    (data / "part-00001.parquet").mkdir()


def a_file_for_the_directory(data: Path) -> None:
    """Put a file in place of the directory of the parts."""
    shutil.rmtree(data)
    data.touch()


def no_directory(data: Path) -> None:
    """Remove the directory of the parts."""
    shutil.rmtree(data)


def a_full_disk(data: Path) -> None:
    """Write the part to a device without space."""
    (data / ".part-00001.parquet.tmp").symlink_to("/dev/full")


@pytest.mark.parametrize(
    ("obstacle", "cause", "left"),
    [
        (a_directory, IsADirectoryError, 1),
        (a_file_for_the_directory, NotADirectoryError, 0),
        (no_directory, FileNotFoundError, 0),
        (a_full_disk, OSError, 1),
    ],
)
def test_a_part_that_cannot_be_written_fails_the_run_with_that_cause(
    tmp_path: Path, obstacle: Callable[[Path], None], cause: type[OSError], left: int, caplog: pytest.LogCaptureFixture
):
    """The error names the stage, the row group and the file; it is in metadata.json and on the last log line too."""

    class Obstruct(rl.Processor):
        def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
            if row_group == 1:
                obstacle(tmp_path / "data")
            return frame

    recipe = rl.Recipe(columns=[numbered(6)], processors=[Obstruct()])
    with caplog.at_level(logging.INFO, LOGGER), pytest.raises(rl.DatasetGenerationError) as caught:
        recipe.build(tmp_path, 6, row_group_size=2, progress=False)
    error = caught.value
    assert (error.stage, error.row_group) == ("write", 1)
    assert "data/part-00001.parquet" in str(error)
    assert isinstance(error.__cause__, cause)
    written = metadata(tmp_path)
    assert (written["status"], written["error"]) == ("failed", f"DatasetGenerationError: {error}")
    assert len([part for part in tmp_path.glob("data/part-00000.parquet") if part.is_file()]) == left
    assert caplog.records[-1].getMessage().startswith("failed: ")
    assert str(error) in caplog.records[-1].getMessage()


@pytest.mark.parametrize("file", ["metadata.json", "failures.parquet", "traces.parquet"])
def test_a_file_beside_the_parts_that_cannot_be_written_fails_the_run(tmp_path: Path, file: str):
    """Nothing is logged and swallowed: the result would not agree with the directory."""

    @rl.cell
    def obstruct(row: int) -> int:
        if row == 0:
            (tmp_path / f".rowloop/.{file}.tmp").symlink_to("/dev/full")
            raise ValueError("a line for the failures table")
        return row

    with pytest.raises(rl.DatasetGenerationError, match=rf"write.*: cannot write .rowloop/{file}: .*space") as caught:
        rl.Recipe(columns=[numbered(4), obstruct]).build(tmp_path, 4, progress=False, trace=True)
    assert isinstance(caught.value.__cause__, OSError)


def test_metadata_that_cannot_be_written_at_the_start_ends_the_run_before_any_request(
    tmp_path: Path, server: FakeOpenAI
):
    """Nothing is paid for that cannot be described."""
    (tmp_path / ".rowloop").mkdir()
    (tmp_path / ".rowloop/.metadata.json.tmp").symlink_to("/dev/full")
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:m", base_url=server.url)},
        columns=[rl.Text("text", model="m", prompt="hello")],
    )
    with pytest.raises(rl.DatasetGenerationError, match=r"cannot write .rowloop/metadata\.json"):
        recipe.build(tmp_path, 3, progress=False, overwrite=True)
    assert server.counters().requests == 0


@pytest.mark.parametrize("method", ["on_event", "on_failure"])
def test_an_observer_that_raises_fails_the_run_with_that_cause(
    place: Path | None, method: str, monkeypatch: pytest.MonkeyPatch
):
    """After that its counts are wrong, so everything in flight is cancelled and awaited."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("in the observer")

    @rl.cell
    async def fails(row: int) -> int:
        raise ValueError(row)

    monkeypatch.setattr(f"rowloop.engine.telemetry.failures.FailureTable.{method}", broken)
    with pytest.raises(rl.DatasetGenerationError, match="ZeroDivisionError: in the observer") as caught:
        run(rl.Recipe(columns=[numbered(4), fails]), place, 4)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert tasks_on_the_loop() == []
    if place is not None:
        assert metadata(place)["status"] == "failed"


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError, rl.RecipeError])
@pytest.mark.parametrize("method", ["on_start", "on_event", "on_failure", "on_command"])
@pytest.mark.parametrize("engine", ["async", "sequential"])
def test_an_observer_given_as_an_option_that_raises_fails_the_run_by_its_name(
    place: Path | None, method: str, error: type[BaseException], engine: str
):
    """Whatever it raises and wherever: the error names the observer and has the cause, and nothing is left running."""

    class Broken:
        def on_event(self, event: object) -> None: ...

    def broken(*_: object) -> None:
        raise error("in the", "observer")

    setattr(Broken, method, broken)

    @rl.cell
    async def fails(row: int) -> int:
        raise ValueError(row)

    with pytest.raises(rl.DatasetGenerationError) as caught:
        run(rl.Recipe(columns=[numbered(4), fails]), place, 4, observers=[Broken()], engine=engine)
    assert str(caught.value).startswith(f"observer Broken: {error.__name__}: ")
    assert caught.value.stage == "observer Broken"
    assert isinstance(caught.value.__cause__, error)
    assert tasks_on_the_loop() == []
    if place is not None:
        written = metadata(place)
        assert (written["status"], written["error"]) == ("failed", f"DatasetGenerationError: {caught.value}")


def test_an_observer_that_raises_costs_no_answer(tmp_path: Path):
    """An answer is in the journal before the observer sees it, so that a later run does not ask again."""
    asked: list[str] = []

    def model(prompt: str) -> str:
        asked.append(prompt)
        return prompt

    class Broken:
        def on_event(self, event: object) -> None:
            if isinstance(event, Done) and event.column == 1:
                raise ZeroDivisionError

    recipe = rl.Recipe(
        models={"m": rl.Model(model, max_parallel=1)},
        columns=[numbered(3), rl.Text("text", model="m", prompt="{{ row }}")],
    )
    with pytest.raises(rl.DatasetGenerationError, match="observer Broken: ZeroDivisionError"):
        recipe.build(tmp_path, 3, progress=False, observers=[Broken()])
    assert asked == ["0"]
    assert recipe.build(tmp_path, 3, progress=False, resume="always").status == "complete"
    assert asked == ["0", "1", "2"]


@pytest.mark.parametrize("when", ["enter", "exit"])
def test_a_display_that_raises_fails_the_run_with_that_cause(tmp_path: Path, when: str):
    """Also a display of the user's own."""

    @contextlib.contextmanager
    def display(_snapshot: Callable[[], rl.ProgressSnapshot]) -> Iterator[None]:
        if when == "enter":
            raise ZeroDivisionError("in the display")
        yield
        raise ZeroDivisionError("in the display")

    with pytest.raises(rl.DatasetGenerationError, match="ZeroDivisionError: in the display") as caught:
        rl.Recipe(columns=[numbered(4)]).build(tmp_path, 4, progress=display)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert metadata(tmp_path)["status"] == "failed"


def test_an_on_part_callback_that_raises_fails_the_run_with_that_cause(tmp_path: Path):
    """Its part and the earlier ones are on the disk."""

    def broken(part: Any) -> None:
        if part.row_group == 1:
            raise ZeroDivisionError("in on_part")

    with pytest.raises(rl.DatasetGenerationError, match=r"on_part, row group 1: .*in on_part") as caught:
        rl.Recipe(columns=[numbered(6)]).build(tmp_path, 6, row_group_size=2, progress=False, on_part=broken)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert metadata(tmp_path)["status"] == "failed"
    assert {"part-00000.parquet", "part-00001.parquet"} <= set(parts(tmp_path))


# Early shutdown


def asking(server: FakeOpenAI, rows: int, **model: Any) -> rl.Recipe:
    """Ask the server about each row, with a sampler before and an expression after it."""
    return rl.Recipe(
        models={"m": rl.Model("openai:m", base_url=server.url, **model)},
        columns=[
            numbered(rows),
            rl.Text("text", model="m", prompt="Write about {{ row }}."),
            rl.Expression("line", "{{ row }}: {{ text }}"),
        ],
    )


def test_early_shutdown_cancels_and_awaits_what_is_in_flight_and_writes_the_survivors(
    server: FakeOpenAI, place: Path | None, caplog: pytest.LogCaptureFixture
):
    """No request reaches the server after build has returned, nothing is logged after the final line."""
    server.configure(fault_400=0.5, fault_hang=0.2, seed=4)
    torn_down: list[int] = []

    @contextlib.contextmanager
    def display(snapshot: Callable[[], rl.ProgressSnapshot]) -> Iterator[None]:
        yield
        torn_down.append(snapshot().running)

    recipe = asking(server, 400)
    with caplog.at_level(logging.INFO, LOGGER):
        if place is None:
            result = recipe.preview(400, row_group_size=4, progress=display)
        else:
            result = recipe.build(place, 400, row_group_size=4, progress=display)
    counters = server.wait_for(client_disconnects=1)
    assert counters.in_flight == 0
    assert counters.requests < 400
    assert tasks_on_the_loop() == []
    assert torn_down == [0]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0] for line in lines] == ["partial"]
    assert result.status == "partial"
    assert result.metadata["early_shutdown"] is True
    assert 0 < result.actual == len(result.dataset) == len(result.dataset.dropna())
    assert result.dataset["row"].is_monotonic_increasing
    if place is not None:
        assert metadata(place)["early_shutdown"] is True
        assert sum(parts(place).values()) == result.actual

    # A second run shows that no request comes by itself: the server gets only those of the second run.
    server.configure(fault_400=0.0, fault_hang=0.0)
    asking(server, 5).preview(5, progress=False)
    assert server.counters().requests == counters.requests + 5
    assert len(caplog.records) == len(lines)


def every_other(rows: list[int], **options: Any) -> rl.Recipe:
    """Make a recipe of one column of which every other call fails; it counts the calls."""

    @rl.cell(max_parallel=1, **options)
    async def flaky() -> int:
        rows.append(len(rows))
        if rows[-1] % 2:
            raise ValueError(rows[-1])
        return rows[-1]

    return rl.Recipe(columns=[flaky])


@pytest.mark.parametrize("engine", ["async", "sequential"])
def test_no_new_cell_starts_when_too_many_have_failed(place: Path | None, engine: str):
    """With one cell in flight at a time, the fiftieth outcome is the last: 25 failures of 50."""
    called: list[int] = []
    result = run(every_other(called), place, 100, row_group_size=5, engine=engine)
    assert called == list(range(50))
    assert (result.actual, result.dropped, result.status) == (25, 25, "partial")
    assert result.metadata["early_shutdown"] is True


@pytest.mark.parametrize(
    ("budget", "calls"),
    [
        (rl.ErrorBudget(window=4), 4),
        (rl.ErrorBudget(window=20), 20),
        (rl.ErrorBudget(window=10, rate=0.6), 40),
        (rl.ErrorBudget(window=1, rate=1.0), 2),
        (rl.ErrorBudget(window=4, rate=None), 40),
        (rl.ErrorBudget(), 40),
    ],
    ids=repr,
)
def test_window_and_rate_are_settable_and_none_disables_it(place: Path | None, budget: rl.ErrorBudget, calls: int):
    """The same in preview and build."""
    called: list[int] = []
    result = run(every_other(called), place, 40, error_budget=budget)
    assert len(called) == calls
    assert result.metadata["early_shutdown"] is (calls < 40)


@pytest.mark.parametrize("engine", ["async", "sequential"])
def test_bad_rows_side_by_side_do_not_end_a_run_of_2000(place: Path | None, engine: str):
    """Twenty of them are less than half of any fifty; they are dropped, and all others are made."""

    @rl.cell
    async def picky(row: int) -> int:
        if 300 <= row < 320:
            raise ValueError(row)
        return row

    result = run(rl.Recipe(columns=[numbered(2000), picky]), place, 2000, engine=engine)
    assert (result.status, result.actual, result.dropped) == ("partial", 1980, 20)
    assert result.metadata["early_shutdown"] is False


def test_failures_that_arrive_before_the_first_answer_do_not_end_a_run(virtual_runtime: Any):
    """A request that is refused is answered at once, a good one takes three to ten seconds: every fourth is refused."""

    @rl.cell(max_parallel=256)
    async def picky(row: int) -> int:
        if row % 4 == 1:
            raise ValueError(row)
        await asyncio.sleep(3 + row * 37 % 100 * 0.07)
        return row

    result = rl.Recipe(columns=[numbered(2000), picky]).preview(2000, progress=False, runtime=virtual_runtime)
    assert (result.actual, result.dropped) == (1500, 500)


def test_samplers_and_other_columns_that_succeed_do_not_hide_one_that_fails(place: Path | None):
    """However many there are, and however small the row groups."""
    called: list[int] = []

    @rl.cell(max_parallel=1)
    async def fails(row: int) -> int:
        called.append(row)
        raise ValueError(row)

    columns = [numbered(100), *(rl.Uniform(f"u{i}") for i in range(5)), rl.Expression("e", "{{ row }}"), fails]
    with pytest.raises(rl.EarlyShutdownError):
        run(rl.Recipe(columns=columns), place, 100, row_group_size=1)
    assert called == list(range(10))


def test_early_shutdown_waits_for_a_full_window(place: Path | None):
    """Nine failures among nine outcomes are not enough: the run works every row."""

    @rl.cell(max_parallel=1)
    async def fails() -> int:
        raise ValueError

    with pytest.raises(rl.EarlyShutdownError, match="no row was completed") as caught:
        run(rl.Recipe(columns=[fails]), place, 9)
    assert isinstance(caught.value.__cause__, ValueError)
    if place is not None:
        written = metadata(place)
        assert (written["early_shutdown"], written["dropped_num_records"]) == (False, 9)


def test_retryable_failures_do_not_count_towards_the_error_budget(place: Path | None):
    """An endpoint that is unreachable for a while does not end the run."""

    @rl.cell(max_parallel=1)
    async def unreachable() -> int:
        called.append(1)
        if len(called) % 4:
            raise ConnectionError("nobody there")
        return 1

    called: list[int] = []
    once = rl.RetryPolicy(attempts=1)
    result = run(rl.Recipe(columns=[unreachable]), place, 40, retry=once)
    assert (len(called), result.dropped, result.metadata["early_shutdown"]) == (40, 30, False)


# Partial completion


def every_third_fails() -> Function:
    """Make a column that drops every third row."""

    @rl.cell
    async def picky(row: int) -> int:
        if row % 3 == 0:
            raise ValueError(f"not {row}")
        return row

    return picky


def test_partial_completion_is_in_the_result_the_metadata_and_the_last_log_line(
    place: Path | None, caplog: pytest.LogCaptureFixture
):
    """Status, target, actual and dropped counts and the reasons are the same facts everywhere."""
    with caplog.at_level(logging.INFO, LOGGER):
        result = run(rl.Recipe(columns=[numbered(12), every_third_fails()]), place, 12, row_group_size=5)
    assert (result.status, result.target, result.actual, result.dropped) == ("partial", 12, 8, 4)
    written = result.metadata if place is None else metadata(place)
    assert written["status"] == "partial"
    assert (written["target_num_records"], written["actual_num_records"], written["dropped_num_records"]) == (12, 8, 4)
    assert written["failures"] == {"ValueError": 4}
    assert written["row_groups_cut_short"] == []
    last = caplog.records[-1]
    assert last.levelno == logging.WARNING
    assert last.getMessage().startswith("partial: 8 of 12 rows, 4 dropped")
    assert "4 x ValueError" in last.getMessage()


def test_a_complete_run_ends_with_an_info_record(place: Path | None, caplog: pytest.LogCaptureFixture):
    """Its last record is not a warning."""
    with caplog.at_level(logging.INFO, LOGGER):
        result = run(rl.Recipe(columns=[numbered(3)]), place, 3)
    assert (result.status, result.actual, result.dropped) == ("complete", 3, 0)
    assert (caplog.records[-1].levelno, caplog.records[-1].getMessage()[:8]) == (logging.INFO, "complete")


def test_row_groups_that_were_cut_short_are_named(tmp_path: Path):
    """A cancelled run lists the row groups that lost rows to its end, and no others."""
    hanging = threading.Event()

    @rl.cell(max_parallel=8)
    async def hangs(row: int) -> int:
        if row in {2, 5}:
            if row == 5:
                hanging.set()
            await asyncio.Event().wait()
        return row

    build = rl.Recipe(columns=[numbered(6), hangs]).start(tmp_path, 6, row_group_size=2, progress=False)
    assert hanging.wait(10)
    build.cancel()
    result = build.result(10)
    assert (result.status, result.actual, result.dropped) == ("cancelled", 4, 0)
    assert metadata(tmp_path)["row_groups_cut_short"] == [1, 2]
    assert result.dataset["row"].tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("wanted", [1.0, 0.7])
def test_fewer_rows_than_min_completion_raise_an_error_that_carries_the_result(place: Path | None, wanted: float):
    """Nothing that was paid for is lost to the error."""
    recipe = rl.Recipe(columns=[numbered(12), every_third_fails()])
    with pytest.raises(rl.PartialDatasetError, match=rf"8 of 12 rows .* min_completion={wanted:g}") as caught:
        run(recipe, place, 12, min_completion=wanted)
    result = caught.value.result
    assert (result.status, len(result.dataset), len(result.failures)) == ("partial", 8, 4)
    if place is not None:
        assert parts(place) == {"part-00000.parquet": 8}


def test_as_many_rows_as_min_completion_requires_are_enough(place: Path | None):
    """The share is met exactly."""
    assert run(rl.Recipe(columns=[numbered(12), every_third_fails()]), place, 12, min_completion=8 / 12).actual == 8


def test_no_rows_at_all_always_raise_with_the_first_root_cause(server: FakeOpenAI, place: Path | None):
    """A run without rows has no result, whatever min_completion is."""
    server.configure(fault_400=1.0)
    with pytest.raises(rl.EarlyShutdownError, match=r"no row was completed.*'text'.*400 Bad Request") as caught:
        run(asking(server, 30), place, 30)
    assert isinstance(caught.value.__cause__, rl.ModelError)
    assert caught.value.__cause__.status == 400
    if place is not None:
        assert metadata(place)["status"] == "failed"
        assert parts(place) == {}
        assert set(pq.read_table(place / ".rowloop/failures.parquet").column("error").to_pylist()) == {
            "ModelError(bad_request)"
        }


# The failures table


def test_every_dropped_cell_is_a_row_of_the_failures_table(server: FakeOpenAI, place: Path | None):
    """Row, column, class, message, attempts, first and last time, inputs; in the result and in failures.parquet."""
    server.configure(fault_400=0.2, seed=2)
    never = rl.ErrorBudget(rate=None)
    result = run(asking(server, 40), place, 40, row_group_size=7, error_budget=never)
    table = result.failures
    assert len(table) == result.dropped == server.counters().by_status[400] > 0
    assert sorted({*table["row"], *result.dataset["row"]}) == list(range(40))
    line = table.iloc[0]
    assert (line["column"], line["error"], line["attempts"]) == ("text", "ModelError(bad_request)", 1)
    assert "answered 400 Bad Request: Your request could not be understood" in line["message"]
    assert json.loads(line["inputs"]) == {"row": line["row"]}
    assert line["row_group"] == line["row"] // 7
    assert table["row"].is_monotonic_increasing
    assert (table["last_failed_at"] >= table["first_failed_at"]).all()
    assert str(table["first_failed_at"].dtype).endswith("UTC]")
    if place is not None:
        stored = pq.read_table(place / ".rowloop/failures.parquet").to_pandas()
        pd.testing.assert_frame_equal(stored, table, check_dtype=False)


def test_attempts_and_the_time_of_the_first_are_those_of_the_cell():
    """A cell that is retried has one line, with the time of its first failure."""
    tried: list[int] = []

    @rl.cell
    async def unreachable(row: int) -> int:
        tried.append(row)
        if row == 1:
            raise ConnectionError("nobody there")
        return row

    policy = rl.RetryPolicy(attempts=3, wait=lambda _: 0.1)
    result = run(rl.Recipe(columns=[numbered(3), unreachable]), None, 3, retry=policy)
    (line,) = result.failures.to_dict("records")
    assert (line["row"], line["attempts"], line["error"]) == (1, 3, "ConnectionError")
    assert tried.count(1) == 3
    # Two waits by the loop's clock. The times are those of the wall clock, which may be set back a little meanwhile.
    assert line["last_failed_at"] - line["first_failed_at"] >= timedelta(seconds=0.19)


@pytest.mark.parametrize("whole", [False, True], ids=["cell", "batch"])
def test_on_error_null_keeps_the_row_and_records_the_cell(place: Path | None, *, whole: bool):
    """The value is null, the failure is in the table, and the run is complete."""
    if whole:

        @rl.batch(on_error="null", dtype="int64", name="risky")
        def risky(row: pd.Series[int]) -> pd.Series[int]:
            if 2 in set(row):
                raise ValueError("on purpose")
            return row
    else:

        @rl.cell(on_error="null", name="risky")
        def risky(row: int) -> int:
            if row in {2, 3}:
                raise ValueError("on purpose")
            return row

    result = run(rl.Recipe(columns=[numbered(6), risky]), place, 6, row_group_size=2)
    assert result.to_arrow().column("risky").to_pylist() == [0, 1, None, None, 4, 5]
    assert result.failures[["row", "column", "message"]].to_numpy().tolist() == [
        [2, "risky", "on purpose"],
        [3, "risky", "on purpose"],
    ]
    assert (result.status, result.actual, result.dropped) == ("complete", 6, 0)
    assert result.metadata["failures"] == {"ValueError": 2}


def test_on_error_raise_ends_the_run_with_column_and_row_group(place: Path | None):
    """The cause is kept, and complete rows stay."""

    @rl.cell(on_error="raise", max_parallel=1)
    async def strict(row: int) -> int:
        if row == 4:
            raise ValueError("on purpose")
        return row

    with pytest.raises(rl.DatasetGenerationError, match=r"column 'strict', row group 2: .*on purpose") as caught:
        run(rl.Recipe(columns=[numbered(6), strict]), place, 6, row_group_size=2)
    assert (caught.value.column, caught.value.row_group) == ("strict", 2)
    assert isinstance(caught.value.__cause__, ValueError)
    if place is not None:
        assert parts(place) == {"part-00000.parquet": 2, "part-00001.parquet": 2}


# Wrong return values


def returning(value: Any, *, whole: bool, **options: Any) -> Function:
    """Make a column whose function returns the value for the row group with row 2, and right ones otherwise."""
    if whole:
        return rl.batch(name="x", **options)(lambda row: value if 2 in set(row) else row)
    return rl.cell(name="x", **options)(lambda row: value if row == 2 else row)


@pytest.mark.parametrize(
    ("value", "expected", "came"),
    [
        (5, "expected a Series, a list or a DataFrame", "returned a int"),
        ("text", "expected a Series, a list or a DataFrame", "returned a str"),
        (None, "expected a Series, a list or a DataFrame", "returned a NoneType"),
        ({"x": [1, 2]}, "expected a Series, a list or a DataFrame", "returned a dict"),
        ([1], "for 2 rows", "returned 1 values"),
        (pd.Series([1, 2, 3]), "for 2 rows", "returned 3 values"),
        (pd.DataFrame({"x": [1]}), "for 2 rows", "returned 1 values"),
        (pd.DataFrame({"y": [1, 2], "z": [1, 2]}), "without the column 'x'", "it has: y, z"),
    ],
    ids=str,
)
def test_a_wrong_return_value_of_a_batch_function_is_reported_with_column_row_group_expected_and_actual(
    value: object, expected: str, came: str
):
    """As the run's error with on_error="raise", else for each of its rows in the failures table."""
    with pytest.raises(rl.DatasetGenerationError) as caught:
        run(rl.Recipe(columns=[numbered(6), returning(value, whole=True, on_error="raise")]), None, 6, row_group_size=2)
    assert str(caught.value).startswith("column 'x', row group 1: ")
    assert expected in str(caught.value)
    assert came in str(caught.value)

    result = run(rl.Recipe(columns=[numbered(6), returning(value, whole=True)]), None, 6, row_group_size=2)
    assert result.failures[["row", "column", "row_group"]].to_numpy().tolist() == [[2, "x", 1], [3, "x", 1]]
    assert all(expected in message and came in message for message in result.failures["message"])
    assert result.dataset["x"].tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize("whole", [False, True], ids=["cell", "batch"])
@pytest.mark.parametrize(
    ("value", "dtype", "expected", "came"),
    [
        (object(), None, "expected", "<object object at"),
        ("text", "int64", "expected int64", "'text' (str)"),
        (2.5, "int64", "expected int64", "2.5 (float)"),
        (2**70, "int64", "expected int64", f"{2**70} (int)"),
        ("\ud800", "string", "expected string", r"'\ud800' (str)"),
        ({1, 2}, "string", "expected string", "{1, 2} (set)"),
    ],
    ids=by_repr,
)
def test_a_value_that_the_table_cannot_hold_is_reported_with_column_row_group_expected_and_actual(  # noqa: PLR0913 - one table
    place: Path | None, value: object, dtype: str | None, expected: str, came: str, *, whole: bool
):
    """As the run's error with on_error="raise", else in the failures table; the row's number is the run's own."""
    right = str if dtype == "string" else int

    def of_cell(row: int) -> object:
        return value if row == 3 else right(row)

    def of_batch(row: pd.Series[int]) -> list[object]:
        return [of_cell(number) for number in row]

    def column(on_error: Any) -> Any:
        options: dict[str, Any] = {"name": "x", "dtype": dtype, "max_parallel": 1, "on_error": on_error}
        return rl.batch(**options)(of_batch) if whole else rl.cell(**options)(of_cell)

    with pytest.raises(rl.DatasetGenerationError) as caught:
        run(rl.Recipe(columns=[numbered(6), column("raise")]), place, 6, row_group_size=2)
    message = str(caught.value)
    assert message.startswith("column 'x', row group 1: ")
    assert "row 3 has" in message
    assert expected in message
    assert came in message
    if place is not None:
        assert parts(place)["part-00000.parquet"] == 2

    result = run(rl.Recipe(columns=[numbered(6), column("drop")]), None, 6, row_group_size=2)
    lost = [2, 3] if whole else [3]
    assert result.failures["row"].tolist() == lost
    assert set(result.failures["message"]) == {message}
    assert result.dataset["x"].tolist() == [right(row) for row in range(6) if row not in lost]
    result = run(rl.Recipe(columns=[numbered(6), column("null")]), None, 6, row_group_size=2)
    assert result.to_arrow().column("x").to_pylist() == [None if row in lost else right(row) for row in range(6)]


def test_an_internal_error_of_the_engine_ends_the_run_rather_than_drop_rows(
    server: FakeOpenAI, place: Path | None, monkeypatch: pytest.MonkeyPatch
):
    """A bug in a built-in column is not a bad row: no row is dropped, and the error has its cause."""

    def slip(_self: object, _max_tokens: object) -> Callable[[object], str]:
        def read(_reply: object) -> str:
            raise AttributeError("a slip")

        return read

    monkeypatch.setattr("rowloop.engine.columns.text.Text.reader", slip)
    with pytest.raises(rl.DatasetGenerationError, match="engine: AttributeError: a slip") as caught:
        run(asking(server, 20), place, 20)
    assert isinstance(caught.value.__cause__, AttributeError)
    assert tasks_on_the_loop() == []
    if place is not None:
        written = metadata(place)
        assert (written["status"], written["dropped_num_records"], written["failures"]) == ("failed", 0, {})


# Row groups without rows


@pytest.mark.parametrize("engine", ["async", "sequential"])
def test_a_fully_dropped_row_group_writes_no_part_meets_no_processor_and_counts(place: Path | None, engine: str):
    """Its rows are dropped, its later cells skipped, and no function gets a frame without rows."""
    seen: list[int] = []

    class Watch(rl.Processor):
        def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
            seen.append(len(frame))
            return frame

        def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
            assert row_group != 1
            seen.append(len(frame))
            return frame

    @rl.cell
    async def picky(row: int) -> int:
        if row in {2, 3}:
            raise ValueError(row)
        return row

    @rl.batch
    def whole(picky: pd.Series[int]) -> Sequence[int]:
        seen.append(len(picky))
        return picky.tolist()

    recipe = rl.Recipe(columns=[numbered(6), picky, whole], processors=[Watch()])
    result = run(recipe, place, 6, row_group_size=2, engine=engine)
    assert (result.status, result.actual, result.dropped) == ("partial", 4, 2)
    assert seen == [2] * len(seen)
    counts = {column["name"]: column for column in result.metadata["columns"]}
    assert [counts["picky"][key] for key in ("completed", "failed", "skipped")] == [4, 2, 0]
    assert [counts["whole"][key] for key in ("completed", "failed", "skipped")] == [4, 0, 2]
    assert [part["row_group"] for part in result.metadata["parts"]] == [0, 2]
    if place is not None:
        assert parts(place) == {"part-00000.parquet": 2, "part-00002.parquet": 2}
