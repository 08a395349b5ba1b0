"""Processor: what is done to whole frames, beside the columns.

    before_batch       gets the samplers' and seeds' columns of a row group, before any other column is worked
    after_batch        gets the finished row group, before it is written
    after_generation   gets the whole table, once, after everything has been written

An exception of a processor ends the run with DatasetProcessingError.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic.dataclasses import is_pydantic_dataclass

from ..columns.code_hash import code_of
from ..core.errors import RecipeError, nearest, shown
from ..core.spec import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

Phase: TypeAlias = Literal["before_batch", "after_batch", "after_generation"]


class Processor:
    """Subclass this and override the methods that are needed. Each takes a DataFrame and returns one.

    They are called in threads, one at a time for each phase. A subclass with `@spec` above it and a field `type` can be
    registered for recipe files (see `__init__.py`).
    """

    def before_batch(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Change values of samplers and seeds before they are used. Rows and columns must stay."""
        return frame

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:  # noqa: ARG002 - for who overrides it
        """Change a finished row group before it is written: values, columns and rows."""
        return frame

    def after_generation(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Change the whole table: values, columns and rows."""
        return frame

    def needs(self) -> Sequence[str]:
        """Return the columns that must be there. A recipe without one of them is refused when it is made."""
        return ()

    def writes(self, columns: Sequence[str]) -> Sequence[str] | None:
        """Return the columns that this processor leaves of `columns`; None if only running it tells."""
        return None if overriding([self], "after_batch") or overriding([self], "after_generation") else columns

    @property
    def known_as(self) -> str:
        """The name of this processor in messages."""
        return type(self).__name__

    def describe(self) -> dict[str, Any]:
        """Return this processor as plain data, as in a recipe file; only its name if its class is not a spec."""
        if is_pydantic_dataclass(type(self)):
            return plain(self)
        return {"type": "python", "name": self.known_as}

    def identity(self) -> dict[str, Any]:
        """Return the part of this processor that decides the table, as plain data.

        A dataset is resumed only by a recipe of the same identity. By default it holds every field, and a hash of the
        class's source code where the class is not rowloop's own.
        """
        return {**self.describe(), **code_of(self)}


class _FunctionProcessor(Processor):
    """A function given as a processor: after_batch, with the row group's number if it takes two arguments."""

    def __init__(self, function: Callable[..., pd.DataFrame]) -> None:
        self.function = function
        self._takes_row_group = len(inspect.signature(function).parameters) > 1

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
        return self.function(frame, row_group) if self._takes_row_group else self.function(frame)

    @property
    def known_as(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def identity(self) -> dict[str, Any]:
        return {**self.describe(), **code_of(self.function)}


def processor_of(given: object) -> Processor:
    """Return a processor as it is, and a function as a processor; raises RecipeError for anything else."""
    if isinstance(given, Processor):
        return given
    if inspect.isroutine(given):
        return _FunctionProcessor(given)
    raise RecipeError("processors", f"{shown(given)} is not a processor; give a Processor or a function of a DataFrame")


def overriding(processors: Sequence[Processor], phase: Phase) -> list[Processor]:
    """Return the processors that act in a phase."""
    return [p for p in processors if getattr(type(p), phase) is not getattr(Processor, phase)]


def written_columns(processors: Sequence[Processor], columns: Sequence[str]) -> list[str] | None:
    """Return the columns that are written, None if only running the processors tells.

    Raises RecipeError for a processor that needs an unknown column, or leaves no column.
    """
    there = list(columns)
    for processor in processors:
        path = f"processors.{processor.known_as}"
        for name in processor.needs():
            if name not in there:
                raise RecipeError(path, f"unknown column '{name}'; {nearest(name, there)}")
        written = processor.writes(there)
        if written is None:
            return None
        there = list(written)
        if not there:
            raise RecipeError(path, "no column is left; a table needs at least one")
    return there
