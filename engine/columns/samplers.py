"""Samplers: columns of values drawn at random, the same for the same recipe and seed whatever the row groups.

A value depends on the seed, the column's name and the row's number alone. Philox is a counter-based generator, so the
numbers of any stretch of rows are drawn without those before it (Salmon et al., "Parallel random numbers: as easy as 1,
2, 3", 2011).
"""

from __future__ import annotations

import hashlib
import math
import sys
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field, field_validator

from ..core.errors import RecipeError
from ..core.graph import Node
from ..core.spec import spec
from .column import Column
from .sources.python_values import python_value
from .work import Fill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from ..core.graph import Lane
    from .column import Binding

_WHOLE = 2.0**53
"""Up to here, a double holds every whole number."""

_DRAWS_PER_STEP = 4
"""Philox4x64 makes four 64-bit numbers a step, and a double takes one."""


def uniform_draws(seed: int, name: str) -> Callable[[int, int], NDArray[np.float64]]:
    """Return the function (first row, number of rows) -> uniform doubles in [0, 1), one a row."""
    import numpy as np  # noqa: PLC0415 - not at import time

    key = np.frombuffer(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest(), dtype=np.uint64)

    def draws(start: int, rows: int) -> NDArray[np.float64]:
        generator = np.random.Philox(key=key)
        generator.advance(start // _DRAWS_PER_STEP)
        skip = start % _DRAWS_PER_STEP
        return np.random.Generator(generator).random(skip + rows)[skip:]

    return draws


@spec
class Sampler(Column):
    """A column drawn at random. A kind says in `values_of` how uniform numbers become its values."""

    @abstractmethod
    def values_of(self) -> Callable[[NDArray[np.float64]], Sequence[Any]]:
        """Return the function from uniform doubles in [0, 1), one a row, to values of plain Python types."""

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need nothing; a row group is filled whole."""
        return Node(self.name, strategy="whole")

    def bind(self, binding: Binding) -> Fill:
        """Draw a number for each row, and make values of them."""
        draws, values_of = uniform_draws(binding.seed, self.name), self.values_of()
        return Fill(lambda start, rows: values_of(draws(start, rows)))


@spec
class Category(Sampler):
    """One of `values`, drawn with `weights` (equal ones by default; they need not add up to 1)."""

    values: list[Any] = Field(min_length=1)
    weights: list[float] | None = None
    type: Literal["category"] = Field(default="category", kw_only=True)

    @field_validator("values", "weights", mode="before")
    @classmethod
    def _are_pythons_own(cls, given: object) -> object:
        """Take numpy's and pandas' arrays and values."""
        return python_value(given)

    def __post_init__(self) -> None:
        """Check that the weights fit."""
        if self.weights is None:
            return
        if len(self.weights) != len(self.values):
            raise ValueError(f"there are {len(self.weights)} weights for {len(self.values)} values")
        if min(self.weights) < 0 or not 0 < sum(self.weights) < math.inf:
            raise ValueError("weights must not be negative, and not all of them 0")

    def arrow_type(self) -> pa.DataType:
        """Return the type that holds all values, drawn or not; raises RecipeError if no type does."""
        import pyarrow as pa  # noqa: PLC0415 - not at import time

        try:
            values: pa.Array[Any] = pa.array(self.values)
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            problem = f"all values of a column must be of one type, and these are not: {error}"
            raise RecipeError(f"columns.{self.name}.values", problem) from error
        return cast("pa.DataType", values.type)

    def values_of(self) -> Callable[[NDArray[np.float64]], list[Any]]:
        """Find each number's place among the cumulative weights."""
        import numpy as np  # noqa: PLC0415 - not at import time

        values = self.values
        edges = np.cumsum(self.weights if self.weights is not None else np.ones(len(values)))
        edges /= edges[-1]

        def chosen(numbers: NDArray[np.float64]) -> list[Any]:
            places = np.searchsorted(edges, numbers, side="right")
            return [values[place] for place in places.tolist()]

        return chosen


@spec
class Uniform(Sampler):
    """A number between `low` and `high`, rounded to `decimals`; whole, both ends included, with `decimals=0`."""

    low: float = 0.0
    high: float = 1.0
    decimals: int | None = Field(default=None, ge=0, le=15)
    type: Literal["uniform"] = Field(default="uniform", kw_only=True)

    def __post_init__(self) -> None:
        """Check that the bounds can be drawn between."""
        if self.low > self.high:
            raise ValueError(f"low={self.low:g} is above high={self.high:g}")
        if self.decimals == 0 and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("with decimals=0, low and high must be whole numbers")
        if self.high - self.low > (_WHOLE if self.decimals == 0 else sys.float_info.max):
            raise ValueError(f"the range from low={self.low:g} to high={self.high:g} is too large")
        if self.decimals == 0 and max(-self.low, self.high) > _WHOLE:
            raise ValueError("with decimals=0, low and high must be below 2**53 in size")

    def arrow_type(self) -> str:
        """Return int64 with decimals=0, else float64."""
        return "int64" if self.decimals == 0 else "float64"

    def values_of(self) -> Callable[[NDArray[np.float64]], list[float]]:
        """Stretch the numbers to the range."""
        import numpy as np  # noqa: PLC0415 - not at import time

        low, high, decimals = self.low, self.high, self.decimals

        def whole(numbers: NDArray[np.float64]) -> list[float]:
            return list(map(int, np.floor(numbers * (high - low + 1)) + low))

        def floats(numbers: NDArray[np.float64]) -> list[float]:
            stretched = low + numbers * (high - low)
            return list(map(float, stretched if decimals is None else stretched.round(decimals)))

        return whole if decimals == 0 else floats
