"""Resuming: a run that was killed, cancelled or failed is resumed, and no answer is paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

import rowloop as rl
import victims
from directories import contents, names
from rowloop.engine.datasets.journal import Journal
from rowloop.engine.datasets.kept import make_again
from rowloop.engine.datasets.parquet_sink import ParquetSink
from rowloop.engine.datasets.reading import read_metadata, read_result
from victims import CRASHED, Reversed, Victims, at, chain, echo, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fake_openai import FakeOpenAI, Recorded

ALWAYS: Any = "always"
NEVER: Any = "never"
IF_POSSIBLE: Any = "if_possible"
GROUPS: dict[str, Any] = {"row_group_size": 6, "progress": False}
RESUME: dict[str, Any] = {**GROUPS, "resume": ALWAYS}
ROWS = 22


class Asked:
    """A model that records its prompts, and fails for those in `broken`."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.broken: set[str] = set()
        self.lock = threading.Lock()

    def __call__(self, prompt: str) -> str:
        with self.lock:
            self.prompts.append(prompt)
        if prompt in self.broken:
            raise ValueError(f"no answer to {prompt}")
        return f"<{prompt}>"

    def new(self) -> list[str]:
        """Return the prompts since the last call, in order."""
        prompts, self.prompts = sorted(self.prompts), []
        return prompts


@pytest.fixture
def asked() -> Asked:
    """Return a model that answers at once."""
    return Asked()


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Read the parts on the disk, in order."""
    files = sorted((path / "data").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file, partitioning=None) for file in files]).to_pylist() if files else []


def metadata(path: Path) -> dict[str, Any]:
    """Read metadata.json."""
    return dict(json.loads((path / ".rowloop/metadata.json").read_bytes()))


def simple(asked: Callable[[str], str], rows: int = 100, **options: Any) -> rl.Recipe:
    """Make a recipe of one model column over numbered rows."""
    on_error = options.pop("on_error", "drop")
    columns = options.pop("columns", [])
    return rl.Recipe(
        models={"m": rl.Model(asked, max_parallel=options.pop("max_parallel", 8))},
        columns=[
            rl.Seed(pd.DataFrame({"n": range(rows)})),
            rl.Text("text", model="m", prompt=options.pop("prompt", "row {{ n }}"), on_error=on_error),
            *columns,
        ],
        **options,
    )


def prompts(*numbers: int) -> list[str]:
    """Return the prompts of `simple` for these rows."""
    return sorted(f"row {number}" for number in numbers)


# Kills and crashes


@pytest.fixture(scope="module")
def victim() -> Iterator[Victims]:
    """Share the process that victims are forked from."""
    with Victims() as process:
        yield process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], dict[str, Any]]:
    """Return the outcome of an undisturbed `chain`."""
    kept: dict[bool, dict[str, Any]] = {}

    def of(rewritten: bool) -> dict[str, Any]:  # noqa: FBT001 - its one argument
        if rewritten not in kept:
            recipe = chain(rl.Model(echo), rewritten=rewritten)
            kept[rewritten] = outcome(recipe.build(tmp_path_factory.mktemp("whole"), ROWS, **GROUPS))
        return kept[rewritten]

    return of


def crashes(  # noqa: PLR0913 - the tests say which and how many
    victim: Victims, path: Path, first: int, step: int, again: int, *, rewritten: bool
) -> Iterator[Path]:
    """Build datasets that crash at one change of a file after another, and some again when they are resumed."""
    change, ended = first, CRASHED
    while ended == CRASHED:
        directory = path / f"{change}-{rewritten}"
        order: dict[str, Any] = {"rewritten": rewritten, "options": {**GROUPS, "resume": "always"}}
        order["options"].pop("progress")
        victim.start(directory, ROWS, crash_at=change, **order)
        ended = victim.ended()
        assert ended in {0, CRASHED}
        if ended == CRASHED and change % again == 0:
            victim.start(directory, ROWS, crash_at=1 + change * 7 % 30, **order)
            assert victim.ended() in {0, CRASHED}
        yield directory
        change += step


def check_crashes(  # noqa: PLR0913, PLR0917 - it is called twice
    victim: Victims, path: Path, undisturbed: Callable[[bool], dict[str, Any]], first: int, step: int, again: int
) -> None:
    """Resume each dataset and check that it equals an undisturbed one."""
    for rewritten in (False, True):
        recipe = chain(rl.Model(echo), rewritten=rewritten)
        for directory in crashes(victim, path, first, step, again, rewritten=rewritten):
            result = recipe.build(directory, ROWS, **RESUME)
            assert outcome(result) == undisturbed(rewritten), directory
            assert metadata(directory) == result.metadata
            there = {name for name in names(directory) if not name.startswith("data/")}
            assert there == {f".rowloop/{name}" for name in ("failures.parquet", "journal.sqlite", "metadata.json")}
            assert len(list((directory / "data").iterdir())) == len(result.metadata["parts"])


def test_a_dataset_resumes_after_a_crash_before_some_changes_of_files(
    victim: Victims, tmp_path: Path, undisturbed: Callable[[bool], dict[str, Any]]
):
    """In parts, metadata, the journal's transactions, and while after_generation replaces the parts."""
    check_crashes(victim, tmp_path, undisturbed, first=2, step=11, again=4)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_a_dataset_resumes_after_a_crash_before_each_change_of_a_file(
    victim: Victims, tmp_path: Path, undisturbed: Callable[[bool], dict[str, Any]]
):
    """Each change, one after the other, and each of them twice."""
    check_crashes(victim, tmp_path, undisturbed, first=1, step=1, again=1)


def check_kills(server: FakeOpenAI, victim: Victims, path: Path, kills: list[int], rows: int = 60) -> None:
    """Kill a build after these numbers of answers; check that it can be finished, and that no answer was lost."""
    server.configure(reply="echo", latency=0.03, jitter=0.02, record=100_000, seed=4)
    whole = outcome(chain(at(server.url)).build(path / "whole", rows, **GROUPS))
    server.reset()
    safe: dict[str, int] = {}
    begun = time.monotonic()
    for count in kills:
        killed = victim.start(path / "killed", rows, server.url, options={"row_group_size": 6, "resume": "always"})
        server.wait_for(answered=count, timeout=20)
        os.kill(killed, signal.SIGKILL)
        now = time.monotonic()
        assert victim.ended() == -signal.SIGKILL
        requests = [(prompt_of(request), request.answered_at) for request in server.requests()]
        asked = Counter(prompt for prompt, _ in requests)
        safe |= {prompt: asked[prompt] for prompt, end in requests if end is not None and begun < end < now - 0.1}
        begun = time.monotonic()
    result = chain(at(server.url)).build(path / "killed", rows, **RESUME)
    assert outcome(result) == whole
    assert metadata(path / "killed") == result.metadata
    asked = Counter(prompt_of(request) for request in server.requests())
    assert {prompt: asked[prompt] for prompt in safe} == safe
    assert len(safe) > kills[-1] / 4


def prompt_of(request: Recorded) -> str:
    """Return the prompt of a request."""
    return str(request.json()["messages"][-1]["content"])


def test_an_answer_received_100_ms_before_a_kill_is_not_requested_again(
    server: FakeOpenAI, victim: Victims, tmp_path: Path
):
    """Killed and resumed several times, a dataset equals an undisturbed one."""
    check_kills(server, victim, tmp_path, [30, 40, 75, 110])


