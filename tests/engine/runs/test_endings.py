"""Every way a run can end, on both engines: rows are counted once, the metadata obeys its schema, a report ends it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pandas as pd
import pytest

import rowloop as rl
from rowloop.engine.columns.seeds import SeedColumn
from rowloop.engine.columns.work import Fill
from rowloop.engine.core.errors import CellError
from rowloop.engine.core.policy import ErrorBudget
from rowloop.engine.core.row_groups import DONE, FAILED, SKIPPED
from rowloop.engine.core.tracker import Tracker
from rowloop.engine.datasets import metadata as contract
from rowloop.engine.datasets.parquet_sink import ParquetSink
from rowloop.engine.datasets.reading import read_result
from rowloop.engine.telemetry.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCHEMA = jsonschema_rs.validator_for(contract.json_schema(), validate_formats=True)
ENGINES: list[Any] = ["async", "sequential"]
both_engines = pytest.mark.parametrize("engine", ENGINES)


class Run:
    """One recipe of 20 rows in groups of 5, and how its functions behave."""

    def __init__(self, path: Path, engine: Any) -> None:
        self.path = path
        self.engine = engine
        self.broken: set[int] = set()
        self.hangs = False
        self.on_error: Any = "drop"
        self.processors: list[Any] = []
        self.options: dict[str, Any] = {}
        self.reached = threading.Event()
        self.may_break = threading.Event()
        self.may_break.set()
        self.error: BaseException | None = None
        self.result: rl.Result | None = None

    def recipe(self) -> rl.Recipe:
        """Make it."""

        async def value(n: int) -> int:
            await asyncio.sleep(0.001)
            if n in self.broken:
                while not self.may_break.is_set():  # noqa: ASYNC110 - it is set in another thread
                    await asyncio.sleep(0.001)
                raise ValueError(f"row {n} is broken")
            if self.hangs and n >= 10:
                self.reached.set()
                await asyncio.sleep(3600)
            return n

        def model(prompt: str) -> str:
            return f"answer to {prompt}"

        return rl.Recipe(
            models={"m": rl.Model(model)},
            columns=[
                rl.Seed(pd.DataFrame({"n": range(20)})),
                rl.cell(value, on_error=self.on_error),
                rl.Text("text", model="m", prompt="{{ value }}"),
            ],
            processors=self.processors,
            seed=1,
        )

    def __call__(self, act: Callable[[Run], None]) -> None:
        """Run this ending and keep its result or error."""
        try:
            act(self)
        except BaseException as error:  # noqa: BLE001 - some endings are cancellations
            self.error = error

    @property
    def all_options(self) -> dict[str, Any]:
        """The options of this run."""
        return {"row_group_size": 5, "progress": False, "engine": self.engine, **self.options}

    def build(self) -> None:
        """Build and block."""
        self.result = self.recipe().build(self.path, 20, **self.all_options)

    @property
    def written(self) -> dict[str, Any]:
        """The contents of metadata.json."""
        read: dict[str, Any] = json.loads((self.path / ".rowloop/metadata.json").read_bytes())
        return read


def complete(run: Run) -> None:
    """Complete every row."""
    run.build()


def partial(run: Run) -> None:
    """Two rows are dropped."""
    run.broken = {3, 12}
    run.build()


def too_little(run: Run) -> None:
    """Two rows are dropped, and the caller wants all."""
    run.options["min_completion"] = 1.0
    partial(run)


def cancelled(run: Run) -> None:
    """Someone calls Run.cancel()."""
    run.hangs = True
    started = run.recipe().start(run.path, 20, **run.all_options)
    assert run.reached.wait(20)
    started.cancel()
    run.result = started.result(20)


def await_cancelled(run: Run) -> None:
    """Cancel the coroutine that awaits the run."""
    run.hangs = True

    async def main() -> None:
        task = asyncio.ensure_future(run.recipe().abuild(run.path, 20, **run.all_options))
        await asyncio.to_thread(run.reached.wait, 20)
        task.cancel()
        await task

    asyncio.run(main())


def failed(run: Run) -> None:
    """Let a cell fail whose column has on_error="raise"."""
    run.broken, run.on_error = {12}, "raise"
    run.build()


def processor_failed(run: Run) -> None:
    """Have a processor raise."""

    def broken(frame: pd.DataFrame) -> pd.DataFrame:
        raise KeyError(f"no column among {len(frame)} rows")

    run.processors = [broken]
    run.build()


def early_shutdown(run: Run) -> None:
    """Let too many cells fail when some rows are complete."""
    run.broken = set(range(10, 20))
    run.options["error_budget"] = ErrorBudget(window=8, rate=0.8)
    run.may_break.clear()
    parts: list[object] = []

    def on_part(part: object) -> None:
        parts.append(part)
        if len(parts) == 2:  # rows 0 to 9
            run.may_break.set()

    run.options["on_part"] = on_part
    run.build()


def nothing_left(run: Run) -> None:
    """Every row fails."""
    run.broken = set(range(20))
    run.build()


ENDINGS: dict[Callable[[Run], None], tuple[str, type[BaseException] | None]] = {
    complete: ("complete", None),
    partial: ("partial", None),
    too_little: ("partial", rl.PartialDatasetError),
    cancelled: ("cancelled", None),
    await_cancelled: ("cancelled", asyncio.CancelledError),
    failed: ("failed", rl.DatasetGenerationError),
    processor_failed: ("failed", rl.DatasetProcessingError),
    early_shutdown: ("partial", None),
    nothing_left: ("failed", rl.EarlyShutdownError),
}
REASONS: dict[Callable[[Run], None], tuple[str, bool]] = {
    cancelled: ("cancelled", False),
    await_cancelled: ("cancelled", False),
    failed: ("failed", True),
    processor_failed: ("failed", True),
    early_shutdown: ("error budget", True),
    nothing_left: ("error budget", True),
}
"""The first word of the reason, and whether facts follow it."""
every_ending = pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.__name__)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Check after each event of each tracker that every ended cell is counted once, by how it ended."""
    handle, events = Tracker.handle, [0]

    def checked(tracker: Tracker, event: Any, now: float = 0.0) -> Any:
        commands = handle(tracker, event, now)
        events[0] += 1
        assert_counted_once(tracker)
        return commands

    monkeypatch.setattr(Tracker, "handle", checked)
    yield events
    assert events[0] > 0


