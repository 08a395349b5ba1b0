"""Claim: a directory that one run has to itself, and how a run gets one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ...runtime.logs import safe_logger
from ..core.errors import RecipeError, ResumeError
from .claim_files import take
from .directory import (
    OLD_JOURNAL,
    OVERWRITE,
    RESUME,
    has_dataset,
    journal_files,
    make_directory,
    move_old_layout,
    not_writable,
    remove_half_written,
    shown,
)
from .heartbeat import Heartbeat
from .journal import Journal, open_journal
from .kept import make_again
from .past import Past
from .reading import readable_metadata

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..core.events import Restored
    from ..core.store import RowGroup
    from .claim_files import Held
    from .directory import Resume
    from .journal_records import Facts
    from .past import Reopening

logger = safe_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """A directory that this process has claimed, with its journal."""

    path: Path
    journal: Journal
    held: Held
    heartbeat: Heartbeat

    def check(self) -> None:
        """Raise DatasetGenerationError if another process has taken over."""
        self.held.check()

    def close(self) -> None:
        """Close the journal, and let others have the directory."""
        self.heartbeat.close()
        self.journal.close()
        self.held.release()


@dataclass(frozen=True, slots=True)
class Claim:
    """A place for one run, and what the run finds there. `reopening` is None for a new dataset."""

    place: Place
    facts: Facts
    past: Past = field(default_factory=Past)
    reopening: Reopening | None = None
    update: EarlierValues | None = None
    """What an update has set aside; `updating`: or is about to."""
    updating: bool = False

    @property
    def is_new(self) -> bool:
        """Whether a new dataset begins here. Whatever the directory has of another one is removed then."""
        return self.reopening is None and not self.updating

    def begin(self) -> None:
        """Write to the journal that a run begins: a new one, or one that resumes the dataset."""
        journal = self.place.journal
        if self.update is not None and self.updating:
            self.update.begin()
            return
        if self.reopening is None:
            journal.begin(self.facts)
            return
        journal.forget(self.reopening.lost)
        for group, over in self.reopening.unmarked.items():
            journal.mark_over(group, over)
        if self.reopening.rewriting is not None:
            journal.mark_rewriting(list(self.reopening.rewriting))
        if self.reopening.listed:
            journal.write([], self.reopening.listed, journal.spending)
        journal.resume(self.facts, self.reopening.void, self.reopening.retried)


class EarlierValues(Protocol):
    """What an update keeps of the tables that it has set aside."""

    def begin(self) -> None:
        """Set the dataset in force aside, and begin the new one in its journal."""
        ...

    def prepare(self) -> None:
        """Find what is kept. Takes time: not on the loop."""
        ...

    def restore(self, group: RowGroup, known: Restored) -> Restored:
        """Put kept values into a row group, beside what the journal has."""
        ...

    def finish(self) -> None:
        """Remove what was set aside, as every row group has been worked."""
        ...

    def close(self) -> None:
        """Close what was set aside."""
        ...


def claim(path: Path, resume: Resume, examine: Callable[[Place], Claim], *, overwrite: bool) -> Claim:
    """Find a directory for a run and claim it; nothing in it is changed yet, but for a layout of earlier versions.

    `examine` decides whether the dataset in a claimed directory fits the run; it raises ResumeError if not. With
    resume="if_possible", the next directory is tried then: path-2, path-3, ... Raises RecipeError for a directory that
    the run may not touch, and ResumeError where another run has it. A claim that gives no sign is waited for.
    """
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        _check_contents(candidate, resume, overwrite=overwrite)
        make_directory(candidate)
        try:
            return _claimed(candidate, resume, examine, overwrite=overwrite)
        except ResumeError as error:
            if not error.other or resume != "if_possible":
                raise  # in use, or broken: nobody asked to pay for everything again in another directory
            logger.warning("%s; trying the next directory", error)
    raise AssertionError  # numbers do not end


def _check_contents(path: Path, resume: Resume, *, overwrite: bool) -> None:
    if has_dataset(path) and resume == "never" and not overwrite:
        problem = f"'{shown(path)}' has a dataset already; use "
        raise RecipeError("path", problem, RESUME, " to resume it, or ", OVERWRITE, " to replace it")
    if not journal_files(path) and not (path / OLD_JOURNAL).exists():
        readable_metadata(path)  # raises ResumeError for a file that rowloop did not write


def _claimed(path: Path, resume: Resume, examine: Callable[[Place], Claim], *, overwrite: bool) -> Claim:
    try:
        held = take(path, logger.warning)
    except OSError as error:
        raise not_writable(path, error) from error
    remove_half_written(path)
    heartbeat = Heartbeat(held)
    try:
        _check_contents(path, resume, overwrite=overwrite)  # another run may have come and gone meanwhile
        _move_old_layout(path)
        place = Place(path, open_journal(path, held), held, heartbeat)
    except BaseException:
        heartbeat.close()
        held.release()
        raise
    try:
        if resume != "never" and place.journal.facts is None and (ended := readable_metadata(path)) is not None:
            make_again(place.journal, path, ended)
        return examine(place)
    except BaseException:
        place.close()
        raise


def _move_old_layout(path: Path) -> None:
    """Move a dataset of an earlier version to its new place, unless a run of that version has its journal open."""
    old = path / OLD_JOURNAL
    if old.exists():
        Journal(old).close()
    move_old_layout(path)