@pytest.mark.stress
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(20))
def test_kills_at_random_moments_lose_no_answer(server: FakeOpenAI, victim: Victims, tmp_path: Path, seed: int):
    """The same, for longer."""
    draw = random.Random(seed)  # noqa: S311 - repeatable, not secret
    check_kills(server, victim, tmp_path, sorted(draw.sample(range(10, 550), 12)), rows=300)


def check_losses(server: FakeOpenAI, victim: Victims, path: Path, kills: int, seed: int) -> None:
    """Kill builds at random moments, also before they claim the directory, and lose some journals or parts of them.

    No part is ever removed or shortened, nothing that is in a part is asked again, and the rows are those of an
    undisturbed run.
    """
    rows, draw = 60, random.Random(seed)  # noqa: S311 - repeatable, not secret
    server.configure(reply="echo", latency=0.01, record=100_000, seed=4)
    whole = chain(at(server.url)).build(path / "whole", rows, **GROUPS).to_arrow().to_pylist()
    options: dict[str, Any] = {"row_group_size": 6, "resume": "always"}
    done, number = kills, 0
    while done > 0:
        number += 1
        out = path / str(number)
        server.reset()
        parts: dict[str, int] = {}
        kept: dict[str, int] = {}
        for _ in range(min(done, 8)):
            killed = victim.start(out, rows, server.url, options=options)
            if draw.random() < 0.8:
                with contextlib.suppress(TimeoutError):
                    server.wait_for(answered=server.counters().answered + draw.randrange(60), timeout=2)
            with contextlib.suppress(ProcessLookupError):  # it has finished
                os.kill(killed, signal.SIGKILL)
            victim.ended()
            done -= 1
            asked = Counter(map(prompt_of, server.requests()))
            there = {file.name: pq.read_metadata(file).num_rows for file in (out / "data").glob("part-*.parquet")}
            assert {name: there.get(name) for name in parts} == parts, "a part was removed or shortened"
            texts = [row[name] for row in rows_of(out) for name in ("question", "answer")]
            assert all(asked[prompt] == times for prompt, times in kept.items()), "what is in a part was asked again"
            parts, kept = there, {prompt: asked[prompt] for prompt in texts}
            for lost in (out / ".rowloop").glob("journal.sqlite*"):
                if draw.random() < 0.2:
                    lost.unlink()
        check_replaced(chain(at(server.url)), out, rows, draw)
        result = chain(at(server.url)).build(out, rows, **RESUME)
        assert result.to_arrow().to_pylist() == whole
        asked = Counter(map(prompt_of, server.requests()))
        assert all(asked[prompt] == times for prompt, times in kept.items()), "what is in a part was asked again"


def check_replaced(recipe: rl.Recipe, out: Path, rows: int, draw: random.Random) -> None:
    """Put one part in the place of another that has as many rows: it is named, and nothing is asked or changed."""
    parts = sorted((out / "data").glob("part-*.parquet"))
    draw.shuffle(parts)
    pairs = combinations(parts, 2)
    alike = [pair for pair in pairs if len({pq.read_metadata(part).num_rows for part in pair}) == 1]
    if not alike:
        return
    replaced, other = alike[0]
    own = replaced.read_bytes()
    replaced.write_bytes(other.read_bytes())
    before = {part: part.read_bytes() for part in parts}
    with pytest.raises(rl.ResumeError, match=replaced.name):
        recipe.build(out, rows, **RESUME)
    assert {part: part.read_bytes() for part in (out / "data").glob("part-*.parquet")} == before
    replaced.write_bytes(own)


@pytest.mark.outside
def test_kills_and_lost_journals_remove_no_part(server: FakeOpenAI, victim: Victims, tmp_path: Path):
    """A write-ahead log without its journal, a journal without its log, and neither."""
    check_losses(server, victim, tmp_path, 6, seed=1)


@pytest.mark.stress
@pytest.mark.outside
@pytest.mark.timeout(900)
def test_two_hundred_kills_with_lost_journals_remove_no_part(server: FakeOpenAI, victim: Victims, tmp_path: Path):
    """The same, for longer."""
    check_losses(server, victim, tmp_path, 200, seed=2)


