"""Resuming: whether a run may work in a directory, whether what is there fits it, and what of that is done."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ..compiler.identity import differences
from ..core.errors import RecipeError, ResumeError
from ..core.events import WHOLE
from ..core.row_groups import Earlier, Plan
from ..datasets.claim import Claim
from ..datasets.directory import (
    JOURNAL,
    holds_dataset,
    make_directory,
    part_files,
    part_name,
    remove_new_data,
    swap_data,
)
from ..datasets.journal import Facts, Journal, KeptFailure, Over
from ..datasets.parts import Part
from ..datasets.reading import read_metadata

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from ..compiler.compiling import Compiled
    from ..core.graph import Graph
    from ..datasets.journal import Task
    from .settings import Settings

_SHOWN = 5
"""How many differences a message shows."""

logger = logging.getLogger("rowloop")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The dataset that a run is to make; any `row_group_size` will do where it is None."""

    compiled: Compiled
    settings: Settings
    row_group_size: int | None


def claim(path: Path, compiled: Compiled, settings: Settings, row_group_size: int | None = None) -> Claim:
    """Find a directory for a run and lock it; nothing in it is lost by that.

    A dataset that is there may have any size of row groups unless one is asked for. Raises RecipeError where there is
    something that the run may not touch, and ResumeError, with the difference, for a dataset that does not fit. With
    resume="if_possible" the next directory is taken then: path-2, path-3, ...
    """
    wanted = _Wanted(compiled, settings, row_group_size)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        make_directory(candidate)
        try:
            return _claimed(candidate, wanted)
        except ResumeError as error:
            if not error.other or wanted.settings.resume != "if_possible":
                raise  # in use, or broken: to pay for all of it once more is not what was asked for
            logger.warning("%s; trying the next directory", error)
    raise AssertionError  # numbers do not end


def _claimed(path: Path, wanted: _Wanted) -> Claim:
    there = holds_dataset(path)
    if there and wanted.settings.resume == "never" and not wanted.settings.overwrite:
        problem = f"'{path}' holds a dataset already; say resume=\"always\" to go on with it, or overwrite=True"
        raise RecipeError("path", problem)
    if there and not (path / JOURNAL).exists():
        read_metadata(path)  # raises ResumeError for what no run of ours has written
        if not wanted.settings.overwrite:
            raise ResumeError(f"'{path}' has no {JOURNAL}, which says what is done; begin in another directory")
    journal = Journal(path)
    try:
        return _fitting(path, journal, wanted)
    except BaseException:
        journal.close()
        raise


def _fitting(path: Path, journal: Journal, wanted: _Wanted) -> Claim:
    facts = journal.facts
    if wanted.settings.resume == "never" or facts is None:
        return Claim(path, journal, _facts(wanted, None))
    found = _differences(facts, wanted)
    if found and not wanted.settings.overwrite and not _is_bare(path, journal):
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise ResumeError(
            f"'{path}' holds another dataset: {'; '.join(found[:_SHOWN])}{more};"
            " choose another directory, or say overwrite=True",
            other=True,
        )
    if found:
        return Claim(path, journal, _facts(wanted, None))
    return _found(Claim(path, journal, _facts(wanted, facts), fresh=False), wanted)


def _facts(wanted: _Wanted, there: Facts | None) -> Facts:
    """Say what the dataset is from now on."""
    compiled, settings = wanted.compiled, wanted.settings
    if there is None:
        return Facts(compiled.identity, settings.seed, settings.row_group_size, compiled.engine, [settings.rows])
    targets = there.targets if settings.rows in there.targets else [*there.targets, settings.rows]
    return Facts(there.identity, there.seed, there.row_group_size, there.engine, targets)


