"""Victims: runs that come to a sudden end, each in a process of its own.

One process imports everything once, and forks a victim off for each order: that takes some milliseconds, not a second.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from pydantic import SecretStr

import rowloop as rl
from drawn_schemas import recipe_of
from rowloop.engine.datasets.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CRASHED = 77
_TOUCHING = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "open"}


class Reversed(rl.Processor):
    """Change the whole: other rows, other columns."""

    def after_generation(self, frame: pd.DataFrame) -> pd.DataFrame:
        return frame.iloc[::-1].assign(whole=range(len(frame)))


def chain(model: rl.Model, *, rewritten: bool = False) -> rl.Recipe:
    """Have a recipe in which much can go wrong, and every row's end depends on its own values alone.

    Two model columns, one after the other; types that widen; a column that is nulled, and one that drops its row when
    all else of it is done; a batch column, and a stateful one, over the rows that are left.
    """

    @rl.cell(on_error="null")
    def odd(n: int) -> int | float:
        if n % 5 == 4:
            raise ValueError(f"{n} is nulled")
        return n if n < 8 else n / 2

    @rl.cell
    def whole(answer: str, odd: float | None, n: int) -> dict[str, Any]:
        if n % 7 == 3:
            raise ValueError(f"{n} is dropped")
        return {"answer": answer, "odd": odd}

    @rl.cell
    def pair(n: int) -> tuple[int, int]:
        return n, n  # no journal takes it

    @rl.batch
    def place(n: pd.Series[int], whole: pd.Series[Any], pair: pd.Series[Any]) -> list[int]:  # noqa: ARG001 - waited for
        return n.rank().astype(int).tolist()

    return rl.Recipe(
        models={"m": model},
        columns=[
            rl.Seed(pd.DataFrame({"n": range(1000)})),
            rl.Category("topic", ["math", "law"]),
            rl.Text("question", model="m", prompt="Q{{ n }} on {{ topic }}"),
            rl.Text("answer", model="m", prompt="A: {{ question }}"),
            odd,
            whole,
            pair,
            place,
            rl.Expression("line", "{{ n }}: {{ place }}"),
        ],
        processors=[Reversed()] if rewritten else [],
        seed=5,
    )


def echo(prompt: str) -> str:
    """Answer at once."""
    return f"<{prompt}>"


def at(url: str, key: str | None = None) -> rl.Model:
    """Ask the server."""
    return rl.Model("openai:m", base_url=url, max_parallel=8, api_key=None if key is None else SecretStr(key))


def outcome(result: rl.Result) -> dict[str, Any]:
    """Give all of a result that has to be the same however often the run was cut off.

    A dropped row's cells may count as skipped in one run and as completed in another: that depends on what came first.
    """
    metadata = result.metadata
    counts = {
        column["name"]: (column["completed"], column["failed"], column["skipped"]) for column in metadata["columns"]
    }
    assert {sum(count) for count in counts.values()} == {result.target}
    assert sum(part["rows"] for part in metadata["parts"]) == result.actual == result.target - result.dropped
    return {
        "rows": result.to_arrow().to_pylist(),
        "types": str(result.to_arrow().schema),
        "failures": result.failures.drop(columns=["first_failed_at", "last_failed_at"]).to_dict("records"),
        "asked": [counts[name] for name in ("question", "answer")],
        "failed": {name: failed for name, (_, failed, _) in counts.items()},
        **{
            name: metadata[name]
            for name in (
                "status",
                "target_num_records",
                "actual_num_records",
                "dropped_num_records",
                "failures",
            )
        },
        "parts": [{name: part[name] for name in part if name != "checksum"} for part in metadata["parts"]],
    }


class Victims:
    """A context manager around the process that victims are forked from, one at a time."""

    def __enter__(self) -> Self:
        """Start it."""
        self._process = Popen([sys.executable, __file__], stdin=PIPE, stdout=PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Have it end, and whoever is still forked off it."""
        with self._process as process:
            process.kill()

    def start(self, path: Path, rows: int, url: str | None = None, **order: Any) -> int:
        """Have a victim build `chain`, or a recipe of a drawn `shape`; give its process.

        `crash_at`: it ends at the so manieth change of a file.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"path": str(path), "rows": rows, "url": url, **order}) + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def ended(self) -> int:
        """Wait for the victim's end: its exit status, or the signal as a negative number."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _main() -> None:
    _import_everything()
    for line in sys.stdin:
        victim = os.fork()
        if not victim:
            os._exit(_status(json.loads(line)))
        print(victim, flush=True)  # noqa: T201 - to the test
        print(os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]), flush=True)  # noqa: T201 - the same


def _import_everything() -> None:
    """Import what a run does, and start no thread."""
    import pyarrow.pandas_compat  # noqa: F401, PLC0415 - victims alone need it

    from rowloop.adapters.providers import function as callable  # noqa: A004, F401, PLC0415 - the same
    from rowloop.adapters.providers.openai import provider as openai  # noqa: F401, PLC0415 - the same
    from rowloop.engine.datasets import parquet_sink  # noqa: F401, PLC0415 - the same
    from rowloop.engine.processors import applying as processing  # noqa: F401, PLC0415 - the same
    from rowloop.engine.runs import job as jobs  # noqa: F401, PLC0415 - the same
    from rowloop.engine.runs import resuming  # noqa: F401, PLC0415 - the same

    assert chain(rl.Model(echo)).columns


def _status(order: dict[str, Any]) -> int:
    logging.basicConfig(filename=order.get("log", os.devnull), level=logging.INFO)
    if order.get("crash_at"):
        _crash_at(order["crash_at"], order["path"])
    model = rl.Model(echo) if order["url"] is None else at(order["url"], order.get("key"))
    try:
        if "shape" in order:
            recipe = recipe_of(order["shape"], order["answers"], as_model=order["as_model"])
        else:
            recipe = chain(model, rewritten=order.get("rewritten", False))
        recipe.build(order["path"], order["rows"], progress=False, **order.get("options", {}))
    except BaseException:  # the process ends, and nobody else is there to be told
        logging.getLogger().exception("the victim's own end")
        return 1
    return 0


def _crash_at(change: int, path: str) -> None:
    """End this process before the so manieth change of a file or transaction."""
    left = change

    def tick() -> None:
        nonlocal left
        left -= 1
        if not left:
            os._exit(CRASHED)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _TOUCHING and (event != "open" or not str(arguments[1]).startswith("r")):
            name = os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else ""
            if name and (not os.path.isabs(name) or str(name).startswith(path)):  # noqa: PTH117 - no object for a name
                tick()

    writing: Callable[..., contextlib.AbstractContextManager[None]] = Journal._writing

    @contextlib.contextmanager
    def ticking(journal: Journal, **options: Any) -> Iterator[None]:
        tick()
        with writing(journal, **options):
            yield
        tick()

    Journal._writing = ticking  # type: ignore[method-assign]
    sys.addaudithook(hook)


if __name__ == "__main__":
    _main()