def assert_counted_once(tracker: Tracker) -> None:
    """Completed + failed + skipped == rows of finished groups, and the ended cells of the others."""
    finished = sum(tracker.plan.size(group) for group in range(tracker._open.next) if group not in tracker._groups)
    for column, count in zip(tracker.graph.columns, tracker.totals.columns, strict=True):
        over = 0
        for group in tracker._groups.values():
            ended = sum(state in {DONE, FAILED, SKIPPED} for state in group.state[column.id])
            over += ended * group.size if column.whole else ended
        assert count.completed + count.failed + count.skipped == finished + over, column.name


@every_ending
@both_engines
def test_every_row_is_counted_once_however_the_run_ends(
    tmp_path: Path, engine: Any, ending: Callable[[Run], None], counted: list[int]
):
    """The invariant holds after every event, and at the end the counts of each column are the rows worked."""
    run = Run(tmp_path / "out", engine)
    run(ending)
    wanted = ENDINGS[ending][1]
    assert run.error is None if wanted is None else isinstance(run.error, wanted), run.error
    assert counted[0] > 4
    for column in run.written["columns"]:
        total = column["completed"] + column["failed"] + column["skipped"]
        assert total <= 20
        if ending in {complete, partial, too_little, nothing_left}:
            assert total == 20


