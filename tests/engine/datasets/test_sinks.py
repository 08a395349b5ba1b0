"""Sinks: parts appear whole or not at all, memory and disk hold the same, and nothing of the user's is touched."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

import rowloop as rl
from directories import contents, names
from rowloop.engine.core.events import NO_TALLY, Admit
from rowloop.engine.core.graph import Node, compile_graph
from rowloop.engine.core.store import RowGroup, Store
from rowloop.engine.datasets.claim import Claim, claim
from rowloop.engine.datasets.directory import make_directory, remove_dataset, replace_whole, write_atomically
from rowloop.engine.datasets.journal_records import Facts
from rowloop.engine.datasets.journal_writer import JournalWriter
from rowloop.engine.datasets.parquet_sink import ParquetSink
from rowloop.engine.datasets.parts import Part, checksum_of
from rowloop.engine.datasets.sinks import MemorySink, Sink
from rowloop.engine.datasets.tables import Frames

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    import pyarrow as pa

T = TypeVar("T")
GRAPH = compile_graph([Node("x", strategy="whole")])


def group_of(id_: int, values: list[Any], start: int = 0) -> RowGroup:
    """Make a row group of one column."""
    group = RowGroup(Admit(id_, start, len(values)), GRAPH)
    group.values[0] = values
    return group


def parquet_sink(path: Path, on_part: Callable[[Part], object] | None = None) -> ParquetSink:
    """Make the sink of a new dataset."""
    found = claim(path, "never", lambda place: Claim(place, Facts({}, 0, 1000, "async", [1])), overwrite=False)
    return ParquetSink(found, JournalWriter(found.place.journal), on_part)


async def filled(
    sink: Sink, groups: dict[int, list[Any]], change: Callable[[pa.Table], pa.Table] | None = None
) -> None:
    """Commit row groups in this order, and change the whole table if `change` is given."""
    await sink.begin(Frames(["x"], [None]))
    for id_, values in groups.items():
        await sink.commit(group_of(id_, values, 10 * id_), range(len(values)), NO_TALLY)
    if change is not None:
        await sink.rewrite(change, 2)


def done(sink: Sink, work: Coroutine[Any, Any, T]) -> T:
    """Work, and close the sink."""
    try:
        return asyncio.run(work)
    finally:
        sink.close()


ROWS = st.lists(st.integers(0, 9) | st.none(), min_size=1, max_size=4) | st.lists(
    st.floats(0, 1) | st.none(), min_size=1, max_size=4
)


@given(groups=st.permutations(range(4)), rows=st.lists(ROWS, min_size=4, max_size=4), changed=st.booleans())
@settings(max_examples=30, deadline=None)
def test_memory_and_disk_hold_the_same_in_whatever_order_row_groups_come(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], rows: list[list[Any]], *, changed: bool
):
    """Rows in the order of the run, one schema, the same parts; types widen as values come."""
    path = tmp_path_factory.mktemp("out")
    sinks: list[MemorySink | ParquetSink] = [MemorySink(), parquet_sink(path)]
    for sink in sinks:
        backwards = (lambda table: table.take(list(range(table.num_rows))[::-1])) if changed else None
        done(sink, filled(sink, {id_: rows[id_] for id_ in groups}, backwards))
    memory, disk = (sink.table() for sink in sinks)
    values = [value for group in rows for value in group]
    assert memory.column("x").to_pylist() == (values[::-1] if changed else values)
    assert disk.equals(memory)
    shapes = [sorted((part.row_group, part.start, part.rows) for part in sink.parts) for sink in sinks]
    assert shapes[0] == shapes[1]
    files = {part.file for part in sinks[1].parts}
    assert {f"data/{file.name}" for file in (path / "data").iterdir()} == files
    assert {file.name for file in path.iterdir()} == {".rowloop", "data"}


def test_on_part_is_called_with_each_part_once_it_is_safe(tmp_path: Path):
    """In the writer's thread; the file is there by then."""
    announced: list[tuple[Part, bool]] = []
    sink = parquet_sink(tmp_path, lambda part: announced.append((part, (tmp_path / str(part.file)).exists())))
    done(sink, filled(sink, {1: [1, 2], 0: [3]}))
    assert announced == [
        (Part(1, 10, 2, "data/part-00001.parquet", checksum_of(tmp_path / "data/part-00001.parquet")), True),
        (Part(0, 0, 1, "data/part-00000.parquet", checksum_of(tmp_path / "data/part-00000.parquet")), True),
    ]


