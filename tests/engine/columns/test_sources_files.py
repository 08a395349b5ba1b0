"""Files as seeds: where they are, how they are read, and what happens when they change."""

from __future__ import annotations

import functools
import gc
import gzip
import http.server
import os
import pickle
import re
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from rowloop import DatasetGenerationError, Expression, Recipe, RecipeError, Seed
from rowloop.engine.columns.sources import blocks, delimited, digest, opening, parquet
from seed_cells import cells, types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUIET: Any = {"progress": False}
TABLE = pa.table({"n": range(50_000), "s": [f"text {i}" for i in range(50_000)], "h": [i / 2 for i in range(50_000)]})


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every table for one that is too large for memory."""
    monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", 1000)


def write_arrow(table: pa.Table, path: Path, *, stream: bool = False) -> None:
    """Write an IPC file of several batches."""
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=7_000)


def compressed(table: pa.Table, path: Path) -> None:
    """Write a stream, compressed as a whole."""
    with pa.CompressedOutputStream(str(path), "zstd") as target, pa.ipc.new_stream(target, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[pa.Table, Path], object]] = {
    "x.parquet": lambda table, path: pq.write_table(table, path, row_group_size=20_000),
    "one group.parquet": lambda table, path: pq.write_table(table, path, row_group_size=10**6, data_page_size=1000),
    "x.arrow": write_arrow,
    "stream.arrow": lambda table, path: write_arrow(table, path, stream=True),
    "x.arrow.zst": compressed,
    "x.feather": feather.write_feather,
    "x.csv": lambda table, path: table.to_pandas().to_csv(path, index=False),
    "x.jsonl": lambda table, path: table.to_pandas().to_json(path, orient="records", lines=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_large_files_are_read_where_they_are(tmp_path, small_memory, name):  # noqa: ARG001 - it sets the scene
    """Every row, from anywhere in the file, in any direction; the identity is that of the same table in memory."""
    WRITERS[name](TABLE, tmp_path / name)
    seed = Seed(tmp_path / name)
    assert cells(seed) == TABLE.to_pydict()
    table = seed._table.source.blocks
    assert not table.in_memory
    assert len(list(table.bounds())) > 1
    for start, rows in ((49_990, 10), (20_001, 30_000 - 1), (3, 1), (16_000, 1_000), (0, 1)):
        assert table.read(start, rows).to_pydict() == TABLE.slice(start, rows).to_pydict()
    assert seed.digest == Seed(TABLE).digest
    assert list(cells(Seed(tmp_path / name, columns=["h", "n"]), rows=2)) == ["h", "n"]


def test_only_the_columns_that_are_taken_are_decoded(tmp_path, small_memory):  # noqa: ARG001 - it sets the scene
    """A column of a file that cannot be decoded does no harm to a seed of another."""
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content[chunk.data_page_offset : chunk.data_page_offset + 200] = b"\xff" * 200
    path.write_bytes(content)
    assert cells(Seed(path, columns=["n"]))["n"] == list(range(50_000))
    with pytest.raises(RecipeError, match=r"columns\.seed\.data: .*x\.parquet' cannot be read"):
        Recipe(columns=[Seed(path)])


def test_a_run_takes_rows_of_a_large_file_without_a_change(tmp_path, small_memory):  # noqa: ARG001 - it sets the scene
    """Through a whole run, with several row groups open at once, and a prompt that shows them."""
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path, row_group_size=3_000)
    recipe = Recipe(columns=[Seed(path), Expression("e", "{{ n }}: {{ s }}")])
    result = recipe.build(tmp_path / "out", 10_000, row_group_size=700, **QUIET)
    made = result.to_arrow()
    assert made.select(["n", "s", "h"]).to_pydict() == TABLE.slice(0, 10_000).to_pydict()
    assert made.column("e").to_pylist() == [f"{i}: text {i}" for i in range(10_000)]


@pytest.mark.parametrize("engine", ["async", "sequential"])
def test_each_block_is_decoded_once_for_all_columns(tmp_path, monkeypatch, engine):
    """Where rows are so large that a row group of the run is many blocks: once for the hash, once for the run."""
    monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", 1000)
    table = pa.table({f"c{i}": [f"{n} " * 20_000 for n in range(120)] for i in range(5)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=60)
    decoded: list[int] = []
    batch = parquet._Reader._batch
    monkeypatch.setattr(parquet._Reader, "_batch", lambda self, place: decoded.append(1) or batch(self, place))
    seed = Seed(tmp_path / "x.parquet")
    number = len(list(seed._table.source.blocks.bounds()))
    made = Recipe(columns=[seed], seed=1).build(tmp_path / "out", row_group_size=40, engine=engine, **QUIET)
    assert made.to_arrow().equals(table)
    assert number >= 10
    assert len(decoded) <= 2 * number + 4  # a sample, and blocks that two row groups of the run share


def test_an_index_without_a_name_is_no_column(tmp_path):
    """Pandas writes one beside the columns; it is taken if it is named."""
    pd.DataFrame({"a": [1, 2]}, index=[7, 8]).to_parquet(tmp_path / "x.parquet")
    assert cells(Seed(tmp_path / "x.parquet")) == {"a": [1, 2]}
    assert cells(Seed(tmp_path / "x.parquet", columns=["__index_level_0__"])) == {"__index_level_0__": [7, 8]}


# Several files


def test_a_glob_is_one_table(tmp_path):
    """Sorted by name; columns that a file lacks are null there, and integers are as wide as they must be."""
    (tmp_path / "b").mkdir()
    pq.write_table(pa.table({"n": pa.array([3], pa.int64()), "x": ["late"]}), tmp_path / "b" / "2.parquet")
    pq.write_table(pa.table({"n": pa.array([1, 2], pa.int32())}), tmp_path / "1.parquet")
    seed = Seed(str(tmp_path / "**" / "*.parquet"))
    assert cells(seed) == {"n": [1, 2, 3], "x": [None, None, "late"]}
    assert types(seed) == {"n": "int64", "x": "string"}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_glob_of_text_files_has_one_type_for_all(tmp_path, ending):
    """A zip code in the last file keeps those of the first as they are."""
    lines = {"csv": "zip\n{}\n", "jsonl": '{{"zip": "{}"}}\n'}[ending]
    for i, value in enumerate(["10115", "20095", "02670"]):
        (tmp_path / f"{i}.{ending}.gz").write_bytes(gzip.compress(lines.format(value).encode()))
    assert cells(Seed(tmp_path / f"*.{ending}.gz"))["zip"] == ["10115", "20095", "02670"]


def test_files_whose_types_do_not_fit_are_refused_by_name(tmp_path):
    """An integer would become a float; `types` says what to do."""
    pq.write_table(pa.table({"n": [1]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"n": [1.5]}), tmp_path / "2.parquet")
    problem = r"column 'n' is int64 in one file and double in '.*2\.parquet'; choose with types=\{\"n\": \"string\"\}"
    with pytest.raises(RecipeError, match=problem):
        Recipe(columns=[Seed(tmp_path / "*.parquet")])
    assert cells(Seed(tmp_path / "*.parquet", types={"n": str}))["n"] == ["1", "1.5"]


def test_a_name_with_the_characters_of_a_glob_is_a_name(tmp_path):
    """If there is such a file."""
    (tmp_path / "x[1].csv").write_text("a\n1\n")
    assert cells(Seed(tmp_path / "x[1].csv")) == {"a": [1]}


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("nothing*.csv", r"no file matches '.*nothing\*\.csv'"),
        ("*", "matches files of two formats"),
        ("folder", "it is a directory; name its files, as in '.*folder/.*parquet'"),
        ("x.txt", "is none of .csv, .tsv"),
        ("x.parquet.gz", "a parquet file is compressed within"),
    ],
)
def test_what_is_no_set_of_files_is_refused(tmp_path, pattern, problem):
    """Naming the file."""
    (tmp_path / "a.csv").write_text("a\n1\n")
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "x.parquet.gz").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecipeError, match=rf"^columns\.seed\.data: .*{problem}"):
        Recipe(columns=[Seed(tmp_path / pattern if pattern != "*" else tmp_path / "?.*")])


# Where


def test_a_path_is_that_of_the_moment_when_the_seed_was_made(tmp_path, monkeypatch):
    """A later change of the working directory leads nowhere else, also for files that are read in the run."""
    monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", 1000)
    monkeypatch.chdir(tmp_path)
    pq.write_table(TABLE, "x.parquet")
    seed = Seed("x.parquet")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    pq.write_table(TABLE.slice(100), "x.parquet")
    recipe = Recipe(columns=[seed])
    assert recipe.preview(2, **QUIET).to_arrow().column("n").to_pylist() == [0, 1]
    assert recipe.to_dict()["columns"][0]["data"] == "x.parquet"
    assert cells(pickle.loads(pickle.dumps(seed)), rows=1)["n"] == [0]  # noqa: S301 - our own


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serve the directory over HTTP."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.outside
@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.jsonl", "x.parquet"])
def test_an_address_is_read(tmp_path, address, name):
    """With its two slashes, and with options that are no glob and stand in no message."""
    table = TABLE.slice(0, 100)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(table.to_pandas().to_csv(index=False).encode()))
    else:
        WRITERS[name](table, tmp_path / name)
    assert cells(Seed(f"{address}/{name}?token=secret")) == table.to_pydict()
    assert cells(Seed(Path(f"{address}/{name}"))) == table.to_pydict()  # pathlib drops a slash
    with pytest.raises(RecipeError) as caught:
        Recipe(columns=[Seed(f"{address.replace('//', '//user:secret@')}/nowhere-{name}?token=secret")])
    assert "cannot read 'http://127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_addresses_of_other_file_systems(tmp_path):
    """Through pyarrow, and through fsspec, with globs in both."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for i in range(3):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{i}.csv").write_text(f"n\n{i}\n")
        memory.pipe(f"/bucket/a/{i}.csv", f"n\n{i}\n".encode())
    (tmp_path / "a" / "deep").mkdir()
    (tmp_path / "a" / "deep" / "9.csv").write_text("n\n9\n")
    assert cells(Seed(f"file://{tmp_path}/a/1.csv")) == {"n": [1]}
    assert cells(Seed(f"file://{tmp_path}/a/*.csv")) == {"n": [0, 1, 2]}
    assert cells(Seed(f"file://{tmp_path}/**/*.csv")) == {"n": [0, 1, 2, 9]}
    assert cells(Seed("memory://bucket/a/2.csv")) == {"n": [2]}
    assert cells(Seed("memory://bucket/*/[01].csv")) == {"n": [0, 1]}
    memory.rm("/bucket", recursive=True)


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("nowhere://x/y.csv", "nowhere:// is unknown to pyarrow and to fsspec"),
        ("memory://no/such.csv", "cannot read 'memory://no/such.csv'"),
        ("memory://no/such*.csv", r"no file matches 'memory://no/such\*\.csv'|cannot read 'memory://no/such\*"),
        ("hf://datasets/a/b/x.csv", "reading hf:// needs another package|cannot read 'hf://"),
    ],
)
def test_addresses_that_lead_nowhere_are_refused_by_name(location, problem):
    """Before anything is paid for."""
    pytest.importorskip("fsspec")
    with pytest.raises(RecipeError, match=rf"^columns\.seed\.data: .*({problem})"):
        Recipe(columns=[Seed(location)])


