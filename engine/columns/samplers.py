"""Samplers: columns drawn at random, the same for the same recipe and seed whatever the row groups.

A value depends on the seed, the column's name and the row's number alone: Philox is a counter-based generator, so the
numbers of any stretch of rows are had without those before it (Salmon et al., "Parallel random numbers: as easy as 1,
2, 3", 2011).
"""

from __future__ import annotations

import hashlib
import math
import sys
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from ..core.errors import RecipeError
from ..core.graph import Node
from ..core.spec import spec
from .work import Fill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from ..core.graph import Lane
    from .column import Binding

_WHOLE = 2.0**53
"""Up to here, a double is exact to the unit."""

_DRAWS_PER_STEP = 4
"""Philox4x64 makes four 64-bit numbers a step, and a double takes one."""


def uniform_draws(seed: int, name: str) -> Callable[[int, int], NDArray[np.float64]]:
    """Give the function (first row, number of rows) -> uniform doubles in [0, 1), one a row."""
    import numpy as np  # noqa: PLC0415 - not at import time

    key = np.frombuffer(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest(), dtype=np.uint64)

    def draws(start: int, rows: int) -> NDArray[np.float64]:
        generator = np.random.Philox(key=key)
        generator.advance(start // _DRAWS_PER_STEP)
        skip = start % _DRAWS_PER_STEP
        return np.random.Generator(generator).random(skip + rows)[skip:]

    return draws


@spec
class Category:
    """One of `values`, drawn with `weights` (equal ones by default; they need not add up to 1)."""

    name: str
    values: list[Any] = Field(min_length=1)
    weights: list[float] | None = None
    type: Literal["category"] = Field(default="category", kw_only=True)

    def __post_init__(self) -> None:
        """Check that the weights fit."""
        if self.weights is None:
            return
        if len(self.weights) != len(self.values):
            raise ValueError(f"there are {len(self.weights)} weights for {len(self.values)} values")
        if min(self.weights) < 0 or not 0 < sum(self.weights) < math.inf:
            raise ValueError("weights must not be negative, and not all of them 0")

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Tell the graph that this is worked whole and needs nothing."""
        return Node(self.name, strategy="whole")

    def arrow_type(self) -> pa.DataType:
        """Give the type that holds all values, drawn or not; raises RecipeError where there is none."""
        import pyarrow as pa  # noqa: PLC0415 - not at import time

        try:
            values: pa.Array[Any] = pa.array(self.values)
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            problem = f"a column of a table is of one type, and these values are not: {error}"
            raise RecipeError(f"columns.{self.name}.values", problem) from error
        return cast("pa.DataType", values.type)

    def bind(self, binding: Binding) -> Fill:
        """Draw by inverting the cumulative weights."""
        import numpy as np  # noqa: PLC0415 - not at import time

        draws = uniform_draws(binding.seed, self.name)
        values = self.values
        edges = np.cumsum(self.weights if self.weights is not None else np.ones(len(values)))
        edges /= edges[-1]

        def fill(start: int, rows: int) -> Sequence[Any]:
            places = np.searchsorted(edges, draws(start, rows), side="right")
            return [values[place] for place in places.tolist()]

        return Fill(fill)


@spec
class Uniform:
    """A number between `low` and `high`, rounded to `decimals`; whole, both ends included, with `decimals=0`."""

    name: str
    low: float = 0.0
    high: float = 1.0
    decimals: int | None = Field(default=None, ge=0, le=15)
    type: Literal["uniform"] = Field(default="uniform", kw_only=True)

    def __post_init__(self) -> None:
        """Check that there is something between."""
        if self.low > self.high:
            raise ValueError(f"low={self.low:g} is above high={self.high:g}")
        if self.decimals == 0 and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("with decimals=0, low and high must be whole numbers")
        if self.high - self.low > (_WHOLE if self.decimals == 0 else sys.float_info.max):
            raise ValueError(f"there is too much between low={self.low:g} and high={self.high:g}")
        if self.decimals == 0 and max(-self.low, self.high) > _WHOLE:
            raise ValueError("with decimals=0, low and high must be below 2**53 in size")

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Tell the graph that this is worked whole and needs nothing."""
        return Node(self.name, strategy="whole")

    def arrow_type(self) -> str:
        """Whole numbers with decimals=0, else floats."""
        return "int64" if self.decimals == 0 else "float64"

    def bind(self, binding: Binding) -> Fill:
        """Stretch the draws."""
        import numpy as np  # noqa: PLC0415 - not at import time

        draws = uniform_draws(binding.seed, self.name)
        low, high, decimals = self.low, self.high, self.decimals

        def whole(start: int, rows: int) -> list[int]:
            numbers = np.floor(draws(start, rows) * (high - low + 1)) + low
            return list(map(int, numbers))

        def floats(start: int, rows: int) -> list[float]:
            numbers = low + draws(start, rows) * (high - low)
            return list(map(float, numbers if decimals is None else numbers.round(decimals)))

        return Fill(whole if decimals == 0 else floats)
