"""Endings: what a run that ended before every row was worked has left, and SIGTERM as another Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from datetime import datetime
from typing import TYPE_CHECKING

from ...engine.core.errors import Option, ResumeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ...engine.datasets.result import Result


class Terminated(KeyboardInterrupt):
    """SIGTERM: handled like Ctrl-C. `left`: what the run has left in its directory."""

    def __init__(self, left: str = "") -> None:
        """Take what to print."""
        self.left = left
        super().__init__("SIGTERM")


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raise Terminated at SIGTERM, unless it is ignored or somebody else handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(*_: object) -> None:
    raise Terminated


def describe_early(result: Result, output: Path, write: Callable[[Option], str]) -> str:
    """Describe what ended a run early, what it has left, and how to resume it; `write` writes an option."""
    word, colon, facts = (result.reason or "").partition(":")
    budget, option = word in {"max_cost", "max_tokens_total"}, write(Option(word))
    reason = f"{option}{colon}{facts}" if budget or word in {"deadline", "outage_after"} else result.reason
    larger = f" and a larger {option}" if budget else ""
    more = ", or with --retry-failed to retry the failed cells as well" if word == "error budget" else ""
    return f"{reason}; {_describe_rows(result.actual, result.target, output)}{larger}{more}"


def _describe_rows(rows: int, target: int, output: Path) -> str:
    saved = f"{rows:,} of {target:,} rows are finished, in {output / 'data'}" if rows else "no row is finished"
    return f"{saved}; to resume, run the same command with --resume"


def describe_interrupted(output: Path, begun: datetime) -> str:
    """Describe what an interrupted run left in its directory, and how to resume it."""
    from ...engine.datasets.reading import read_metadata  # noqa: PLC0415 - not for --help

    metadata = None
    with contextlib.suppress(ResumeError):
        metadata = read_metadata(output)
    if metadata is not None and metadata.status == "running" and datetime.fromisoformat(metadata.started_at) >= begun:
        return f"finished rows are in {output / 'data'}; to resume, run the same command with --resume"
    ended = "" if metadata is None or metadata.status != "cancelled" else metadata.finished_at
    if metadata is None or not ended or datetime.fromisoformat(ended) < begun:
        return "nothing was written"  # interrupted before it began: the directory holds another run's rows
    return _describe_rows(metadata.actual_num_records, metadata.target_num_records, output)
