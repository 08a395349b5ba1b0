"""The report that the command line prints after a run: the first rows, counts, tokens, failures and times."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ...engine.core.errors import printable
from ...engine.datasets.directory import FAILURES, shown
from ..displays.wording import duration, per_second

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from ...engine.datasets.result import Result

_MOST_COLUMNS = 20
_LONGEST = 600  # characters of a value that are printed
_SHORT = 16  # cells; a column whose values are no wider is not wrapped
_READABLE = 20  # cells that wrapped text needs to be readable
_FROM_REPORT = {
    "reason",
    "retries",
    "json",
    "model",
    "slowest",
    "time",
}  # lines of the run's report that are printed as they are
_GUTTER = 3  # cells between two columns

Line = tuple[str, str, str]
"""A label, a text and the style of the text."""


def print_report(result: Result, console: Console, rows: int) -> None:
    """Print the first `rows` rows, then how the run went and where its files are."""
    sample = first_rows(result, rows)
    if sample:
        console.print()
        console.print(table(sample, console.width))
        if len(sample) < result.actual:
            console.print(f"the first {len(sample)} of {result.actual:,} rows", style="dim")
        console.print()
    for label, text, style in _lines(result):
        console.print(Text(f"{label:<9} ", style="bold") + Text(printable(text), style=style), soft_wrap=True)


def first_rows(result: Result, rows: int) -> list[dict[str, Any]]:
    """Read the first rows; from a directory, read no more than needed."""
    if result.path is None:
        read = result.to_arrow().slice(0, rows)
    else:
        import pyarrow.dataset as ds  # noqa: PLC0415 - not for --help

        read = ds.dataset(result.path / "data", format="parquet").head(rows)
    listed: list[dict[str, Any]] = read.to_pylist()
    return listed


def _lines(result: Result) -> Iterator[Line]:
    report = result.report
    rate = per_second(report.rate) if result.elapsed else ""
    earlier = f" ({report.earlier:,} of them from earlier runs)" if report.earlier else ""
    counts = f"{result.actual:,} of {result.target:,} rows{earlier} in {duration(result.elapsed)}, {rate}"
    yield result.status, counts, "green" if result.status == "complete" else "bold yellow"
    if report.requests:
        speed = report.completion_tokens / (result.elapsed or 1.0)
        tokens = f"{report.prompt_tokens:,} prompt + {report.completion_tokens:,} completion ({speed:,.0f}/s)"
        yield "tokens", f"{tokens} in {report.requests:,} requests", ""
        if report.cost_text:
            yield "cost", report.cost_text, ""
    if len(result.failures):
        yield "failures", _failures(result), "bold yellow"
    for label, text in report.lines():
        if label in _FROM_REPORT:
            yield label, text, "bold yellow" if label == "reason" else "dim"
    if result.path is not None:
        yield "output", str(shown(result.path)), ""


def table(sample: list[dict[str, Any]], width: int) -> RenderableType:
    """Lay rows out in `width` cells: columns side by side where they stay readable, else one block per row."""
    names = list(sample[0])
    shown = names[:_MOST_COLUMNS]
    texts = [[_text(row[name]) for name in shown] for row in sample]
    labels = [_text(name) for name in shown]
    widths = [_natural_width(name, [row[i] for row in texts]) for i, name in enumerate(labels)]
    fixed = sum(natural for natural in widths if natural <= _SHORT)
    wrapped = sum(min(natural, _READABLE) for natural in widths if natural > _SHORT)
    if len(names) == len(shown) and fixed + wrapped + _GUTTER * len(shown) <= width:
        return _side_by_side(labels, texts, widths)
    return _blocks(labels, texts, len(names) - len(shown))


def _side_by_side(names: list[str], texts: list[list[str]], widths: list[int]) -> Table:
    laid_out = Table(box=None, padding=(0, _GUTTER, 1, 0), pad_edge=False, header_style="bold", show_edge=False)
    for name, width in zip(names, widths, strict=True):
        laid_out.add_column(
            Text(name), overflow="fold", no_wrap=width <= _SHORT, min_width=min(width, _READABLE), ratio=None
        )
    for row in texts:
        laid_out.add_row(*[Text(value) for value in row])
    return laid_out


def _blocks(names: list[str], texts: list[list[str]], hidden: int) -> Table:
    laid_out = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    laid_out.add_column(style="bold", max_width=24, overflow="fold")
    laid_out.add_column(overflow="fold")
    for i, row in enumerate(texts):
        if i:
            laid_out.add_row("", "")
        for name, value in zip(names, row, strict=True):
            laid_out.add_row(Text(name), Text(value))
        if hidden:
            laid_out.add_row("", Text(f"and {hidden} more columns", style="dim"))
    return laid_out


def _natural_width(name: str, values: list[str]) -> int:
    return max(cell_len(line) for value in (name, *values) for line in (value.split("\n") or [""]))


def _text(value: object) -> str:
    """Write a value with escapes for control characters, which could change the terminal; tabs are spaces."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        text = ", ".join(f"{key}: {_text(part)}" for key, part in value.items())
    elif isinstance(value, list):
        text = json.dumps(value, ensure_ascii=False, default=str)
    else:
        text = str(value)
    return printable(text[:_LONGEST].expandtabs(4)) + ("…" if len(text) > _LONGEST else "")


def _failures(result: Result) -> str:
    counts = result.failures["error"].value_counts()
    kinds = ", ".join(f"{count} x {error}" for error, count in list(counts.items())[:3])
    where = f"; see {shown(result.path) / FAILURES}" if result.path is not None else ""
    rows = f"{result.dropped:,} {'row' if result.dropped == 1 else 'rows'} dropped, " if result.dropped else ""
    return f"{rows}{kinds}{where}"
