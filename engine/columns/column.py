"""Column: what a kind of column says of itself, so that it can be planned, run, counted and resumed.

A new kind is one class: subclass `Column` (`Prompted` where a model answers, `Sampler` where values are drawn), put
`@spec` above it, and register its name in `__init__.py`. Other packages register theirs as an entry point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from pydantic import Field

from ..core.spec import plain, spec
from .code_hash import code_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import pyarrow as pa

    from ...runtime.threads import Threads
    from ..core.graph import Lane, Node
    from ..models.model import Model
    from ..models.provider import ChatModel
    from ..models.response_cache import ResponseCache
    from .templates.template import Template
    from .work import Work

T = TypeVar("T")
JsonSchema: TypeAlias = dict[str, Any]

ArrowType: TypeAlias = "str | pa.DataType | JsonSchema | None"
"""An Arrow type, its alias ("int64") or a JSON Schema; None where the first values decide."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The resources of one run. `models` has all models by alias, `connected` those that a column asks.

    `seed` is the run's own, also where the recipe has none. `rows` is the number of rows that the run makes.
    `renderers` are the few threads for costly templates; without them `threads` render too.
    """

    seed: int
    threads: Threads
    models: Mapping[str, Model]
    connected: Mapping[str, ChatModel]
    cache: ResponseCache | None = None
    rows: int | None = None
    renderers: Threads | None = None

    def off_loop(self, render: Callable[..., T]) -> Callable[..., Awaitable[T]]:
        """Return a function that renders a `costly` template in a thread, for `Await`."""
        threads = self.renderers or self.threads
        return lambda *values: threads.call(render, *values)


@spec
class ColumnSpec(ABC):
    """An entry in a recipe's list of columns. It makes one column of the table, or several.

    `type` names the kind in recipe files, in the JSON Schema and in the metadata. Each kind gives it one value:
    `type: Literal["text"] = Field(default="text", kw_only=True)`.
    """

    type: str = Field(kw_only=True)

    @abstractmethod
    def expand(self) -> Sequence[Column]:
        """Return the columns of the table, in order. Raises RecipeError for an entry that cannot make them."""

    @property
    def known_as(self) -> str:
        """The name of this entry in messages and in the recipe's identity."""
        return f"{self.type} of {', '.join(column.name for column in self.expand())}"

    def describe(self) -> dict[str, Any]:
        """Return this entry as plain data, as in a recipe file: without defaults and without keys."""
        return plain(self)

    def identity(self) -> dict[str, Any]:
        """Return the part of this entry that decides its values, as plain data.

        A dataset is resumed only by a recipe of the same identity. By default it holds every field, and a hash of the
        class's source code where the class is not rowloop's own. Leave out fields that say only how values are made:
        how fast, how many at a time, at which address.
        """
        return {**self.describe(), **code_of(self)}


@spec
class Column(ColumnSpec):
    """One column of the table. Subclass this to make a kind of column; `node` and `bind` are the methods it needs."""

    name: str

    @abstractmethod
    def node(self, lanes: Mapping[str, Lane], /) -> Node:
        """Return the column's place in the graph: its needs, its lane, and whether it is worked by cell or whole.

        `lanes` are the models' lanes by alias. Raises RecipeError for an unknown alias.
        """

    @abstractmethod
    def bind(self, binding: Binding, /) -> Work:
        """Return the column's work for one run. Called once per run, on the run's loop.

        Compile here what all cells have in common: the call of one cell then does nothing twice.
        """

    def arrow_type(self) -> ArrowType:
        """Return the type of the values in the table; None (the default) lets the first values decide."""
        return None

    def templates(self) -> Mapping[str, Template]:
        """Return the templates by field, so that the recipe can check what they read. There are none by default."""
        return {}

    def value_schemas(self) -> Sequence[JsonSchema]:
        """Return the JSON Schemas of the values. A template may read a field of any; without one, all."""
        return []

    def expand(self) -> Sequence[Column]:
        """Return this column, and any columns beside it."""
        return [self]

    @property
    def known_as(self) -> str:
        """The column's name."""
        return self.name

    def identity(self) -> dict[str, Any]:
        """Return the part of this column that decides its values. The name is the key, so it is not repeated."""
        return {field: value for field, value in super().identity().items() if field != "name"}

    @property
    def model_alias(self) -> str | None:
        """The alias of the model that this column asks; None if it asks none. Usage and cost are counted for it."""
        return None

    @property
    def obeys_schema(self) -> bool:
        """Whether answers must obey a JSON Schema. The metadata then counts how they came to obey it."""
        return False

    @property
    def resizes(self) -> bool:
        """Whether this column may change the number of rows. The recipe then runs on the sequential engine."""
        return False

    @property
    def beside(self) -> str | None:
        """The column whose answers also carry this column's values; None for a column that does its own work."""
        return None
