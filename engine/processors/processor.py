"""Processors: what is done to whole frames, beside the columns.

    before_batch       sees the samplers' and seeds' columns of a row group, before any other column is worked
    after_batch        sees the finished row group, before it is written
    after_generation   sees the whole table, once, when everything has been written

A processor that raises ends the run with DatasetProcessingError.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, field_validator

from ..columns.templates import Template
from ..core.errors import RecipeError, nearest
from ..core.graph import Lane, Node
from ..core.spec import spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

Phase: TypeAlias = Literal["before_batch", "after_batch", "after_generation"]
_BEFORE_BATCH = "before_batch processors"


class Processor:
    """Subclass this and override what is needed; each method gets a DataFrame and gives one back.

    They are called in threads, one at a time for each stage.
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


@spec
class DropColumns(Processor):
    """Leave columns (one name, or several) out of what is written; other columns can need them all the same."""

    columns: list[str] = Field(min_length=1)
    type: Literal["drop_columns"] = Field(default="drop_columns", kw_only=True)

    @field_validator("columns", mode="before")
    @classmethod
    def _listed(cls, columns: object) -> object:
        return [columns] if isinstance(columns, str) else columns

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:  # noqa: ARG002 - the same for all
        """Drop them."""
        return frame.drop(columns=self.columns)


@spec
class SchemaTransform(Processor):
    """Write rows of another shape: `template` has the new columns, each a template over the old ones.

    A template is text, or a list or mapping of templates, as in
    {"messages": [{"role": "user", "content": "{{ question }}"}]}.
    """

    template: dict[str, Any] = Field(min_length=1)
    type: Literal["schema_transform"] = Field(default="schema_transform", kw_only=True)

    def __post_init__(self) -> None:
        """Refuse what is not a template."""
        _compiled(self.template)

    def needs(self) -> list[str]:
        """Name the columns that the templates take."""
        return list(dict.fromkeys(_needs(_compiled(self.template))))

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:  # noqa: ARG002 - the same for all
        """Render every row."""
        import pandas as pd  # noqa: PLC0415 - not at import time

        render = _compiled(self.template)
        rows = frame.to_dict("records")
        return pd.DataFrame({name: [_rendered(render[name], row) for row in rows] for name in self.template})


class _FunctionProcessor(Processor):
    """A function given as a processor: after_batch, with the row group's number where it takes two arguments."""

    def __init__(self, function: Callable[..., pd.DataFrame]) -> None:
        self.function = function
        self._takes_row_group = len(inspect.signature(function).parameters) > 1

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:
        return self.function(frame, row_group) if self._takes_row_group else self.function(frame)


def processor_of(given: object) -> Processor:
    """Take a processor as it is and make a function one; raises RecipeError for anything else."""
    if isinstance(given, Processor):
        return given
    if inspect.isroutine(given):
        return _FunctionProcessor(given)
    raise RecipeError("processors", f"{given!r:.80} is no processor; give a Processor or a function of a DataFrame")


def name_of(processor: Processor) -> str:
    """Name it as its user knows it."""
    if isinstance(processor, _FunctionProcessor):
        return getattr(processor.function, "__name__", repr(processor.function))
    return type(processor).__name__


def overriding(processors: Sequence[Processor], stage: Phase) -> list[Processor]:
    """Pick those that do something in a stage."""
    return [p for p in processors if getattr(type(p), stage) is not getattr(Processor, stage)]


@dataclass(frozen=True, slots=True)
class BeforeBatch:
    """The before_batch processors, and the columns they see: by id and by name."""

    processors: tuple[Processor, ...]
    columns: tuple[int, ...]
    names: tuple[str, ...]


def with_before_batch(nodes: Sequence[Node], processors: Sequence[Processor]) -> tuple[list[Node], BeforeBatch | None]:
    """Put the before_batch processors into the graph: after what needs nothing, before all the rest."""
    acting = overriding(processors, "before_batch")
    seen = [i for i, node in enumerate(nodes) if node.strategy == "whole" and node.lane is None and not node.needs]
    if not acting or not seen:
        return list(nodes), None
    names = tuple(nodes[i].name for i in seen)
    waiting = [node if i in seen else replace(node, after=(_BEFORE_BATCH,)) for i, node in enumerate(nodes)]
    lane = Lane("processors", 1)
    own = Node(_BEFORE_BATCH, strategy="whole", lane=lane, on_error="raise", after=names)
    return [*waiting, own], BeforeBatch(tuple(acting), tuple(seen), names)


def written_columns(processors: Sequence[Processor], columns: Sequence[str]) -> list[str] | None:
    """Give the columns that are written, None where only running the processors tells.

    Raises RecipeError for a built-in processor that names a column which is not there.
    """
    there = list(columns)
    for processor in processors:
        wanted = processor.columns if isinstance(processor, DropColumns) else []
        wanted = processor.needs() if isinstance(processor, SchemaTransform) else wanted
        for name in wanted:
            if name not in there:
                raise RecipeError(
                    f"processors.{name_of(processor)}", f"unknown column '{name}'; {nearest(name, there)}"
                )
        if isinstance(processor, DropColumns):
            there = [name for name in there if name not in processor.columns]
            if not there:
                raise RecipeError("processors.DropColumns", "no column is left; a table needs at least one")
        elif isinstance(processor, SchemaTransform):
            there = list(processor.template)
        elif overriding([processor], "after_batch") or overriding([processor], "after_generation"):
            return None
    return there


def _compiled(template: Any) -> Any:
    if isinstance(template, str):
        compiled = Template(template, "template")
        return compiled, compiled.renderer()
    if isinstance(template, dict):
        return {name: _compiled(part) for name, part in template.items()}
    if isinstance(template, list):
        return [_compiled(part) for part in template]
    raise ValueError(f"a template is text, or a list or mapping of templates, not {template!r:.80}")


def _needs(compiled: Any) -> list[str]:
    if isinstance(compiled, tuple):
        return list(compiled[0].needs)
    parts = compiled.values() if isinstance(compiled, dict) else compiled
    return [need for part in parts for need in _needs(part)]


def _rendered(compiled: Any, row: dict[Any, Any]) -> Any:
    if isinstance(compiled, tuple):
        template, render = compiled
        return render(*[row[need] for need in template.needs])
    if isinstance(compiled, dict):
        return {name: _rendered(part, row) for name, part in compiled.items()}
    return [_rendered(part, row) for part in compiled]