def test_without_fsspec_an_address_is_refused_with_the_package_to_install(monkeypatch):
    """It is no dependency."""
    monkeypatch.setitem(sys.modules, "fsspec", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(RecipeError, match=r"https:// is read through the package fsspec.*pip install fsspec"):
        Recipe(columns=[Seed("https://example.org/x.csv")])


# Changes


@pytest.mark.parametrize("change", ["overwritten", "replaced", "removed"])
def test_a_large_file_that_changes_ends_the_run_with_its_name(tmp_path, small_memory, change):  # noqa: ARG001 - sets the scene
    """No row of other data gets in, whatever the way in which the file changes."""
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path)
    recipe = Recipe(columns=[Seed(path)])
    other = tmp_path / "other.parquet"
    pq.write_table(TABLE.slice(1), other)
    if change == "overwritten":
        path.write_bytes(other.read_bytes())
    elif change == "replaced":
        other.replace(path)
    else:
        path.unlink()
    with pytest.raises(DatasetGenerationError, match=r"x\.parquet' (has changed|cannot be read any more)"):
        recipe.build(tmp_path / "out", 10, **QUIET)


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl", "x.arrow"])
def test_a_small_file_is_read_once(tmp_path, name):
    """Later changes are not seen, and a new seed sees them at once, even in the same moment."""
    WRITERS[name](TABLE.slice(0, 3), tmp_path / name)
    first = Seed(tmp_path / name)
    assert first.length == 3
    WRITERS[name](TABLE.slice(3, 3), tmp_path / name)
    assert cells(first)["n"] == [0, 1, 2]
    assert cells(Seed(tmp_path / name))["n"] == [3, 4, 5]