def _differences(there: Facts, wanted: _Wanted) -> list[str]:
    """Say in what the dataset that is there is another one."""
    compiled = wanted.compiled
    found = list(differences(there.identity, compiled.identity))
    asked = {"row_group_size": (there.row_group_size, wanted.row_group_size), "engine": (there.engine, compiled.engine)}
    found += [f"{name} is {now}, and was {was}" for name, (was, now) in asked.items() if now not in {None, was}]
    if wanted.settings.rows < max(there.targets):
        found.append(
            f"rows is {wanted.settings.rows}, and was {max(there.targets)}: a dataset can grow, but not shrink"
        )
    return found


def _is_bare(path: Path, journal: Journal) -> bool:
    """Tell whether a dataset has nothing that could be lost: no row, and no value."""
    if journal.rewriting is not None:
        return False
    return not (part_files(path) or any(journal.recall(group).values for group in journal.begun()))


# What is there


def _found(place: Claim, wanted: _Wanted) -> Claim:
    """Look at what earlier runs have left."""
    journal, compiled, facts = place.journal, wanted.compiled, place.facts
    rewritten = journal.rewriting
    place.spent = journal.spending
    place.rewritten = rewritten is not None
    if rewritten is None:
        remove_new_data(place.path)
    else:
        swap_data(place.path)
    plan = Plan(wanted.settings.rows, facts.row_group_size, earlier=Earlier(tuple(facts.targets)))
    failures = journal.failures()
    _look_at_parts(place, plan, compiled.written)
    if rewritten is not None:
        _check_rewritten(place, rewritten)
    over = _over(place, plan)
    failures = [failure for failure in failures if failure.row_group not in place.lost]
    place.retried = [f for f in failures if wanted.settings.retry_failed or not f.final or _is_moot(f, over, compiled)]
    again = {failure.task for failure in place.retried}
    place.failures = [failure for failure in failures if failure.task not in again]
    place.void = _void([failure for failure in place.retried if failure.final], compiled, plan)
    tallies = {group: one.tally for group, one in over.items() if group not in place.void}
    known = journal.begun() - tallies.keys() - set(place.lost) if compiled.restorable else ()
    place.earlier = replace(plan.earlier, over=tallies, begun=known)
    if place.rewritten and len(tallies) < plan.row_groups:
        raise ResumeError(
            f"the rows in '{place.path}' are what after_generation has made of them: none can be added, or worked"
            " again; begin in another directory",
            other=True,
        )
    place.left = len(tallies) < plan.row_groups
    place.finished = not place.left and _is_described(place, wanted.settings.rows)
    return place


def _is_described(place: Claim, rows: int) -> bool:
    """Tell whether metadata.json says of the whole dataset how it has ended."""
    try:
        metadata = read_metadata(place.path)
    except ResumeError as error:
        logger.warning("%s; it is written anew", error)
        return False
    if metadata is None or metadata.target_num_records != rows or metadata.early_shutdown:
        return False
    return metadata.status in {"complete", "partial"}


def _is_moot(failure: KeptFailure, over: Collection[int], compiled: Compiled) -> bool:
    """Tell whether a failure is of a row group that begins anew, as nothing in it can be restored."""
    return not compiled.restorable and failure.row_group not in over


def _over(place: Claim, plan: Plan) -> dict[int, Over]:
    """Give the row groups that are over: those of which the journal says so, if their parts are there.

    Raises ResumeError naming a part that the journal does not know.
    """
    known, cut = place.journal.over(), place.journal.cut()
    if place.rewritten:
        return known
    over: dict[int, Over] = {}
    parts = {part.row_group: part for part in place.parts}
    for group, one in known.items():
        part = parts.get(group)
        if part is not None and one.written is None:  # written, and then came a crash
            over[group] = place.unmarked[group] = Over(one.tally, part.rows)
        elif one.written == (0 if part is None else part.rows):
            over[group] = one
        elif part is not None:
            raise _foreign(place, part, f"it has {part.rows} rows, and {one.written} were written")
        elif one.written is not None:
            logger.warning("the part of row group %d is gone from '%s'; it is made anew", group, place.path / "data")
            place.lost.append(group)
    for group in sorted(parts.keys() - over.keys() - cut):
        raise _foreign(place, parts[group], "nothing is known of it")
    without = (group for group, one in over.items() if one.tally.live and not one.written)  # processors left none
    place.parts += [Part(group, plan.row(group, 0), 0) for group in without]
    return over


