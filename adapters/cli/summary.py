"""What the command line prints of a result: a sample of its rows, and what it took."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ..displays.wording import duration, per_second

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ...engine.datasets.result import Result

_MOST_COLUMNS = 20
_LONGEST = 600  # letters of a value that are shown
_SHORT = 16  # cells; a column of values that are no longer is not wrapped
_READABLE = 20  # cells that wrapped text needs to read well
_TOLD = {"retries", "json", "model", "slowest", "time"}  # of the run's report, beside what is told here in another form
_GUTTER = 3  # cells from one column to the next


def print_report(result: Result, console: Console, rows: int) -> None:
    """Print up to `rows` rows, how many there are, what was asked for, what failed, and where it all is."""
    sample = head(result, rows)
    if sample:
        console.print()
        console.print(table(sample, console.width))
        if len(sample) < result.actual:
            console.print(f"the first {len(sample)} of {result.actual:,} rows", style="dim")
        console.print()
    report = result.report
    rate = per_second(report.rate) if result.elapsed else ""
    earlier = f" ({report.earlier:,} of them from earlier runs)" if report.earlier else ""
    colour = "green" if result.status == "complete" else "bold yellow"
    lines: list[tuple[str, str, str]] = [
        (
            result.status,
            f"{result.actual:,} of {result.target:,} rows{earlier} in {duration(result.elapsed)}, {rate}",
            colour,
        )
    ]
    if report.requests:
        pace = report.completion_tokens / (result.elapsed or 1.0)
        words = f"{report.prompt_tokens:,} read, {report.completion_tokens:,} written ({pace:,.0f}/s)"
        lines.append(("tokens", f"{words} in {report.requests:,} requests", ""))
        if report.cost_text:
            lines.append(("cost", report.cost_text, ""))
    if len(result.failures):
        lines.append(("failures", _failures(result), "bold yellow"))
    lines += [(label, words, "dim") for label, words in report.lines() if label in _TOLD]
    if result.path is not None:
        lines.append(("output", str(result.path), ""))
    for label, words, style in lines:
        console.print(Text(f"{label:<9} ", style="bold") + Text(words, style=style), soft_wrap=True)


def head(result: Result, rows: int) -> list[dict[str, Any]]:
    """Read the first rows; of a dataset on the disk no more than they need."""
    if result.path is None:
        found = result.to_arrow().slice(0, rows)
    else:
        import pyarrow.dataset as ds  # noqa: PLC0415 - not for --help

        found = ds.dataset(result.path / "data", format="parquet").head(rows)
    listed: list[dict[str, Any]] = found.to_pylist()
    return listed


def table(sample: list[dict[str, Any]], width: int) -> RenderableType:
    """Lay rows out in `width` cells: columns side by side where they stay readable, else one block per row."""
    names = list(sample[0])
    shown = names[:_MOST_COLUMNS]
    texts = [[_text(row[name]) for name in shown] for row in sample]
    wide = [_natural(name, [row[i] for row in texts]) for i, name in enumerate(shown)]
    fixed = sum(size for size in wide if size <= _SHORT)
    long = [size for size in wide if size > _SHORT]
    room = width - _GUTTER * len(shown) - fixed
    if len(names) == len(shown) and sum(min(size, _READABLE) for size in long) <= room:
        return _side_by_side(shown, texts, wide)
    return _blocks(shown, texts, len(names) - len(shown))


def _side_by_side(names: list[str], texts: list[list[str]], wide: list[int]) -> Table:
    made = Table(box=None, padding=(0, _GUTTER, 1, 0), pad_edge=False, header_style="bold", show_edge=False)
    for name, size in zip(names, wide, strict=True):
        made.add_column(
            Text(name), overflow="fold", no_wrap=size <= _SHORT, min_width=min(size, _READABLE), ratio=None, width=None
        )
    for row in texts:
        made.add_row(*[Text(value) for value in row])
    return made


def _blocks(names: list[str], texts: list[list[str]], hidden: int) -> Table:
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    made.add_column(style="bold", max_width=24, overflow="fold")
    made.add_column(overflow="fold")
    for i, row in enumerate(texts):
        if i:
            made.add_row("", "")
        for name, value in zip(names, row, strict=True):
            made.add_row(Text(name), Text(value))
        if hidden:
            made.add_row("", Text(f"and {hidden} more columns", style="dim"))
    return made


def _natural(name: str, values: list[str]) -> int:
    return max(cell_len(line) for value in (name, *values) for line in (value.split("\n") or [""]))


def _text(value: object) -> str:
    """Write a value so that it cannot steer the terminal."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        text = ", ".join(f"{key}: {_text(part)}" for key, part in value.items())
    elif isinstance(value, list):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    shown = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text[:_LONGEST])
    return shown + ("…" if len(text) > _LONGEST else "")


def _failures(result: Result) -> str:
    counts = result.failures["error"].value_counts()
    kinds = ", ".join(f"{count} x {error}" for error, count in list(counts.items())[:3])
    where = f"; see {result.path / 'failures.parquet'}" if result.path is not None else ""
    rows = f"{result.dropped:,} {'row' if result.dropped == 1 else 'rows'} dropped, " if result.dropped else ""
    return f"{rows}{kinds}{where}"