def test_a_file_that_has_not_changed_is_hashed_once_in_a_process(tmp_path, monkeypatch):
    """By any number of recipes, and other columns or types are another table."""
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE, path)
    long_ago = time.time_ns() - 10**10
    os.utime(path, ns=(long_ago, long_ago))
    hashed = []
    monkeypatch.setattr(opening, "digest_of", lambda table: hashed.append(1) or digest.digest_of(table))
    found = [Recipe(columns=[Seed(path)], seed=1).fingerprint for _ in range(3)]
    assert (len(set(found)), len(hashed)) == (1, 1)
    assert Recipe(columns=[Seed(path, types={"n": "string"})], seed=1).fingerprint not in found
    assert len(hashed) == 2
    pq.write_table(TABLE.slice(1), path)
    assert Recipe(columns=[Seed(path)], seed=1).fingerprint not in found


@pytest.fixture
def parsed(small_memory, monkeypatch) -> list[str]:  # noqa: ARG001 - it sets the scene
    """Return the paths of the text files that were parsed."""
    monkeypatch.setattr(opening, "_known", opening._Known())
    paths: list[str] = []
    batches = delimited._Parser.batches

    def noted(parser: Any, file: Any, *given: Any) -> Any:
        paths.append(file.path)
        return batches(parser, file, *given)

    monkeypatch.setattr(delimited._Parser, "batches", noted)
    return paths


