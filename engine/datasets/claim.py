"""Claim: a directory that one run has to itself, and how a run gets one."""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.errors import RecipeError, ResumeError
from .directory import JOURNAL, OVERWRITE, RESUME, has_dataset, make_directory
from .journal import Journal
from .past import Past
from .reading import read_metadata

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .directory import Resume
    from .journal_records import Facts
    from .past import Reopening

logger = logging.getLogger("rowloop")


@dataclass(frozen=True, slots=True)
class Claim:
    """A directory that one run has to itself, locked by its journal. `reopening` is None for a new dataset."""

    path: Path
    journal: Journal
    facts: Facts
    past: Past = field(default_factory=Past)
    reopening: Reopening | None = None

    @property
    def is_new(self) -> bool:
        """Whether a new dataset begins here. Whatever the directory has of another one is removed then."""
        return self.reopening is None

    def begin(self) -> None:
        """Write to the journal that a run begins: a new one, or one that resumes the dataset."""
        if self.reopening is None:
            self.journal.begin(self.facts)
            return
        self.journal.forget(self.reopening.lost)
        for group, over in self.reopening.unmarked.items():
            self.journal.mark_over(group, over)
        self.journal.resume(self.facts, self.reopening.void, self.reopening.retried)


def claim(path: Path, resume: Resume, examine: Callable[[Path, Journal], Claim], *, overwrite: bool) -> Claim:
    """Find a directory for a run and lock it; nothing in it is changed yet.

    `examine` decides whether the dataset in a locked directory fits the run; it raises ResumeError if not. With
    resume="if_possible", the next directory is tried then: path-2, path-3, ... Raises RecipeError for a directory that
    the run may not touch.
    """
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        make_directory(candidate)
        try:
            _check_contents(candidate, resume, overwrite=overwrite)
            return _locked(candidate, examine)
        except ResumeError as error:
            if not error.other or resume != "if_possible":
                raise  # in use, or broken: nobody asked to pay for everything again in another directory
            logger.warning("%s; trying the next directory", error)
    raise AssertionError  # numbers do not end


def _check_contents(path: Path, resume: Resume, *, overwrite: bool) -> None:
    if not has_dataset(path):
        return
    if resume == "never" and not overwrite:
        problem = f"'{path}' has a dataset already; use "
        raise RecipeError("path", problem, RESUME, " to resume it, or ", OVERWRITE, " to replace it")
    if not (path / JOURNAL).exists():
        read_metadata(path)  # raises ResumeError for a file that rowloop did not write
        if not overwrite:
            raise ResumeError(f"'{path}' has no {JOURNAL}, so it cannot be resumed; choose another directory")


def _locked(path: Path, examine: Callable[[Path, Journal], Claim]) -> Claim:
    journal = Journal(path)
    try:
        return examine(path, journal)
    except BaseException:
        journal.close()
        raise
