"""Resuming: whether the dataset in a directory is the one that a run makes, and what is left to do in it."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec

from ...runtime.logs import safe_logger
from ..compiler.identity import differences, with_code_of
from ..core.errors import Option, ResumeError
from ..core.events import WHOLE
from ..core.row_groups import Earlier, Plan
from ..datasets.claim import Claim, Place, claim
from ..datasets.directory import OVERWRITE, part_files, remove_new_data, shown, swap_data
from ..datasets.earlier import earlier_tables
from ..datasets.found_parts import check_part, check_rewritten, find_parts, foreign
from ..datasets.journal_records import Facts, Over
from ..datasets.parts import Part
from ..datasets.past import FoundParts, Past, Reopening
from ..datasets.reading import read_metadata
from .recovering import facts_of_parts, listed_failures, over_without_journal, rewritten_rows
from .updates.updating import Update, check_updatable, spending_of, updated_facts

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from ..columns.column import Column
    from ..core.graph import Graph
    from ..datasets.journal import Journal
    from ..datasets.journal_records import KeptFailure, Task
    from .settings import Settings

_SHOWN: Final = 5
"""The most differences that an error lists."""

logger = safe_logger()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The dataset that a run makes.

    `facts` describe it where a new one begins. `written` are its columns after all processors; None if only running
    them shows that. `kept` are the columns whose values a journal keeps. `restorable`: values can be put back into a
    row group, because its number of rows does not change.
    """

    facts: Facts
    written: list[str] | None
    graph: Graph
    kept: Collection[int]
    restorable: bool
    columns: Sequence[Column] = ()


@dataclass(frozen=True, slots=True)
class _Groups:
    """The row groups that are over, those of them that the journal does not have as over yet, and the lost ones."""

    over: Mapping[int, Over]
    unmarked: Mapping[int, Over]
    lost: Sequence[int]


def claim_directory(path: Path, wanted: Wanted, settings: Settings) -> Claim:
    """Find a directory for a run and claim it; nothing in it is lost by that.

    Raises RecipeError for a directory that the run may not touch, and ResumeError, with the differences, for a dataset
    that does not fit. With resume="if_possible", the next directory is tried then: path-2, path-3, ...
    """
    examine = functools.partial(_examine, wanted=wanted, settings=settings)
    return claim(path, settings.resume, examine, overwrite=settings.overwrite)


def _examine(place: Place, *, wanted: Wanted, settings: Settings) -> Claim:
    path, journal = place.path, place.journal
    there = journal.facts
    if settings.resume != "never" and there is None:
        there = facts_of_parts(path, wanted.facts)
    if settings.resume == "never" or there is None:
        return Claim(place, wanted.facts)
    found = _differences(there, wanted.facts, settings)
    if found and settings.resume == "update" and not settings.overwrite:
        return _updating(place, there, wanted, settings)
    if found and not settings.overwrite and not _is_empty(path, journal):
        parts = itertools.chain.from_iterable((*difference, "; ") for difference in found[:_SHOWN])
        more = f"and {len(found) - _SHOWN} more; " if len(found) > _SHOWN else ""
        advice = f"{more}choose another directory, or use "
        problem = (f"'{shown(path)}' has another dataset: ", *parts, advice, OVERWRITE, " to replace it")
        raise ResumeError(*problem, other=True)
    if found:
        return Claim(place, wanted.facts)
    return _resumed(place, there, wanted, settings)


def _updating(place: Place, there: Facts, wanted: Wanted, settings: Settings) -> Claim:
    """Claim a dataset that an update replaces: everything in it stays until what replaces it has been written."""
    check_updatable(there, wanted.facts, rewritten=place.journal.rewriting is not None)
    facts = updated_facts(there, wanted.facts, settings.row_group_size)
    groups = Plan(settings.rows, facts.row_group_size).row_groups
    past = Past(
        earlier=Earlier((settings.rows,), begun=range(groups)),
        spent=spending_of(place.journal.spending, there.definitions, facts.definitions),
    )
    return Claim(place, facts, past, update=Update(place, facts, wanted.columns, wanted.graph), updating=True)