def old_csv(path: Path, table: pa.Table, seconds: int = 10) -> str:
    """Write a file that was changed a while ago."""
    WRITERS["x.csv"](table, path)
    then = time.time_ns() // 10**9 * 10**9 - seconds * 10**9
    os.utime(path, ns=(then, then))
    return str(path)


def length(path: str) -> int | None:
    """Make a seed, which is gone afterwards, and return its length."""
    found = Seed(path).length
    gc.collect()
    return found


def test_a_large_text_file_that_has_not_changed_is_parsed_once_in_a_process(tmp_path, parsed):
    """Also if no recipe is left that holds it; the two that were used last are kept."""
    a, b, c = (old_csv(tmp_path / f"{name}.csv", TABLE.slice(i)) for i, name in enumerate("abc"))
    assert [length(path) for path in (a, a, b, a, c, a, b)] == [50_000, 50_000, 49_999, 50_000, 49_998, 50_000, 49_999]
    assert parsed == [a, b, c, b]


@pytest.mark.parametrize("change", ["size", "time", "replaced", "overwritten"])
def test_a_large_text_file_that_has_changed_is_parsed_again(tmp_path, parsed, change):
    """Though a copy keeps the time and the size; the table from before is gone."""
    path = old_csv(tmp_path / "x.csv", pa.table({"n": ["a", "b"] * 1000}))
    assert cells(Seed(path), rows=2)["n"] == ["a", "b"]
    before = weakref.ref(next(iter(opening._known._latest.values())))
    modified = Path(path).stat().st_mtime_ns - 10**9 * (change == "time")
    target = tmp_path / ("other.csv" if change == "replaced" else "x.csv")
    WRITERS["x.csv"](pa.table({"n": ["c", "dd" if change == "size" else "d"] * 1000}), target)
    target.replace(path)
    os.utime(path, ns=(modified, modified))
    assert cells(Seed(path), rows=2)["n"][0] == "c"
    gc.collect()
    assert (before(), len(parsed)) == (None, 2)