def test_more_parts_than_the_name_has_digits_for_stay_in_order(tmp_path: Path):
    """By their number, not by their name."""
    sink = parquet_sink(tmp_path)
    done(sink, filled(sink, {100_000: [2], 99_999: [1]}))
    assert sink.table().column("x").to_pylist() == [1, 2]


def test_a_failed_change_of_the_whole_table_leaves_all_parts_as_they_were(tmp_path: Path):
    """No directory is half renamed."""

    def fail(_table: pa.Table) -> pa.Table:
        raise ZeroDivisionError

    sink = parquet_sink(tmp_path)
    with pytest.raises(ZeroDivisionError):
        done(sink, filled(sink, {0: [1], 1: [2]}, fail))
    assert sink.table().column("x").to_pylist() == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {".rowloop", "data"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, MemoryError])
def test_a_file_that_could_not_be_written_to_its_end_does_not_appear(tmp_path: Path, error: type[BaseException]):
    """The old file stays, and nothing is left beside it."""
    file = tmp_path / "file"
    file.write_text("before")

    def breaks(path: Path) -> None:
        path.write_text("half")
        raise error

    with pytest.raises(error):
        write_atomically(file, breaks)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "before"}
    write_atomically(file, lambda path: path.write_text("after"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "after"}


def test_a_file_and_its_name_are_on_the_disk_when_writing_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The file is flushed before it gets its name, the directory after."""
    flushed: list[tuple[str, list[str]]] = []
    flush = os.fsync

    def noting(descriptor: int) -> None:
        target = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH119, PTH115 - names alone
        flushed.append((target, sorted(path.name for path in tmp_path.iterdir())))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    write_atomically(tmp_path / "file", lambda path: path.write_text("x"))
    assert flushed == [(".file.tmp", [".file.tmp"]), (tmp_path.name, ["file"])]


def test_only_what_a_run_writes_is_removed(tmp_path: Path):
    """With overwrite=True, files of the user's own stay."""
    rl.Recipe(columns=[rl.Uniform("u")]).build(tmp_path, 4, row_group_size=1, progress=False, trace=True)
    for mine in ("notes.txt", "data/mine.parquet", "data/part-x.txt"):
        (tmp_path / mine).write_text("mine")
    result = rl.Recipe(columns=[rl.Uniform("v")]).build(tmp_path, 1, progress=False, overwrite=True)
    assert list(result.dataset.columns) == ["v"]
    ours = {"data/part-00000.parquet", ".rowloop/metadata.json"}
    assert names(tmp_path) == {*ours, "data/mine.parquet", "data/part-x.txt", "notes.txt"}
    remove_dataset(tmp_path)
    assert not (tmp_path / ".rowloop/metadata.json").exists()


def test_a_directory_is_made_with_its_parents(tmp_path: Path):
    """Nothing is in it but the folder for claims."""
    make_directory(tmp_path / "a" / "b")
    assert [str(path.relative_to(tmp_path)) for path in (tmp_path / "a" / "b").rglob("*")] == [
        "a/b/.rowloop",
        "a/b/.rowloop/claims",
    ]


def test_the_store_holds_a_row_group_from_its_admission_until_it_is_freed():
    """It has a list of rows for each column that is worked by cell; a whole column brings its own."""
    graph = compile_graph([Node("whole", strategy="whole"), Node("cell", ("whole",))])
    store = Store(graph)
    store.admit(Admit(7, 70, 3))
    group = store.groups[7]
    assert (group.id, group.start, group.size, group.values) == (7, 70, 3, [None, [None, None, None]])
    assert group.value(0, 2) is None
    group.values[0] = [1, 2, 3]
    assert group.value(0, 2) == 3
    store.free(7)
    assert store.groups == {}


def test_each_part_of_a_preview_is_announced_once():
    """Row groups that are committed at the same time are announced one by one."""
    announced: list[Part] = []
    recipe = rl.Recipe(columns=[rl.Uniform("x", 0, 1)])
    recipe.preview(300, row_group_size=1, progress=False, on_part=announced.append)
    assert sorted(part.row_group for part in announced) == list(range(300))


def test_what_a_killed_writer_has_left_of_a_small_file_is_written_over(tmp_path: Path):
    """So that nothing is left over in a directory, however often its runs are killed."""
    (tmp_path / ".small.json.tmp").write_bytes(b"a longer hal")
    replace_whole(tmp_path / "small.json", b"whole")
    assert contents(tmp_path) == {tmp_path / "small.json": b"whole"}