@both_engines
def test_a_seed_that_fails_beside_a_before_batch_processor_is_counted_once(
    tmp_path: Path, engine: Any, counted: list[int], monkeypatch: pytest.MonkeyPatch
):
    """The second row group's seed fails for good: its 5 rows failed there, are skipped elsewhere, and nowhere twice."""
    bind = SeedColumn.bind

    def breaking(column: SeedColumn, binding: Any) -> Fill:
        fill = bind(column, binding).fill

        def broken(start: int, rows: int) -> Any:
            if start == 5:
                raise CellError("no seeds here")
            return fill(start, rows)

        return Fill(broken)

    monkeypatch.setattr(SeedColumn, "bind", breaking)

    class Upward(rl.Processor):
        def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame.assign(n=frame["n"] + 100)

    run = Run(tmp_path / "out", engine)
    run.processors = [Upward()]
    run.build()
    assert run.result is not None
    assert (run.result.actual, run.result.dropped, run.result.status) == (15, 5, "partial")
    assert run.result.dataset["n"].tolist() == [*range(100, 105), *range(110, 120)]
    counts = {c["name"]: (c["completed"], c["failed"], c["skipped"]) for c in run.written["columns"]}
    assert counts == {"n": (15, 5, 0), "value": (15, 0, 5), "text": (15, 0, 5)}
    assert run.result.failures["row"].tolist() == [5, 6, 7, 8, 9]
    assert counted[0] > 30


@every_ending
def test_one_schema_describes_every_ending_on_both_engines(tmp_path: Path, ending: Callable[[Run], None]):
    """metadata.json is valid however the run ended, says how, and has the same keys on both engines."""
    keys = []
    for engine in ENGINES:
        run = Run(tmp_path / engine, engine)
        run(ending)
        SCHEMA.validate(run.written)
        assert run.written["status"] == ENDINGS[ending][0]
        assert run.written["engine"] == engine
        assert run.written["kind"] == "build"
        assert run.written["finished_at"] >= run.written["started_at"]
        assert (run.written["error"] is not None) == (ENDINGS[ending][0] == "failed")
        assert run.written["early_shutdown"] == (ending in {early_shutdown, nothing_left})
        reason, colon, _ = (run.written["reason"] or "").partition(":")
        assert (reason, bool(colon)) == REASONS.get(ending, ("", False))
        if run.result is not None:
            assert run.result.metadata == run.written
            assert run.result.reason == run.written["reason"]
        # the number of parts of an interrupted run depends on timing; the schema describes a part
        keys.append({key for key in _keys(run.written) if not key.startswith(".parts[]")})
    assert keys[0] == keys[1]


def test_a_run_that_its_error_budget_ends_gives_the_reason_wherever_a_person_looks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """In the result, its report, metadata.json, the dataset read back, and the last line of the log, with the call."""
    run = Run(tmp_path / "out", "async")
    run(early_shutdown)
    assert run.result is not None
    reason = run.result.reason
    assert reason is not None
    assert re.fullmatch(
        r"error budget: (all 8|7 of the last 8) cells of column 'value' failed; the first failure was in column"
        r" 'value': ValueError: row 1\d is broken",
        reason,
    )
    assert read_result(run.path).reason == run.written["reason"] == reason
    assert ("reason", reason) in list(run.result.report.lines())
    record = caplog.records[-1].getMessage()
    assert reason in record
    call = f'build("{run.path}", 20, resume="always")'
    assert record.splitlines()[-1] == (
        f"  ended early by error budget; to resume: {call}, or with retry_failed=True to retry the failed cells as well"
    )


def test_where_nothing_is_left_the_exception_has_the_reason_and_the_first_root_cause(tmp_path: Path):
    """The same reason is in metadata.json."""
    run = Run(tmp_path / "out", "async")
    run(nothing_left)
    assert isinstance(run.error, rl.EarlyShutdownError)
    reason = run.written["reason"]
    assert str(run.error) == f"no row was completed; {reason}"
    assert re.match(r"error budget: all \d+ cells of column 'value' failed; the first failure was in column", reason)
    assert isinstance(run.error.__cause__, ValueError)