def test_a_file_that_changes_while_it_is_parsed_is_parsed_again(tmp_path, parsed, monkeypatch):
    """Its table is not taken for that of the file as it was found."""
    path = old_csv(tmp_path / "x.csv", TABLE)
    header = delimited._Parser.header

    def changed(parser: Any, file: Any) -> Any:
        if not parsed:
            old_csv(tmp_path / "x.csv", TABLE.slice(1))
        return header(parser, file)

    monkeypatch.setattr(delimited._Parser, "header", changed)
    assert [length(path), length(path), length(path)] == [49_999] * 3
    assert len(parsed) == 2


def test_a_large_text_file_is_opened_by_many_threads_at_once(tmp_path, parsed):
    """They all get the same table, and its rows."""
    path = old_csv(tmp_path / "x.csv", TABLE)
    with ThreadPoolExecutor(8) as pool:
        seeds = list(pool.map(lambda _: Seed(path)._table.source, range(8)))
        assert len(set(map(id, seeds))) == 1
        found = list(pool.map(lambda source: source.blocks.read(30_000, 5).to_pydict()["n"], seeds))
    assert found == [TABLE["n"].to_pylist()[30_000:30_005]] * 8
    assert 1 <= len(parsed) <= 8


def test_a_dataset_is_resumed_by_content_not_by_name(tmp_path):
    """The same values in another file, format or compression resume it; other values of a taken column do not."""
    asked: list[int] = []

    def recipe(data: object) -> Recipe:
        made = Recipe(columns=[Seed(data, columns=["n", "s"])], seed=1)

        @made.column
        def paid(n: int) -> int:
            asked.append(n)
            return n

        return made

    table = TABLE.slice(0, 10)
    pq.write_table(table, tmp_path / "x.parquet")
    recipe(tmp_path / "x.parquet").build(tmp_path / "out", 5, **QUIET)
    table.set_column(2, "h", pa.chunked_array([range(10)])).to_pandas().to_csv(tmp_path / "y.csv", index=False)
    pq.write_table(table, tmp_path / "z.parquet", compression="zstd", row_group_size=3)
    for data in (tmp_path / "y.csv", tmp_path / "z.parquet", table, table.to_pandas(), table.to_pylist()):
        recipe(data).build(tmp_path / "out", 10, resume="always", **QUIET)
    assert sorted(asked) == list(range(10))
    changed = table.set_column(1, "s", pa.chunked_array([["other"] * 10]))
    with pytest.raises(Exception, match=r"columns\.seed of n, s\.data has changed"):
        recipe(changed).build(tmp_path / "out", 10, resume="always", **QUIET)


# Room

FULL = """
import resource, sys
import rowloop as rl
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
try:
    rl.Recipe(columns=[rl.Seed(sys.argv[1])])
except rl.RecipeError as error:
    print(error)
"""


@pytest.mark.outside
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size")
def test_a_full_disk_is_named_with_the_way_out(tmp_path):
    """The temporary file of a large text file has no room."""
    with (tmp_path / "x.csv").open("w") as file:
        file.write("a,b\n")
        for i in range(120):
            file.write("".join(f"{os.urandom(200).hex()},{j}\n" for j in range(i, i + 1_000)))
    command = [sys.executable, "-c", FULL, str(tmp_path / "x.csv")]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.match(r"columns\.seed\.data: cannot write the temporary file in .*; set TMPDIR", child.stdout)


# Memory

MEASURE = """
import resource, sys
import pandas, pyarrow.parquet
import rowloop as rl
rl.Recipe(columns=[rl.Seed([{"a": 1}])]).preview(1, progress=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seed = rl.Seed(sys.argv[1], columns=sys.argv[2].split(",") if sys.argv[2] else None)
made = rl.Recipe(columns=[seed]).preview(1000, progress=False)
assert made.actual == 1000
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.outside
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss")
def test_memory_does_not_follow_the_size_of_a_file(tmp_path):
    """160 MB of values in one row group; benchmarks/seeds.py has a larger one, and text files."""
    rows = 2_000_000
    table = pa.table({f"c{i}": pa.array(range(i, rows + i)) for i in range(10)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=rows)
    del table
    for columns, most in (("", 90), ("c3", 40)):
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "x.parquet"), columns]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(child.stdout) < most, columns