def test_a_finished_dataset_sends_no_request_and_needs_no_endpoint(
    server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nor a key; its result is the same again."""
    server.configure(reply="echo")
    monkeypatch.setenv("SOME_KEY", "sk-1")
    recipe = chain(rl.Model("openai:m", base_url=server.url, api_key_env="SOME_KEY"))
    first = recipe.build(tmp_path, ROWS, **GROUPS)
    before = contents(tmp_path)
    server.stop()
    monkeypatch.delenv("SOME_KEY")
    again = recipe.build(tmp_path, ROWS, **RESUME)
    assert outcome(again) == outcome(first)
    assert again.usage == first.usage
    assert contents(tmp_path) == before
    with pytest.raises(rl.RecipeError, match="SOME_KEY"):
        recipe.build(tmp_path, ROWS + 1, **RESUME)
    assert outcome(recipe.build(tmp_path, ROWS, **RESUME)) == outcome(first)


def test_stale_or_broken_metadata_is_rewritten(tmp_path: Path, asked: Asked):
    """The parts are the truth; no request is sent."""
    asked.broken.add("row 5")
    whole = simple(asked, on_error="null").build(tmp_path, 9, **GROUPS).metadata
    file = tmp_path / ".rowloop/metadata.json"
    for text in (None, "{", "{}", json.dumps({**whole, "status": "running", "actual_num_records": 0, "parts": []})):
        asked.new()
        file.unlink() if text is None else file.write_text(text)
        again = simple(asked, on_error="null").build(tmp_path, 9, **RESUME)
        assert asked.new() == []
        written = metadata(tmp_path)
        assert again.metadata == written
        assert [written[name] for name in ("status", "columns", "parts")] == [
            whole[name] for name in ("status", "columns", "parts")
        ]


# After a clean end


@pytest.mark.parametrize("rewritten", [False, True])
def test_after_success_no_journal_is_left(tmp_path: Path, asked: Asked, *, rewritten: bool):
    """A finished dataset is read back, and leaves none either; no file changes by that."""
    recipe = simple(asked, processors=[Reversed()] if rewritten else [])
    first = recipe.build(tmp_path, 16, **GROUPS)
    before = contents(tmp_path)
    assert not [file for file in before if "journal" in file.name]
    again = recipe.build(tmp_path, 16, **RESUME)
    assert again.metadata == first.metadata == metadata(tmp_path)
    assert again.dataset.equals(first.dataset)
    assert contents(tmp_path) == before


def test_a_dataset_without_its_journal_grows_and_goes_on_counting(tmp_path: Path, asked: Asked):
    """The recipe, the seed, what was spent and the counts come from metadata.json and the parts."""
    columns = [rl.Category("word", values=["a", "b", "c"])]
    simple(asked, columns=columns).build(tmp_path, 16, **GROUPS)
    asked.new()
    grown = simple(asked, columns=columns).build(tmp_path, 20, **RESUME)
    assert asked.new() == prompts(*range(16, 20))
    assert grown.usage.requests == 20
    whole = simple(Asked(), columns=columns, seed=grown.metadata["seed"]).build(tmp_path / "whole", 20, **GROUPS)
    assert grown.dataset.equals(whole.dataset)
    assert not list(tmp_path.glob(".rowloop/journal*"))


def test_a_dataset_without_its_journal_is_compared_as_with_one(
    tmp_path: Path, asked: Asked, caplog: pytest.LogCaptureFixture
):
    """Another recipe is refused with the difference, a changed part is named, and a missing one is made again."""
    path = tmp_path / "out"
    simple(asked).build(path, 16, **GROUPS)
    before = contents(path)
    with pytest.raises(rl.ResumeError, match=r"columns\.text\.prompt is 'line .*', and was 'row "):
        simple(asked, prompt="line {{ n }}").build(path, 16, **RESUME)
    part = path / "data/part-00001.parquet"
    part.write_bytes(before[path / "data/part-00000.parquet"])
    with pytest.raises(rl.ResumeError, match=r"part-00001\.parquet' is damaged or was changed"):
        simple(asked).build(path, 17, **RESUME)
    part.unlink()
    asked.new()
    again = simple(asked).build(path, 16, **RESUME)
    assert "the part of row group 1 is missing" in caplog.text
    assert (again.status, asked.new()) == ("complete", prompts(*range(6, 12)))
    assert again.usage.requests == 22


@pytest.mark.parametrize("text", [None, "{"])
def test_parts_without_journal_and_metadata_are_kept(tmp_path: Path, asked: Asked, text: str | None):
    """They say of themselves what they are; what they cost is not known any more."""
    whole = simple(asked).build(tmp_path, 9, **GROUPS)
    file = tmp_path / ".rowloop/metadata.json"
    file.unlink() if text is None else file.write_text(text)
    asked.new()
    again = simple(asked).build(tmp_path, 9, **RESUME)
    assert (asked.new(), again.status) == ([], "complete")
    assert again.dataset.equals(whole.dataset)
    assert again.metadata == metadata(tmp_path)


def test_a_journal_is_kept_while_something_may_be_retried(tmp_path: Path, asked: Asked):
    """A retry that succeeds removes it."""
    asked.broken.add("row 5")
    simple(asked, on_error="null").build(tmp_path, 9, **GROUPS)
    assert (tmp_path / ".rowloop/journal.sqlite").exists()
    asked.broken.clear()
    asked.new()
    again = simple(asked, on_error="null").build(tmp_path, 9, retry_failed=True, **RESUME)
    assert (asked.new(), again.status) == (prompts(5), "complete")
    assert not list(tmp_path.glob(".rowloop/journal*"))


def test_a_dataset_can_grow_also_by_less_than_a_row_group(tmp_path: Path, asked: Asked):
    """Earlier rows stay as they were, samplers continue as in one run, and only new rows are requested."""
    sampled: list[Any] = [rl.Uniform("u", 0, 1), rl.Category("c", ["a", "b"])]
    recipe = simple(asked, columns=sampled, seed=3)
    recipe.build(tmp_path, 7, **GROUPS)
    first = rows_of(tmp_path)
    asked.new()
    for target in (7, 10, 25):
        result = recipe.build(tmp_path, target, resume=ALWAYS, progress=False)
        assert rows_of(tmp_path)[:7] == first
        assert (result.target, result.actual) == (target, target)
    assert asked.new() == prompts(*range(7, 25))
    whole = recipe.preview(25, progress=False, row_group_size=4)  # the same with other row groups
    assert result.to_arrow().to_pylist() == whole.to_arrow().to_pylist() == rows_of(tmp_path)
    assert [(part["start"], part["rows"]) for part in result.metadata["parts"]] == [
        (0, 6), (6, 1), (7, 3), (10, 6), (16, 6), (22, 3),
    ]  # fmt: skip


def test_a_recipe_without_a_seed_resumes_with_the_seed_of_its_dataset(tmp_path: Path, asked: Asked):
    """A resumed run draws the same values."""
    recipe = simple(asked, columns=[rl.Uniform("u", 0, 1)])
    first = recipe.build(tmp_path, 5, **GROUPS)
    again = recipe.build(tmp_path, 12, **RESUME)
    assert again.metadata["seed"] == first.metadata["seed"]
    seeded = simple(asked, columns=[rl.Uniform("u", 0, 1)], seed=first.metadata["seed"]).preview(12, progress=False)
    assert again.dataset["u"].tolist() == seeded.dataset["u"].tolist()


@pytest.mark.parametrize("when", ["resumed", "crashed while parts were widened"])
def test_types_widened_by_later_rows_are_those_of_an_undisturbed_run(tmp_path: Path, asked: Asked, when: str):
    """Integers first, then floats; after a crash, parts of both types get one."""

    @rl.cell
    def half(n: int) -> int | float:
        return n if n < 6 else n / 2

    recipe = simple(asked, columns=[half])
    recipe.build(tmp_path, 6, **GROUPS)
    assert pq.read_schema(tmp_path / "data" / "part-00000.parquet").field("half").type == "int64"
    if when != "resumed":
        recipe.build(tmp_path, 12, **RESUME)
        part = tmp_path / "data" / "part-00000.parquet"
        table = pq.read_table(part, partitioning=None)
        at = table.schema.names.index("half")
        journal = Journal(tmp_path / ".rowloop/journal.sqlite")
        ended = read_metadata(tmp_path)
        assert ended is not None
        make_again(journal, tmp_path, ended)
        journal.remove_when_closed(removed=False)
        journal.set_checksums({0: None})
        journal.close()
        pq.write_table(table.set_column(at, "half", table.column("half").cast("int64")), part)
    result = recipe.build(tmp_path, 12 if when == "resumed" else 13, **RESUME)
    assert {str(pq.read_schema(part).field("half").type) for part in (tmp_path / "data").iterdir()} == {"double"}
    assert result.dataset["half"].tolist()[:12] == [0, 1, 2, 3, 4, 5, 3, 3.5, 4, 4.5, 5, 5.5]


def test_a_part_written_while_another_widens_the_types_is_widened_as_well(
    tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    """Also when the journal is slow."""
    slow = Journal.mark_over
    written = threading.Event()

    def mark_over(journal: Journal, group: int, over: Any) -> None:
        if group == 0:
            assert written.wait(10)
        slow(journal, group, over)

    write = ParquetSink._write_part

    def write_part(sink: ParquetSink, group: Any, rows: Any, tally: Any) -> Any:
        part = write(sink, group, rows, tally)
        if group.id == 1:
            written.set()
        return part

    @rl.cell
    async def half(n: int) -> int | float:
        return n if n < 3 else n / 2

    monkeypatch.setattr(Journal, "mark_over", mark_over)
    monkeypatch.setattr(Journal, "mark_writing", lambda *_: None)
    monkeypatch.setattr(ParquetSink, "_write_part", write_part)
    result = simple(asked, columns=[half]).build(tmp_path, 6, row_group_size=3, progress=False)
    assert result.dataset["half"].tolist() == [0, 1, 2, 1.5, 2, 2.5]


# Failures


def cut_off(recipe: rl.Recipe, path: Path, rows: int, reached: int, parts: int = 0, **options: Any) -> None:
    """Build until these numbers of rows have reached the gate and of parts are written, then cancel."""
    GATE.expected = reached
    written = threading.Semaphore(0)
    given: dict[str, Any] = {**RESUME, "on_part": lambda _: written.release(), **options}
    run = recipe.start(path, rows, **given)
    for _ in range(parts):
        assert written.acquire(timeout=20)
    assert HANGING.wait(20)
    run.cancel()
    assert run.result(20).status == "cancelled"


HANGING = threading.Event()
HANG: set[int] = set()
GATE = SimpleNamespace(expected=1, reached=0)


@rl.cell
async def gate(n: int, text: str) -> str:
    """Hang for some rows; set an event when all expected rows have arrived."""
    GATE.reached += 1
    if GATE.reached == GATE.expected:
        HANGING.set()
    if n in HANG:
        await asyncio.sleep(3600)
    return f"{n}: {text}"


@pytest.fixture
def hang() -> Iterator[set[int]]:
    """Return the rows at which `gate` hangs, none at first."""
    HANGING.clear()
    GATE.reached = 0
    yield HANG
    HANG.clear()


@pytest.mark.parametrize("on_error", ["drop", "null"])
def test_failures_outlive_the_run(tmp_path: Path, asked: Asked, on_error: str, hang: set[int]):
    """Dropped and nulled cells stay so, and in failures.parquet; resuming alone does not retry them."""
    asked.broken = {"row 1", "row 8"}
    hang.add(10)
    recipe = simple(asked, on_error=on_error, columns=[gate])
    cut_off(recipe, tmp_path, 12, 10 if on_error == "drop" else 12)
    first = pd.read_parquet(tmp_path / ".rowloop/failures.parquet")
    assert first["row"].tolist() == [1, 8]
    hang.clear()
    asked.new()
    result = recipe.build(tmp_path, 12, **RESUME)
    assert asked.new() == []
    assert (result.status, result.actual) == ("partial", 10) if on_error == "drop" else ("complete", 12)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / ".rowloop/failures.parquet"), first)
    pd.testing.assert_frame_equal(result.failures, first, check_dtype=False)
    column = result.metadata["columns"][1]
    assert (column["completed"], column["failed"], column["skipped"]) == (10, 2, 0)


def test_a_failure_that_ended_a_run_is_retried_by_the_next(tmp_path: Path, asked: Asked):
    """With on_error="raise", without retry_failed; once it succeeds, it is no failure."""
    asked.broken = {"row 8"}
    recipe = simple(asked, on_error="raise", max_parallel=1)
    with pytest.raises(rl.DatasetGenerationError, match="no answer to row 8"):
        recipe.build(tmp_path, 12, **GROUPS)
    assert list(metadata(tmp_path)["failures"].values()) == [1]
    assert asked.new() == prompts(*range(9))
    with pytest.raises(rl.DatasetGenerationError, match="no answer to row 8"):
        recipe.build(tmp_path, 12, **RESUME)
    assert asked.new() == prompts(8)
    asked.broken = set()
    result = recipe.build(tmp_path, 12, **RESUME)
    assert asked.new() == prompts(*range(8, 12))
    assert (result.status, result.actual, len(result.failures)) == ("complete", 12, 0)
    assert not (tmp_path / ".rowloop/failures.parquet").exists()


def test_retry_failed_requests_the_failed_cells_and_nothing_else(tmp_path: Path, asked: Asked):
    """Rows keep their positions; other row groups are not changed."""
    asked.broken = {"row 1", "row 8", "row 9"}
    recipe = simple(asked, columns=[rl.Uniform("u", 0, 1)], seed=1)
    recipe.build(tmp_path, 16, **GROUPS)
    untouched = (tmp_path / "data" / "part-00002.parquet").stat()
    asked.new()
    asked.broken = {"row 9"}
    result = recipe.build(tmp_path, 16, retry_failed=True, **RESUME)
    assert asked.new() == prompts(1, 8, 9)
    assert (result.status, result.actual, result.dropped) == ("partial", 15, 1)
    assert result.dataset["n"].tolist() == [n for n in range(16) if n != 9]
    assert [
        failure["row"] for failure in pd.read_parquet(tmp_path / ".rowloop/failures.parquet").to_dict("records")
    ] == [9]
    asked.broken = set()
    result = recipe.build(tmp_path, 16, retry_failed=True, **RESUME)
    assert asked.new() == prompts(9)
    assert result.status == "complete"
    assert rows_of(tmp_path) == recipe.preview(16, progress=False).to_arrow().to_pylist()
    assert not (tmp_path / ".rowloop/failures.parquet").exists()
    assert (tmp_path / "data" / "part-00002.parquet").stat().st_mtime_ns == untouched.st_mtime_ns
    assert {(c["completed"], c["failed"], c["skipped"]) for c in result.metadata["columns"]} == {(16, 0, 0)}


def test_children_of_a_nulled_cell_are_worked_again_when_it_is_retried(tmp_path: Path, asked: Asked):
    """What was made from null is made from the answer; the children of other rows are not requested again."""
    asked.broken = {"row 1"}
    child = rl.Text("child", model="m", prompt="child of {{ text }} at {{ n }}")
    recipe = simple(asked, on_error="null", columns=[child])
    first = recipe.build(tmp_path, 4, **GROUPS)
    assert first.dataset["child"].tolist()[1] == "<child of  at 1>"
    asked.new()
    asked.broken = set()
    result = recipe.build(tmp_path, 4, retry_failed=True, **RESUME)
    assert asked.new() == ["child of <row 1> at 1", "row 1"]
    assert result.to_arrow().to_pylist() == recipe.preview(4, progress=False).to_arrow().to_pylist()


def test_an_interrupted_retry_removes_nothing_and_can_be_resumed(tmp_path: Path, asked: Asked, hang: set[int]):
    """The old part stays until a better one is written; the other failed cells are retried by the next run."""
    asked.broken = {"row 1", "row 3"}
    recipe = simple(asked, on_error="null", columns=[gate])
    recipe.build(tmp_path, 8, **GROUPS)
    asked.broken = set()
    asked.new()
    hang.add(3)
    GATE.reached = 0
    HANGING.clear()
    cut_off(recipe, tmp_path, 8, 2, retry_failed=True)
    assert asked.new() == prompts(1, 3)
    assert [row["n"] for row in rows_of(tmp_path)] == list(range(8))
    assert metadata(tmp_path)["actual_num_records"] == 8
    hang.clear()
    result = recipe.build(tmp_path, 8, **RESUME)
    assert asked.new() == []
    assert result.status == "complete"
    assert result.dataset["gate"].tolist() == [f"{n}: <row {n}>" for n in range(8)]
    assert len(result.failures) == 0


def test_a_killed_retry_can_be_resumed(victim: Victims, tmp_path: Path, undisturbed: Callable[[bool], dict[str, Any]]):
    """At any moment: a cell that fails again is in the failures table once."""
    chain(rl.Model(echo)).build(tmp_path / "whole", ROWS, **GROUPS)
    options = {"row_group_size": 6, "resume": "always", "retry_failed": True}
    for change in range(1, 60, 11):
        directory = tmp_path / str(change)
        shutil.copytree(tmp_path / "whole", directory)
        victim.start(directory, ROWS, options=options, crash_at=change)
        assert victim.ended() in {0, CRASHED}
        result = chain(rl.Model(echo)).build(directory, ROWS, **RESUME)
        assert outcome(result) == undisturbed(False), change  # noqa: FBT003 - rewritten


@pytest.mark.parametrize("lost", [False, True])
def test_a_mended_function_works_the_failed_cells_alone(tmp_path: Path, asked: Asked, *, lost: bool):
    """With retry_failed, changed code is taken; finished cells and answers stay, also if the journal is lost later."""

    def broken(n: int, text: str) -> str:
        return f"{text} {10 // (n % 5)}"

    def mended(n: int, text: str) -> str:
        return f"{text} mended {n}"

    def recipe(function: Callable[..., str]) -> rl.Recipe:
        column = rl.cell(name="ratio")(function)
        return simple(asked, rows=12, columns=[column, rl.Text("after", model="m", prompt="{{ ratio }}")])

    assert recipe(broken).build(tmp_path, 12, **GROUPS).dropped == 3
    asked.new()
    with pytest.raises(rl.ResumeError, match=r"columns\.ratio\.code has changed"):
        recipe(mended).build(tmp_path, 12, **RESUME)
    result = recipe(mended).build(tmp_path, 12, retry_failed=True, **RESUME)
    assert asked.new() == [f"<row {n}> mended {n}" for n in (0, 10, 5)]
    assert result.dataset["ratio"].tolist() == [
        f"<row {n}> mended {n}" if n % 5 == 0 else f"<row {n}> {10 // (n % 5)}" for n in range(12)
    ]
    if lost:
        for file in (tmp_path / ".rowloop").glob("journal*"):
            file.unlink()
    assert recipe(mended).build(tmp_path, 12, **RESUME).actual == 12
    assert asked.new() == []
    with pytest.raises(rl.ResumeError, match="has another dataset"):
        recipe(broken).build(tmp_path, 12, **RESUME)


def test_a_mended_function_is_the_only_change_that_a_retry_takes(tmp_path: Path, asked: Asked):
    """Another prompt beside it is refused, and so is a function that was none before."""
    asked.broken = {"row 1"}
    simple(asked, rows=4).build(tmp_path, 4, **GROUPS)
    with pytest.raises(rl.ResumeError, match=r"columns\.text\.prompt is"):
        simple(asked, rows=4, prompt="r {{ n }}").build(tmp_path, 4, retry_failed=True, **RESUME)


@pytest.mark.parametrize("fits", [True, False])
def test_retry_failed_needs_a_dataset_to_resume(tmp_path: Path, asked: Asked, *, fits: bool):
    """It is refused without resume, and in a preview, naming the field."""
    recipe = simple(asked)
    with pytest.raises(rl.RecipeError, match=r"retry_failed: .*resume") as caught:
        recipe.build(tmp_path, 3, progress=False, retry_failed=True)
    assert caught.value.path == "retry_failed"
    for options in ({"resume": ALWAYS}, {"resume": IF_POSSIBLE, "retry_failed": fits}):
        with pytest.raises(rl.RecipeError, match="preview") as caught:
            recipe.preview(3, progress=False, **options)
        assert caught.value.path == "resume"
    assert contents(tmp_path) == {}
    assert asked.new() == []


# Restored row groups


def test_a_cell_whose_value_cannot_be_journaled_is_worked_again_and_its_children_are_not(
    tmp_path: Path, asked: Asked, hang: set[int]
):
    """The children were answered."""
    worked: list[int] = []

    @rl.cell
    def pair(n: int) -> tuple[int, int]:
        worked.append(n)
        return n, n

    hang.add(3)
    recipe = simple(asked, prompt="child of {{ pair }}", columns=[pair, gate])
    cut_off(recipe, tmp_path, 4, 4)
    assert sorted(worked) == [0, 1, 2, 3]
    hang.clear()
    asked.new()
    result = recipe.build(tmp_path, 4, **RESUME)
    assert asked.new() == []
    assert sorted(worked) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert result.dataset["text"].tolist() == [f"<child of ({n}, {n})>" for n in range(4)]


def test_a_run_that_is_cancelled_while_it_restores_loses_nothing(
    tmp_path: Path, asked: Asked, hang: set[int], monkeypatch: pytest.MonkeyPatch
):
    """The part of a row group that lost rows stays until a better one is written."""
    hang.add(3)
    recipe = simple(asked, columns=[gate])
    cut_off(recipe, tmp_path, 12, 12, parts=1)
    there = rows_of(tmp_path)
    hang.clear()
    asked.new()
    recalling, resume = threading.Event(), threading.Event()
    recall = Journal.recall

    def slowly(journal: Journal, row_group: int) -> Any:
        recalling.set()
        assert resume.wait(20)
        return recall(journal, row_group)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "recall", slowly)
        run = recipe.start(tmp_path, 12, **RESUME)
        assert recalling.wait(20)
        run.cancel()
        resume.set()
        assert run.result(20).status == "cancelled"
    assert rows_of(tmp_path) == there
    assert recipe.build(tmp_path, 12, **RESUME).actual == 12
    assert asked.new() == []


def test_batch_and_stateful_columns_are_restored_whole(tmp_path: Path, asked: Asked, hang: set[int]):
    """A batch that was done is not worked again; stateful columns continue in the order of the rows."""
    batches: list[list[int]] = []
    order: list[int] = []

    @rl.batch
    def place(n: pd.Series[int], text: pd.Series[str]) -> list[int]:  # noqa: ARG001 - waited for
        batches.append(n.tolist())
        return [number * 2 for number in n]

    @rl.batch(stateful=True)
    def running(n: pd.Series[int], place: pd.Series[int]) -> list[int]:  # noqa: ARG001 - waited for
        order.extend(n.tolist())
        return n.tolist()

    asked.broken = {"row 2"}
    hang.add(8)
    recipe = simple(asked, columns=[place, running, gate])
    cut_off(recipe, tmp_path, 18, 17, parts=2)
    assert [0, 1, 3, 4, 5] in batches
    hang.clear()
    result = recipe.build(tmp_path, 18, **RESUME)
    assert sorted(map(tuple, batches)) == [(0, 1, 3, 4, 5), tuple(range(6, 12)), tuple(range(12, 18))]
    assert order == [n for n in range(18) if n != 2]
    assert result.dataset["place"].tolist() == [n * 2 for n in order]
    assert {(c["completed"], c["failed"]) for c in result.metadata["columns"][2:]} == {(17, 0)}


class Shuffled(rl.Processor):
    """Give rows other values each time."""

    def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.sample(frac=1)


def test_answers_stay_with_their_inputs_whatever_before_batch_does(tmp_path: Path, asked: Asked, hang: set[int]):
    """The values it made are kept as well; after_batch and dropped columns are as in one run."""
    drop = rl.DropColumns(["u"])
    hang.update(range(4, 100))
    recipe = simple(asked, columns=[rl.Uniform("u", 0, 1), gate], processors=[Shuffled(), drop])
    cut_off(recipe, tmp_path, 24, 24)
    hang.clear()
    before = len(asked.new())
    result = recipe.build(tmp_path, 24, **RESUME)
    assert before + len(asked.new()) == 24
    frame = result.dataset
    assert list(frame.columns) == ["n", "text", "gate"]
    assert sorted(frame["n"]) == list(range(24))
    assert frame["text"].tolist() == [f"<row {n}>" for n in frame["n"]]


def test_the_sequential_engine_restores_cells_as_the_other_does(tmp_path: Path, asked: Asked, hang: set[int]):
    """Column by column."""
    hang.add(7)
    recipe = simple(asked, columns=[gate])
    cut_off(recipe, tmp_path, 10, 10, engine="sequential")
    hang.clear()
    asked.new()
    result = recipe.build(tmp_path, 10, engine="sequential", **RESUME)
    assert asked.new() == []
    assert result.dataset["gate"].tolist() == [f"{n}: <row {n}>" for n in range(10)]
    with pytest.raises(rl.ResumeError, match="engine is async, and was sequential"):
        recipe.build(tmp_path, 10, **RESUME)


@pytest.mark.filterwarnings("ignore:allow_resize:DeprecationWarning")
def test_row_groups_that_change_their_size_are_resumed_as_a_whole(tmp_path: Path, asked: Asked, hang: set[int]):
    """Finished ones are not worked again, others start over."""

    @rl.batch(allow_resize=True)
    def odd(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[frame["n"] % 2 == 1].assign(odd=1)

    hang.add(9)
    recipe = simple(asked, columns=[odd, gate])
    cut_off(recipe, tmp_path, 18, 9, parts=2)
    there = {row["n"] for row in rows_of(tmp_path)}
    assert there >= {1, 3, 5}
    hang.clear()
    asked.new()
    result = recipe.build(tmp_path, 18, **RESUME)
    assert not set(asked.new()) & set(prompts(*range(6)))
    assert result.dataset["n"].tolist() == list(range(1, 18, 2))


def test_without_a_journal_of_cells_finished_row_groups_are_resumed(tmp_path: Path, asked: Asked, hang: set[int]):
    """The cells of unfinished ones are requested again."""
    hang.add(7)
    recipe = simple(asked, columns=[gate])
    cut_off(recipe, tmp_path, 18, 18, parts=2, journal=False)
    hang.clear()
    first = len(asked.new())
    result = recipe.build(tmp_path, 18, journal=False, **RESUME)
    again = asked.new()
    assert prompts(*range(6, 12)) == sorted(set(again) & set(prompts(*range(6, 12))))
    assert not set(again) & set(prompts(*range(6)))
    assert result.usage.requests == first + len(again)
    assert result.dataset["gate"].tolist() == [f"{n}: <row {n}>" for n in range(18)]


def test_a_missing_part_is_made_again(tmp_path: Path, asked: Asked, caplog: pytest.LogCaptureFixture):
    """Its rows are requested again, with the same sampled values, and a warning names it."""
    asked.broken = {"row 8"}
    recipe = simple(asked, columns=[rl.Uniform("u", 0, 1)])
    first = recipe.build(tmp_path, 16, **GROUPS).to_arrow()
    (tmp_path / "data" / "part-00001.parquet").unlink()
    asked.new()
    result = recipe.build(tmp_path, 16, **RESUME)
    assert asked.new() == prompts(*range(6, 12))
    assert "the part of row group 1 is missing" in caplog.text
    assert result.to_arrow().equals(first)
    assert result.failures["row"].tolist() == [8]


def no_journal(path: Path) -> None:
    """Remove it, and what metadata.json keeps of it after a clean end."""
    (path / ".rowloop/journal.sqlite").unlink(missing_ok=True)
    file = path / ".rowloop/metadata.json"
    file.write_text(json.dumps({**json.loads(file.read_bytes()), "kept": None}))


def empty_journal(path: Path) -> None:
    """Leave an empty file."""
    (path / ".rowloop/journal.sqlite").write_bytes(b"")


def no_hidden_files(path: Path) -> None:
    """Leave nothing but the parts and the folder."""
    shutil.rmtree(path / ".rowloop")
    (path / ".rowloop").mkdir()


@pytest.mark.parametrize("lose", [no_journal, empty_journal, no_hidden_files])
@pytest.mark.parametrize("rewritten", [False, True])
def test_a_dataset_that_lost_its_journal_is_resumed_from_its_parts(
    tmp_path: Path, lose: Callable[[Path], None], caplog: pytest.LogCaptureFixture, *, rewritten: bool
):
    """No part is removed or made again, and nothing that is in a part is asked again; failures are still listed."""
    asked = list[str]()

    def model(prompt: str) -> str:
        asked.append(prompt)
        return echo(prompt)

    first = chain(rl.Model(model), rewritten=rewritten).build(tmp_path, 18, **GROUPS)
    parts = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    asked.clear()
    lose(tmp_path)
    again = chain(rl.Model(model), rewritten=rewritten).build(tmp_path, 18, **RESUME)
    assert (asked, again.actual) == ([], first.actual)
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == parts
    assert again.dataset.equals(first.dataset)
    assert "is lost; its 3 parts are kept" in caplog.text
    if lose is not no_hidden_files:
        assert again.failures["row"].tolist() == first.failures["row"].tolist()
    once_more = chain(rl.Model(model), rewritten=rewritten).build(tmp_path, 18, **RESUME)
    assert (asked, once_more.dataset.equals(first.dataset)) == ([], True)
    if not rewritten:
        grown = chain(rl.Model(model)).build(tmp_path, 24, **RESUME)
        assert grown.dataset[: first.actual].equals(first.dataset)
        assert len(asked) == 2 * 6


def test_parts_of_another_recipe_are_refused_where_the_journal_is_lost(tmp_path: Path, asked: Asked):
    """They are not removed, and the next directory may be taken."""
    path = tmp_path / "out"
    simple(asked).build(path, 16, **GROUPS)
    no_journal(path)
    parts = contents(path / "data")
    other = simple(asked, prompt="line {{ n }}")
    with pytest.raises(rl.ResumeError, match="has another dataset: its recipe has the fingerprint"):
        other.build(path, 16, **RESUME)
    assert other.build(path, 16, resume=IF_POSSIBLE, progress=False).path == tmp_path / "out-2"
    assert contents(path / "data") == parts


def test_a_dataset_in_the_old_layout_is_read_and_moved_when_it_is_resumed(tmp_path: Path, asked: Asked):
    """Everything that was beside data is in the hidden folder then, and nothing is asked again."""
    recipe = simple(asked, rows=20)
    asked.broken = {"row 3"}
    first = recipe.build(tmp_path, 16, **GROUPS)
    shutil.rmtree(tmp_path / ".rowloop/claims")
    (tmp_path / ".rowloop/progress.json").unlink()
    for file in (tmp_path / ".rowloop").iterdir():
        file.rename(tmp_path / file.name)
    (tmp_path / ".rowloop").rmdir()
    old = {"data", "failures.parquet", "journal.sqlite", "metadata.json"}
    assert {path.name for path in tmp_path.iterdir()} == old
    assert read_result(tmp_path).dataset.equals(first.dataset)
    assert read_result(tmp_path).failures["row"].tolist() == [3]
    with pytest.raises(rl.RecipeError, match="has a dataset already"):
        recipe.build(tmp_path, 16, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == old
    asked.new()
    result = recipe.build(tmp_path, 20, **RESUME)
    assert asked.new() == prompts(16, 17, 18, 19)
    assert result.dataset[:15].equals(first.dataset)
    assert {path.name for path in tmp_path.iterdir()} == {"data", ".rowloop"}


def test_other_programs_read_the_directory_as_it_is(tmp_path: Path, asked: Asked):
    """Pandas and Hugging Face datasets read it, polars its data, DuckDB a glob; nothing but the parts is in the way."""
    duckdb = pytest.importorskip("duckdb")
    asked.broken = {"row 3"}
    simple(asked).build(tmp_path, 16, trace=True, **GROUPS)
    expected = [n for n in range(16) if n != 3]
    assert sorted(pd.read_parquet(tmp_path)["n"]) == expected
    assert set(pq.read_table(tmp_path).column("n").to_pylist()) == set(expected)
    found = duckdb.read_parquet(f"{tmp_path}/data/*.parquet").order("n").project("n").fetchall()
    assert [n for (n,) in found] == expected


def test_hugging_face_datasets_loads_the_directory_as_it_is(tmp_path: Path, asked: Asked):
    """Neither the failures nor the traces are taken for rows."""
    datasets = pytest.importorskip("datasets")
    asked.broken = {"row 3"}
    simple(asked).build(tmp_path / "out", 16, trace=True, **GROUPS)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert sorted(loaded["n"]) == [n for n in range(16) if n != 3]


# Whether a dataset fits


def garbled(path: Path) -> str:
    """Break a part."""
    (path / "data" / "part-00001.parquet").write_bytes(b"PAR1 but no more")
    return f"cannot read '{path}/data/part-00001.parquet'"


def of_other_columns(path: Path) -> str:
    """Replace a part by one of another table."""
    pq.write_table(pa.table({"other": [1]}), path / "data" / "part-00001.parquet")
    return "part-00001.parquet' belongs to another dataset: its columns are other"


def of_other_rows(path: Path) -> str:
    """Replace a part by one with other rows."""
    table = pq.read_table(path / "data" / "part-00000.parquet")
    pq.write_table(table.slice(0, 2), path / "data" / "part-00001.parquet")
    return "part-00001.parquet' belongs to another dataset: it has 2 rows, but 6 were written"


def of_the_same_shape(path: Path) -> str:
    """Replace a part by one of the same columns, types, notes and number of rows."""
    part = path / "data" / "part-00001.parquet"
    table = pq.read_table(part, partitioning=None)
    changed = table.set_column(1, "text", pa.array(["mine"] * 6, table.schema.field("text").type))
    pq.write_table(changed.cast(table.schema), part)
    return "part-00001.parquet' is damaged or was changed"


def bit_flipped(path: Path) -> str:
    """Change one bit of a part's values, and nothing that is read when a dataset is resumed."""
    part = path / "data" / "part-00001.parquet"
    body = bytearray(part.read_bytes())
    body[40] ^= 1
    part.write_bytes(body)
    return "part-00001.parquet' is damaged or was changed"


def unknown(path: Path) -> str:
    """Add a part that no run has written."""
    shutil.copy(path / "data" / "part-00000.parquet", path / "data" / "part-00007.parquet")
    return "part-00007.parquet' belongs to another dataset"


def mine(path: Path) -> str:
    """Put a table of the user's among the parts."""
    pq.write_table(pa.table({"other": [1]}), path / "data" / "mine.parquet")
    return "mine.parquet' is not a part of the dataset"


def garbled_journal(path: Path) -> str:
    """Break the journal."""
    (path / ".rowloop/journal.sqlite").write_bytes(b"SQLite format 3\0" + b"nothing" * 2000)
    return "journal.sqlite' is broken or not a journal"


def of_another_version(path: Path) -> str:
    """Remove the journal, and what the parts say of themselves."""
    no_journal(path)
    for part in (path / "data").iterdir():
        pq.write_table(pq.read_table(part, partitioning=None).replace_schema_metadata(None), part)
    return "has parts, but its journal is gone, and they do not say how they were made"


def foreign_metadata(path: Path) -> str:
    """Leave another program's metadata, and no journal."""
    of_another_version(path)
    (path / ".rowloop/metadata.json").write_text('{"title": "mine"}')
    return f"cannot read '{path}/.rowloop/metadata.json' as the metadata of a dataset"


@pytest.mark.parametrize(
    "spoil",
    [
        garbled,
        of_other_columns,
        of_other_rows,
        of_the_same_shape,
        bit_flipped,
        unknown,
        mine,
        garbled_journal,
        of_another_version,
        foreign_metadata,
    ],
)
@pytest.mark.parametrize("resume", [ALWAYS, IF_POSSIBLE])
def test_a_broken_or_foreign_file_is_named_and_nothing_is_changed(
    tmp_path: Path, asked: Asked, spoil: Callable[[Path], str], resume: Any
):
    """Nor is everything paid for again in another directory."""
    path = tmp_path / "out"
    simple(asked).build(path, 16, **GROUPS)
    message = spoil(path)
    before = contents(tmp_path)
    asked.new()
    with pytest.raises(rl.ResumeError, match=re.escape(message)):
        simple(asked).build(path, 17, resume=resume, progress=False)
    assert asked.new() == []
    assert contents(tmp_path) == before


def test_rows_of_after_generation_cannot_be_made_again_or_grow(tmp_path: Path):
    """A missing part is named, and so is the reason why no row can be added; the next directory may be taken."""
    path = tmp_path / "out"
    recipe = chain(rl.Model(echo), rewritten=True)
    recipe.build(path, 12, **GROUPS)
    with pytest.raises(rl.ResumeError, match="are those that after_generation made: rows cannot be added or retried"):
        recipe.build(path, 13, **RESUME)
    other = recipe.build(path, 13, resume=IF_POSSIBLE, progress=False)
    assert other.path == tmp_path / "out-2"
    part = path / "data" / "part-00000.parquet"
    part.unlink()
    with pytest.raises(rl.ResumeError, match=r"part-00000\.parquet' is missing and cannot be made again"):
        recipe.build(path, 12, **RESUME)


OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "prompt": ({"prompt": "other {{ n }}"}, {}, "columns.text.prompt is 'other {{ n }}', and was 'row {{ n }}'"),
    "row group size": ({}, {"row_group_size": 5}, "row_group_size is 5, and was 6"),
    "seed": ({"seed": 4}, {}, "seed is 4, and was 3"),
    "engine": ({}, {"engine": "sequential"}, "engine is sequential, and was async"),
    "fewer rows": ({}, {"rows": 7}, "rows is 7, and was 8: a dataset can grow, but not shrink"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_dataset_is_refused_with_the_differences_or_started_in_the_next_directory_or_replaces_it(
    tmp_path: Path, asked: Asked, other: str
):
    """Depending on `resume` and `overwrite`; the dataset in the next directory is resumed later."""
    path = tmp_path / "out"
    simple(asked, seed=3).build(path, 8, **GROUPS)
    before = contents(path)
    changes, changed, message = OTHERS[other]
    options = {"row_group_size": 6, "progress": False, "rows": 8, **changed}

    def build(**more: Any) -> rl.Result:
        return simple(asked, **{"seed": 3, **changes}).build(path, **{**options, **more})

    asked.new()
    with pytest.raises(rl.ResumeError, match=re.escape(message)) as caught:
        build(resume=ALWAYS)
    assert "overwrite=True" in str(caught.value)
    with pytest.raises(rl.RecipeError, match="has a dataset already"):
        build()
    assert asked.new() == []
    second = build(resume=IF_POSSIBLE)
    assert second.path == tmp_path / "out-2"
    count = len(asked.new())
    again = build(resume=IF_POSSIBLE)
    assert again.path == tmp_path / "out-2"
    assert asked.new() == []
    assert contents(path) == before
    replaced = build(resume=ALWAYS, overwrite=True)
    assert replaced.path == path
    assert len(asked.new()) == count
    assert rows_of(path) == rows_of(tmp_path / "out-2")


def test_a_dataset_whose_replacement_was_interrupted_is_complete_or_refused(
    victim: Victims, tmp_path: Path, undisturbed: Callable[[bool], dict[str, Any]]
):
    """After overwrite=True and a crash: never some of the old rows as if they were all, and never old beside new."""
    for rewritten in (True, False):
        recipe = chain(rl.Model(echo), rewritten=rewritten)
        whole = tmp_path / f"whole-{rewritten}"
        recipe.build(whole, ROWS, **GROUPS)
        for change in (3, 5, 9, 14):
            directory = tmp_path / f"{change}-{rewritten}"
            shutil.copytree(whole, directory)
            options = {"row_group_size": 6, "overwrite": True}
            victim.start(directory, ROWS, options=options, crash_at=change, rewritten=rewritten)
            assert victim.ended() == CRASHED
            try:
                result = recipe.build(directory, ROWS, **RESUME)
            except rl.ResumeError as error:
                assert "is missing and cannot be made again" in str(error)  # noqa: PT017 - both ends are right
                assert rewritten
                result = recipe.build(directory, ROWS, overwrite=True, **GROUPS)
            assert outcome(result) == undisturbed(rewritten), change
            shutil.rmtree(directory)


def test_how_a_model_is_called_may_change(tmp_path: Path, server: FakeOpenAI):
    """Its address, max_parallel, timeout, and the name of its key."""
    first = rl.Model("openai:m", base_url="http://127.0.0.1:1/v1", max_parallel=2)
    server.configure(reply="echo")
    never = rl.RetryPolicy(attempts=1)
    with pytest.raises(rl.RowloopError):
        chain(first).build(tmp_path, 8, retry=never, **GROUPS)
    now = rl.Model("openai:m", base_url=server.url, max_parallel=3, timeout=9.0, api_key=SecretStr("sk-1"), price=None)
    assert chain(now).build(tmp_path, 8, **RESUME).actual == 7


def test_the_second_of_two_runs_in_one_directory_is_refused_at_once(
    server: FakeOpenAI, victim: Victims, tmp_path: Path
):
    """With any options, in another process or in this one; the first is undisturbed."""
    server.configure(reply="echo", latency=0.3)
    path = tmp_path / "out"
    victim.start(path, 12, server.url, options={"row_group_size": 6})
    server.wait_for(in_flight=8, timeout=20)
    refused: list[dict[str, Any]] = [
        {"resume": ALWAYS}, {"resume": IF_POSSIBLE}, {"overwrite": True}, {"resume": ALWAYS, "overwrite": True},
    ]  # fmt: skip
    for options in refused:
        with pytest.raises(rl.ResumeError, match="is in use by another run"):
            chain(at(server.url)).build(path, 12, row_group_size=6, progress=False, **options)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    assert victim.ended() == 0
    server.configure(fault_hang=1.0, latency=0.0)
    run = chain(at(server.url)).start(path, 18, **RESUME)
    server.wait_for(in_flight=6, timeout=20)
    with pytest.raises(rl.ResumeError, match="is in use by another run"):
        chain(at(server.url)).build(path, 18, **RESUME)
    run.cancel()
    assert run.result(20).status == "cancelled"
    server.configure(fault_hang=0.0)
    assert chain(at(server.url)).build(path, 18, **RESUME).actual == 15


def test_a_run_that_cannot_begin_releases_its_directory(tmp_path: Path, asked: Asked):
    """Refused by the runtime, by the model's provider, or by another's directory."""
    recipe = simple(asked)

    @rl.cell
    async def nested(n: int) -> int:
        recipe.build(tmp_path, 3, progress=False)
        return n

    outer = rl.Recipe(columns=[rl.Seed(pd.DataFrame({"n": [1]})), nested])
    with pytest.raises(rl.RowloopError):
        outer.preview(1, progress=False)
    with pytest.raises(rl.RecipeError):
        rl.Recipe(models={"m": "openai:"}, columns=[rl.Text("t", model="m", prompt="x")]).build(
            tmp_path, 3, resume=ALWAYS, progress=False
        )
    assert contents(tmp_path) == {}
    assert recipe.build(tmp_path, 3, progress=False).actual == 3


# Ctrl-C


SCRIPT = """
import sys
import rowloop as rl
sys.path.insert(0, {tests!r})
from victims import at, chain
import logging
logging.basicConfig(level=logging.INFO)
chain(at({url!r})).build({path!r}, 30, row_group_size=6, resume="always")
"""


def test_ctrl_c_keeps_finished_cells_and_logs_how_to_resume(server: FakeOpenAI, tmp_path: Path):
    """Within two seconds; the last line names resume, the display is gone, and only the rest is requested then."""
    path = tmp_path / "out"
    server.configure(reply="echo", latency=0.02, record=1000)
    script = SCRIPT.format(tests=str(Path(victims.__file__).parent), url=server.url, path=str(path))
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as child:
        server.wait_for(answered=20, timeout=20)
        child.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, printed = child.communicate(timeout=20)
    assert time.monotonic() - begun < 2
    assert printed.rstrip().endswith("KeyboardInterrupt")
    log = [line for line in printed[: printed.index("Traceback")].splitlines() if line.strip()]
    assert "resume" in log[-1]
    requests = server.counters().requests
    ended = {prompt_of(request) for request in server.requests() if request.answered_at is not None}
    assert metadata(path)["status"] == "cancelled"
    result = chain(at(server.url)).build(path, 30, **RESUME)
    again = [prompt_of(request) for request in server.requests()[requests:]]
    assert len(set(again) & ended) <= 8  # answers on their way when it was interrupted
    assert len(again) <= 60 - len(ended) + 8
    assert result.actual == 26


# Processors, the journal and keys


@pytest.mark.parametrize("stage", ["before_batch", "after_batch", "after_generation"])
def test_after_a_processor_raised_no_answer_is_requested_again(tmp_path: Path, asked: Asked, stage: str):
    """Earlier parts and all finished cells are kept for the run in which the processor works."""
    broken = [True]

    def act(_: object, frame: pd.DataFrame, row_group: int = 1) -> pd.DataFrame:
        if broken[0] and row_group == 1 and (stage != "before_batch" or frame["n"].iloc[0] == 6):
            while stage == "before_batch" and not (tmp_path / "data/part-00000.parquet").exists():
                time.sleep(0.01)  # what is in flight when a run fails is asked again
            raise LookupError("on purpose")
        return frame

    processor = type("Sometimes", (rl.Processor,), {stage: act})
    recipe = simple(asked, processors=[processor()])
    with pytest.raises(rl.DatasetProcessingError, match="on purpose"):
        recipe.build(tmp_path, 16, **GROUPS)
    done = asked.new()
    broken.clear()
    broken.append(False)
    result = recipe.build(tmp_path, 16, **RESUME)
    assert sorted(done + asked.new()) == prompts(*range(16))
    assert result.dataset["text"].tolist() == [f"<row {n}>" for n in range(16)]


@pytest.mark.parametrize("method", ["write", "mark_writing", "mark_over"])
def test_a_journal_that_cannot_be_written_ends_the_run(
    tmp_path: Path, asked: Asked, method: str, monkeypatch: pytest.MonkeyPatch, hang: set[int]
):
    """At once, also if nothing else ends for long; cells in flight are cancelled, and a later run resumes."""

    def broken(journal: Journal, *_: object) -> None:
        with journal._writing():
            raise sqlite3.OperationalError("disk I/O error")

    hang.add(9)
    recipe = simple(asked, columns=[gate])
    with monkeypatch.context() as patch:
        patch.setattr(Journal, method, broken)
        begun = time.monotonic()
        with pytest.raises(rl.DatasetGenerationError, match=r"cannot write journal\.sqlite: disk I/O error") as caught:
            recipe.build(tmp_path, 12, **GROUPS)
        assert time.monotonic() - begun < 5
    assert caught.value.stage == "journal"
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert not getattr(caught.value, "__notes__", [])
    assert metadata(tmp_path)["status"] == "failed"
    hang.clear()
    assert recipe.build(tmp_path, 12, **RESUME).actual == 12


def test_the_key_is_in_no_byte_of_the_journal(server: FakeOpenAI, victim: Victims, tmp_path: Path):
    """Nor of the write-ahead log that a killed run leaves."""
    key = "sk-do-not-tell-0123456789"
    server.configure(reply="echo", latency=0.01, api_key=key, fault_401=0.0)
    order: dict[str, Any] = {"key": key, "options": {"row_group_size": 6}}
    killed = victim.start(tmp_path, 60, server.url, **order)
    server.wait_for(answered=40, timeout=20)
    os.kill(killed, signal.SIGKILL)
    assert victim.ended() == -signal.SIGKILL
    files = {file.name: file.read_bytes() for file in (tmp_path / ".rowloop").iterdir() if file.is_file()}
    assert files.keys() >= {"journal.sqlite", "journal.sqlite-wal"}
    assert len(b"".join(files.values())) > 10_000
    assert not any(key.encode() in content for content in files.values())
