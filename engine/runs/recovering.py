"""Recovering: what the parts themselves, and the files beside them, say of a dataset whose journal is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ...runtime.logs import safe_logger
from ..core.errors import ResumeError
from ..core.events import Tally
from ..datasets.directory import FAILURES, part_files, shown
from ..datasets.found_parts import read_note
from ..datasets.journal_records import Facts, KeptFailure, Over
from ..datasets.reading import read_metadata
from ..telemetry.failures import FailedCell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..core.graph import Graph
    from ..core.row_groups import Plan

logger = safe_logger()


def facts_of_parts(path: Path, wanted: Facts) -> Facts | None:
    """Return what the parts say of their dataset; None where there are no parts.

    Raises ResumeError where they are of another recipe than `wanted`, or say nothing.
    """
    files = part_files(path)
    if not files:
        return None
    notes = list(filter(None, map(read_note, files.values())))
    # A function that was mended for a retry leaves parts of two fingerprints.
    note = next((note for note in notes if note.fingerprint == wanted.fingerprint), notes[0] if notes else None)
    if note is None:
        read_metadata(path)  # raises ResumeError for a file that rowloop did not write
        problem = f"'{shown(path)}' has parts, but its journal is gone, and they do not say how they were made"
        raise ResumeError(f"{problem}; choose another directory")
    if note.fingerprint != wanted.fingerprint:
        problem = f"'{shown(path)}' has another dataset: its recipe has the fingerprint {note.fingerprint}"
        raise ResumeError(f"{problem}, and this one has {wanted.fingerprint}; choose another directory", other=True)
    problem = "the journal of '%s' is lost; its %d parts are kept, and what is in none of them is made again"
    logger.warning(problem, path, len(files))
    return Facts(
        wanted.identity,
        note.seed,
        note.row_group_size,
        note.engine,
        note.targets,
        note.fingerprint,
        note.dataset,
        wanted.definitions,
    )


def rewritten_rows(path: Path) -> list[int] | None:
    """Return the rows of each part where after_generation has made the parts, else None."""
    files = part_files(path)
    notes = {number: read_note(file) for number, file in files.items()}
    if not notes or any(note is None or note.tally is not None for note in notes.values()):
        return None
    return [pq.read_metadata(files[number]).num_rows for number in sorted(files)]


def over_without_journal(plan: Plan, graph: Graph, rows: Sequence[int]) -> dict[int, Over]:
    """Return all row groups as over, where after_generation has made parts with these numbers of rows from them.

    Which row group a row came from is not known: the first one has all of them.
    """
    counts = [sum(rows), *[0] * (plan.row_groups - 1)]
    return {
        group: Over(Tally(live, 0, ((live, 0, 0),) * len(graph.columns)), None) for group, live in enumerate(counts)
    }


def listed_failures(path: Path, graph: Graph, plan: Plan) -> list[KeptFailure]:
    """Return the failures in failures.parquet, as final ones."""
    columns = {column.name: column.id for column in graph.columns}
    found: dict[tuple[int, int, int], KeptFailure] = {}
    for line in _lines(path):
        if line.column in columns and line.row_group < plan.row_groups:
            task = line.row_group, columns[line.column], line.row - plan.row(line.row_group, 0)
            found[task] = KeptFailure(*task, None, final=True, lines=[line])
    return list(found.values())


def _lines(path: Path) -> list[FailedCell]:
    try:
        return [FailedCell(**line) for line in pq.read_table(path / FAILURES, partitioning=None).to_pylist()]
    except FileNotFoundError:
        return []
    except (OSError, pa.ArrowException, TypeError) as error:
        logger.warning("cannot read '%s': %s", path / FAILURES, error)
        return []