def _differences(there: Facts, wanted: Facts, settings: Settings) -> list[tuple[str | Option, ...]]:
    """Describe how an existing dataset differs from the wanted one."""
    was = with_code_of(there.identity, wanted.identity) if settings.retry_failed else there.identity
    found: list[tuple[str | Option, ...]] = [(line,) for line in differences(was, wanted.identity)]
    asked = {
        "row_group_size": (there.row_group_size, settings.row_group_size),
        "engine": (there.engine, wanted.engine),
    }
    found += [
        (Option(name), f" is {now}, and was {old}") for name, (old, now) in asked.items() if now not in {None, old}
    ]
    if settings.rows < max(there.targets):
        shrunk = f" is {settings.rows}, and was {max(there.targets)}: a dataset can grow, but not shrink"
        found.append((Option("rows"), shrunk))
    return found


def _is_empty(path: Path, journal: Journal) -> bool:
    """Return whether a dataset has nothing to lose: no row and no value."""
    if journal.rewriting is not None:
        return False
    return not (part_files(path) or any(journal.recall(group).values for group in journal.begun()))


def _resumed(place: Place, there: Facts, wanted: Wanted, settings: Settings) -> Claim:
    """Claim a dataset that fits, with everything that earlier runs have left in it."""
    path, journal = place.path, place.journal
    rewriting = journal.rewriting
    if rewriting is None:
        remove_new_data(path)
    else:
        swap_data(path)
    plan = Plan(settings.rows, there.row_group_size, earlier=Earlier(tuple(there.targets)))
    if journal.facts is None:
        rewriting = rewritten_rows(path)
    unfinished = bool(earlier_tables(path, there.dataset))
    own = there.dataset if unfinished else None
    found = find_parts(path, plan, wanted.written, rewritten=rewriting is not None, dataset=own)
    if rewriting is None:
        groups = _groups_over(place, found, there.dataset)
        parts = [_with_checksum(part, groups.over) for part in found.parts]
        found = replace(found, parts=[*parts, *_without_rows(groups.over, plan)])
    else:
        check_rewritten(path, found.parts, rewriting)
        over = journal.over() or over_without_journal(plan, wanted.graph, rewriting)
        groups = _Groups(over, {}, [])
    listed = listed_failures(path, wanted.graph, plan) if journal.facts is None else []
    listed = [failure for failure in listed if failure.row_group in groups.over]  # other row groups are worked anew
    failures = [failure for failure in [*journal.failures(), *listed] if failure.row_group not in groups.lost]
    retried = _retried(failures, groups.over, wanted, settings)
    void = _void([failure for failure in retried if failure.final], wanted, plan)
    tallies = {group: one.tally for group, one in groups.over.items() if group not in void}
    done = len(tallies) == plan.row_groups
    if rewriting is not None and not done:
        raise ResumeError(
            f"the rows in '{shown(path)}' are those that after_generation made: rows cannot be added or retried; choose"
            " another directory",
            other=True,
        )
    again = {failure.task for failure in retried}
    begun = _begun(journal, {*tallies, *groups.lost}, wanted)
    if unfinished:
        begun = range(plan.row_groups)
    past = Past(
        earlier=replace(plan.earlier, over=tallies, begun=begun),
        spent=journal.spending,
        failures=[failure for failure in failures if failure.task not in again],
        found=found,
        finished=done and not unfinished and _is_described(path, settings.rows),
        rewritten=rewriting is not None,
    )
    reopening = Reopening(groups.lost, groups.unmarked, void, retried, listed, rewriting)
    facts = _grown(there, wanted.facts, settings.rows)
    update = Update(place, facts, wanted.columns, wanted.graph) if unfinished else None
    return Claim(place, facts, past, reopening, update)


def _grown(there: Facts, wanted: Facts, rows: int) -> Facts:
    """Return the facts of a dataset that is resumed: the code of its functions may have been mended."""
    targets = there.targets if rows in there.targets else [*there.targets, rows]
    return msgspec.structs.replace(
        there, targets=targets, identity=wanted.identity, fingerprint=wanted.fingerprint, definitions=wanted.definitions
    )


def _is_described(path: Path, rows: int) -> bool:
    """Return whether metadata.json describes the end of the whole dataset."""
    try:
        metadata = read_metadata(path)
    except ResumeError as error:
        logger.warning("%s; it is rewritten", error)
        return False
    if metadata is None or metadata.target_num_records != rows or metadata.early_shutdown:
        return False
    return metadata.status in {"complete", "partial"}


# Row groups