def test_a_missed_min_completion_after_an_early_end_gives_both_reasons(tmp_path: Path):
    """The error names the share that was missed and what ended the run."""
    run = Run(tmp_path / "out", "async")
    run.options["min_completion"] = 0.9
    run(early_shutdown)
    assert isinstance(run.error, rl.PartialDatasetError)
    assert "fewer than min_completion=0.9 requires" in str(run.error)
    assert f"the run ended early: {run.written['reason']}" in str(run.error)


def test_a_run_that_works_every_row_gives_no_reason_even_if_its_budget_is_spent_by_the_last():
    """The last row's failure spends the error budget, but nothing is left to work."""

    @rl.cell(max_parallel=1)
    async def value(row_number: int) -> int:
        return 1 // (19 - row_number)

    recipe = rl.Recipe(columns=[rl.Seed({"row_number": range(20)}), value])
    result = recipe.preview(20, error_budget=ErrorBudget(window=20, rate=0.05), progress=False)
    assert (result.reason, result.status, result.actual) == (None, "partial", 19)


def test_rows_of_a_run_that_its_error_budget_ended_can_be_added_although_a_processor_changes_the_whole(tmp_path: Path):
    """after_generation waits until every row is worked, because no row can be added to what it has made."""

    class Whole(rl.Processor):
        def after_generation(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame.assign(rows=len(frame))

    run = Run(tmp_path / "out", "async")
    run.processors = [Whole()]
    run(early_shutdown)
    assert run.result is not None
    assert "rows" not in run.result.dataset
    run.broken.clear()
    run.options = {"resume": "always", "retry_failed": True}
    run.build()
    assert (run.result.status, run.result.reason) == ("complete", None)
    assert set(run.result.dataset["rows"]) == {20}


def test_metadata_of_an_older_version_is_read(tmp_path: Path):
    """A file without a reason is a dataset like any other."""
    run = Run(tmp_path / "out", "async")
    run.build()
    older = {key: value for key, value in run.written.items() if key != "reason"}
    (run.path / ".rowloop/metadata.json").write_text(json.dumps(older))
    assert (read_result(run.path).status, read_result(run.path).reason) == ("complete", None)


def _keys(data: Any, where: str = "") -> set[str]:
    """Return the path of every key; entries of a list count as one."""
    if isinstance(data, dict):
        return {path for key, value in data.items() for path in {f"{where}.{key}", *_keys(value, f"{where}.{key}")}}
    if isinstance(data, list):
        return {path for value in data for path in _keys(value, f"{where}[]")}
    return set()


def test_a_run_under_way_has_valid_metadata_too(tmp_path: Path):
    """The directory of a run in progress has the same contract, with the status "running"."""
    run = Run(tmp_path / "out", "async")
    run.hangs = True
    started = run.recipe().start(run.path, 20, **run.all_options)
    assert run.reached.wait(20)
    written = run.written
    started.cancel()
    started.result(20)
    SCHEMA.validate(written)
    assert (written["status"], written["finished_at"]) == ("running", None)


@both_engines
def test_a_preview_has_the_keys_of_a_build(tmp_path: Path, engine: Any):
    """The metadata of a preview obeys the same schema, and differs in `kind` and in having no files."""
    run = Run(tmp_path / "out", engine)
    run.broken = {3}
    run.build()
    preview = run.recipe().preview(20, **run.all_options).metadata
    SCHEMA.validate(preview)
    assert preview["kind"] == "preview"
    assert {part["file"] for part in preview["parts"]} == {None}
    assert _keys(preview) == _keys(run.written)
    same = {"actual_num_records", "dropped_num_records", "columns", "failures", "recipe_fingerprint", "status"}
    assert {key: preview[key] for key in same} == {key: run.written[key] for key in same}


def test_the_schema_refuses_other_data(tmp_path: Path):
    """A missing key, an extra key, a wrong status, a negative count, a malformed time: all are refused."""
    run = Run(tmp_path / "out", "async")
    run.build()
    good = run.written
    for wrong in (
        {key: value for key, value in good.items() if key != "seed"},
        {**good, "more": 1},
        {**good, "status": "finished"},
        {**good, "dropped_num_records": -1},
        {**good, "started_at": "yesterday"},
        {**good, "parts": [{"row_group": 0}]},
    ):
        assert not SCHEMA.is_valid(wrong)


def the_report(caplog: pytest.LogCaptureFixture) -> tuple[logging.LogRecord, Report]:
    """Return the one record that holds a report; it is the last one."""
    records = [record for record in caplog.records if record.name.startswith("rowloop")]
    reports = [
        (record, value)
        for record in records
        for value in (record.args if isinstance(record.args, tuple) else ())
        if isinstance(value, Report)
    ]
    assert len(reports) == 1
    assert reports[0][0] is records[-1]
    return reports[0]


def test_a_run_whose_metadata_cannot_be_written_still_has_a_report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """The disk is full when metadata.json is written for the last time: the run fails, and its report says why."""
    describe = ParquetSink.describe

    async def full(sink: ParquetSink, metadata: contract.Metadata, *rest: Any) -> None:
        if metadata.status != "running":
            raise rl.DatasetGenerationError("cannot write metadata.json: the disk is full", stage="write")
        await describe(sink, metadata, *rest)

    monkeypatch.setattr(ParquetSink, "describe", full)
    run = Run(tmp_path / "out", "async")
    run(complete)
    assert isinstance(run.error, rl.DatasetGenerationError)
    _, report = the_report(caplog)
    assert (report.status, report.actual) == ("failed", 20)
    assert "the disk is full" in str(report.error)


@pytest.mark.parametrize(
    ("ending", "advice"),
    [
        (complete, None),
        (partial, 'to retry what failed: build("{path}", 20, resume="always", retry_failed=True)'),
        (cancelled, 'to resume: build("{path}", 20, resume="always")'),
        (failed, 'to resume: build("{path}", 20, resume="always")'),
    ],
)
def test_the_last_record_has_the_call_that_makes_the_missing_rows(
    tmp_path: Path, ending: Callable[[Run], None], advice: str | None, caplog: pytest.LogCaptureFixture
):
    """After the report and the directory; nothing where no row is missing."""
    run = Run(tmp_path / "out", "async")
    with caplog.at_level(logging.INFO, "rowloop"):
        run(ending)
    *_, directory, last = caplog.records[-1].getMessage().splitlines()
    assert last == (f"  written to {run.path}" if advice is None else f"  {advice.format(path=run.path)}")
    assert advice is None or directory == f"  written to {run.path}"


def test_no_call_is_advised_where_after_generation_has_changed_the_rows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Rows can neither be added nor retried then."""

    class Reversed(rl.Processor):
        def after_generation(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame.iloc[::-1]

    run = Run(tmp_path / "out", "async")
    run.processors = [Reversed()]
    run(partial)
    assert run.error is None
    assert caplog.records[-1].getMessage().endswith(f"\n  written to {run.path}")
    with pytest.raises(rl.ResumeError, match="are those that after_generation made: rows cannot be added or retried"):
        run.recipe().build(run.path, 20, resume="always", retry_failed=True, **run.all_options)


@every_ending
@both_engines
def test_the_report_is_the_last_record_of_every_ending(
    tmp_path: Path, engine: Any, ending: Callable[[Run], None], caplog: pytest.LogCaptureFixture
):
    """One record holds the report, none comes after it, and its first line agrees with the metadata."""
    run = Run(tmp_path / "out", engine)
    with caplog.at_level(logging.INFO, "rowloop"):
        run(ending)
    record, report = the_report(caplog)
    status, written = ENDINGS[ending][0], run.written
    assert report.status == status == record.getMessage().partition(":")[0]
    assert record.levelno == (logging.INFO if status == "complete" else logging.WARNING)
    assert (report.actual, report.dropped) == (written["actual_num_records"], written["dropped_num_records"])
    assert report.requests == sum(column["requests"] for column in written["columns"])
    assert report.error == written["error"]
    assert report.failures == written["failures"]
    if run.result is not None:
        assert run.result.report == report
    if isinstance(run.error, rl.PartialDatasetError):
        assert run.error.result.report == report