def _check_rewritten(place: Claim, rows: Sequence[int]) -> None:
    """See that all parts are there that after_generation has made: no other run could make them anew."""
    parts = {part.row_group: part for part in place.parts}
    for number, expected in enumerate(rows):
        part = parts.pop(number, None)
        if part is None:
            file = place.path / "data" / part_name(number)
            raise ResumeError(f"'{file}' is gone, and cannot be made anew; say overwrite=True to begin anew")
        if part.rows != expected:
            raise _foreign(place, part, f"it has {part.rows} rows, and {expected} were written")
    for part in parts.values():
        raise _foreign(place, part, "nothing is known of it")


def _foreign(place: Claim, part: Part, why: str) -> ResumeError:
    return ResumeError(f"'{place.path}/{part.file}' is of another dataset: {why}; move it elsewhere to go on")


def _void(retried: Sequence[KeptFailure], compiled: Compiled, plan: Plan) -> dict[int, list[Task]]:
    """Say which values no longer count in the row groups of cells that are worked again: those made from them.

    Columns that are worked whole are made from all rows, of which there will be others. Nothing was made without a cell
    whose failure ended its run.
    """
    columns = compiled.graph.columns
    wholes = [column for column in columns if column.whole and column.id in compiled.kept]
    everywhere = set[int]().union(*(_dependents(compiled.graph, column.id) for column in wholes))
    void: dict[int, set[Task]] = {}
    for failure in retried:
        if failure.row_group not in void:
            of_all = itertools.product(everywhere, range(plan.size(failure.row_group)))
            void[failure.row_group] = {*((column.id, WHOLE) for column in wholes), *of_all}
        rows = [failure.row] if failure.rows is None else failure.rows
        void[failure.row_group].update(itertools.product(_dependents(compiled.graph, failure.column), rows))
    return {group: sorted(tasks) for group, tasks in void.items()}


def _dependents(graph: Graph, column: int) -> set[int]:
    """Give the columns whose values are made from those of another, by whatever way."""
    found = {column}
    for id_ in graph.order:
        if not found.isdisjoint(graph.columns[id_].needs):
            found.add(id_)
    return found - {column}


def _look_at_parts(place: Claim, plan: Plan, columns: list[str] | None) -> None:
    """Read how many rows the parts have, and of what types; raises ResumeError naming a file that does not belong."""
    start = 0
    for number, file in part_files(place.path).items():
        schema, rows = _read_footer(file)
        if (columns is not None and schema.names != columns) or (place.schema and schema.names != place.schema.names):
            raise ResumeError(f"'{file}' is of another dataset: its columns are {', '.join(schema.names)}")
        if number >= plan.row_groups and not place.rewritten:
            raise ResumeError(f"'{file}' is of another dataset: there are {plan.row_groups} row groups")
        unified = _unified(place.schema, schema, file)
        place.uneven |= not unified.equals(schema) or (place.schema is not None and not unified.equals(place.schema))
        place.schema = unified
        place.parts.append(Part(number, start if place.rewritten else plan.row(number, 0), rows, f"data/{file.name}"))
        start += rows


def _read_footer(file: Path) -> tuple[pa.Schema, int]:
    try:
        with pq.ParquetFile(file) as part:
            return part.schema_arrow, part.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise ResumeError(f"'{file}' cannot be read: {error}; remove it to have its rows made anew") from error


def _unified(known: pa.Schema | None, schema: pa.Schema, file: Path) -> pa.Schema:
    """Widen types: a crash may have come while parts were being rewritten with wider ones."""
    try:
        return schema if known is None else pa.unify_schemas([known, schema], promote_options="permissive")
    except pa.ArrowException as error:
        raise ResumeError(f"'{file}' is of another dataset: {error}") from error
