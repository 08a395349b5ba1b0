"""Kept: what a later run needs of a dataset whose journal is gone, because its last run ended with nothing left to do.

It is in metadata.json; the counts of a row group are in its part. From both, a run that resumes the dataset makes the
journal again as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..core.events import NO_TALLY
from .directory import part_files
from .journal_records import Kept, Over

if TYPE_CHECKING:
    from pathlib import Path

    from .journal import Journal
    from .metadata import Metadata


def kept_of(journal: Journal) -> Kept | None:
    """Return what to keep of a journal; None if a later run may need more than that.

    That is so where cells have failed, which can be retried, and where a row group is not in a part of its own. Parts
    of earlier versions do not have the counts of their row groups.
    """
    facts, over, rewriting = journal.facts, journal.over(), journal.rewriting
    if facts is None or not facts.dataset or journal.cut() or journal.begun() != over.keys() or journal.has_failures:
        return None
    if rewriting is None and not all(one.written for one in over.values()):
        return None
    found = over.items() if rewriting is None else ()
    parts = [(group, one.written or 0, one.checksum, one.stamp) for group, one in found]
    kept = Kept(facts, journal.spending, parts, rewriting)
    try:
        same = msgspec.json.decode(msgspec.json.encode(kept), type=Kept) == kept
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
        return None
    return kept if same else None


def make_again(journal: Journal, path: Path, metadata: Metadata) -> None:
    """Make the journal of a dataset again, where metadata.json has kept what it needs."""
    from .found_parts import read_note  # noqa: PLC0415 - it loads pyarrow

    kept = metadata.kept
    if kept is None:
        return
    over: dict[int, Over] = {}
    files = part_files(path)
    for group, rows, checksum, stamp in kept.parts:
        note = read_note(files[group]) if group in files else None
        tally = NO_TALLY if note is None or note.tally is None else note.tally
        over[group] = Over(tally, rows, checksum, stamp)
    journal.make_again(kept.facts, kept.spending, over, kept.rewriting)