def _groups_over(place: Place, found: FoundParts, dataset: str) -> _Groups:
    """Find the row groups that are over: the journal has them as over, and their parts exist.

    A part that the journal does not know counts as well if its note says that it is of this dataset: the journal may
    have lost its latest entries, or all. Raises ResumeError naming any other part.
    """
    path, journal, parts = place.path, place.journal, found.parts
    over: dict[int, Over] = {}
    unmarked: dict[int, Over] = {}
    lost: list[int] = []
    there = {part.row_group: part for part in parts}
    for group, one in journal.over().items():
        part = there.get(group)
        if part is not None and one.written is None:  # it was written, then the run crashed
            over[group] = unmarked[group] = Over(one.tally, part.rows)
        elif one.written == (0 if part is None else part.rows):
            if part is not None and one.checksum is not None:
                check_part(path, part, one.checksum, one.stamp)
            over[group] = one
        elif part is not None:
            raise foreign(path, part, f"it has {part.rows} rows, but {one.written} were written")
        elif one.written is not None:
            logger.warning("the part of row group %d is missing from '%s'; it is made again", group, path / "data")
            lost.append(group)
    for group in sorted(there.keys() - over.keys() - journal.cut()):
        note = found.notes.get(group)
        if note is None or note.tally is None:
            raise foreign(path, there[group], "no run has written it")
        if not note.tally.cut:  # else a later run works it again, and replaces the part
            over[group] = unmarked[group] = Over(note.tally, there[group].rows)
    _check_notes(path, found, dataset)
    return _Groups(over, unmarked, lost)


def _check_notes(path: Path, found: FoundParts, dataset: str) -> None:
    """Check that each part is what it says of itself, also where the journal knows no checksum of it."""
    for part in found.parts:
        note = found.notes.get(part.row_group)
        if note is not None and (note.dataset, note.row_group) != (dataset, part.row_group):
            raise foreign(path, part, f"it was written as row group {note.row_group} of dataset {note.dataset}")


def _with_checksum(part: Part, over: Mapping[int, Over]) -> Part:
    one = over.get(part.row_group)
    return part if one is None else replace(part, checksum=one.checksum)


def _without_rows(over: Mapping[int, Over], plan: Plan) -> list[Part]:
    """Return the parts without a file: row groups of which processors removed all rows."""
    return [Part(group, plan.row(group, 0), 0) for group, one in over.items() if one.tally.live and not one.written]


def _begun(journal: Journal, without: Collection[int], wanted: Wanted) -> Collection[int]:
    """Return the unfinished row groups whose values can be restored."""
    return journal.begun().difference(without) if wanted.restorable else ()


# Failures that are retried


def _retried(
    failures: Sequence[KeptFailure], over: Collection[int], wanted: Wanted, settings: Settings
) -> list[KeptFailure]:
    """Choose the failures to retry: all if asked to, else those that ended a run or whose row group starts anew."""

    def starts_anew(failure: KeptFailure) -> bool:
        return not wanted.restorable and failure.row_group not in over

    return [one for one in failures if settings.retry_failed or not one.final or starts_anew(one)]


def _void(retried: Sequence[KeptFailure], wanted: Wanted, plan: Plan) -> dict[int, list[Task]]:
    """Find the values that no longer count in the row groups of retried cells: those made from these cells.

    A column that is worked whole is made from all rows, and there may be other rows now. Nothing was made without a
    cell whose failure ended its run.
    """
    columns = wanted.graph.columns
    wholes = [column for column in columns if column.whole and column.id in wanted.kept]
    everywhere = set[int]().union(*(_dependents(wanted.graph, column.id) for column in wholes))
    void: dict[int, set[Task]] = {}
    for failure in retried:
        if failure.row_group not in void:
            of_all = itertools.product(everywhere, range(plan.size(failure.row_group)))
            void[failure.row_group] = {*((column.id, WHOLE) for column in wholes), *of_all}
        rows = [failure.row] if failure.rows is None else failure.rows
        void[failure.row_group].update(itertools.product(_dependents(wanted.graph, failure.column), rows))
    return {group: sorted(tasks) for group, tasks in void.items()}


def _dependents(graph: Graph, column: int) -> set[int]:
    """Return the columns whose values are made from those of another, directly or not."""
    found = {column}
    for id_ in graph.order:
        if not found.isdisjoint(graph.columns[id_].needs):
            found.add(id_)
    return found - {column}
