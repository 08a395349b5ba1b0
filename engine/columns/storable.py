"""Storable values: which values of a cell its column in the table can hold, checked as soon as a cell has one.

A value that cannot be written fails its own cell. The check is compiled once per column, and costs a look at the type
of most values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from ..core.errors import writable
from .work import Await, AwaitWhole, InThread, Render, Resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from .column import ArrowType
    from .work import Work

Check: TypeAlias = Callable[[Any], str | None]
"""From a cell's value to the words for what was expected instead; None for a value that can be written."""

ANY: Final = "values of one type"
_SCALARS: Final = frozenset({float, bool, type(None)})
_INT64: Final = 2**63


def check_of(type_: ArrowType) -> Check:
    """Compile the check of the values of a column of this type, as `Column.arrow_type` returns it."""
    if type_ is None:
        return _any_value
    if isinstance(type_, dict):
        from .schema_types import type_of_schema  # noqa: PLC0415 - it loads pyarrow

        return json_check if type_of_schema(type_) is None else _any_value
    import pyarrow as pa  # noqa: PLC0415 - not at import time

    arrow = cast("pa.DataType", pa.type_for_alias(cast("Any", type_)) if isinstance(type_, str) else type_)
    return _text(arrow) if pa.types.is_string(arrow) else _of_type(arrow)


def needs_check(work: Work) -> bool:
    """Return whether the values of a column may be other than its type: not where rowloop itself makes them."""
    if isinstance(work, Await):
        return not work.fits
    return isinstance(work, Render | InThread | AwaitWhole | Resize)


def misfit(expected: str, row: int, value: object) -> str:
    """Return the sentence about a value that cannot be written; `row` is the run's number."""
    try:
        shown = writable(f"{value!r:.80}")
    except Exception as error:  # noqa: BLE001 - whatever a value's own repr raises
        shown = f"a value without a repr ({type(error).__name__})"
    return f"expected {expected}, but row {row} has {shown} ({type(value).__name__})"


def declared_array(values: Sequence[Any], type_: pa.DataType) -> pa.Array[Any]:
    """Make an array of a type that a spec names. Arrow truncates floats to integers, so those are cast instead."""
    import pyarrow as pa  # noqa: PLC0415 - not at import time

    if not pa.types.is_integer(type_):
        return pa.array(values, type=type_)
    try:
        found: pa.Array[Any] = pa.array(values)
    except OverflowError:  # beyond int64, which Arrow would infer
        found = pa.array(values, pa.uint64())
    return found if found.type.equals(type_) else found.cast(type_)


def _any_value(value: Any) -> str | None:
    """Check a value of a column whose values decide its type: it must fit Arrow or JSON, whatever the others are."""
    kind = type(value)
    if kind in _SCALARS or (kind is str and value.isascii()) or (kind is int and -_INT64 <= value < _INT64):
        return None
    from .sources.json_text import UNWRITABLE, any_text_of  # noqa: PLC0415 - it loads pyarrow

    try:
        any_text_of(value)
    except UNWRITABLE:
        return ANY
    return None


def json_check(value: Any) -> str | None:
    """Check a value of a column that is JSON text from the start."""
    if type(value) is str and value.isascii():
        return None
    from .sources.json_text import UNWRITABLE, text_of  # noqa: PLC0415 - it loads pyarrow

    try:
        text_of(value)
    except UNWRITABLE:
        return "a value that JSON can hold"
    return None


def _text(arrow: pa.DataType) -> Check:
    slowly = _of_type(arrow)

    def check(value: Any) -> str | None:
        if value is None or (type(value) is str and value.isascii()):
            return None
        return slowly(value)

    return check


def _of_type(arrow: pa.DataType) -> Check:
    """Compile the check for any other type: Arrow's own conversion, unless the type of the value is enough."""
    import pyarrow as pa  # noqa: PLC0415 - not at import time

    from .sources.json_text import UNWRITABLE  # noqa: PLC0415 - it loads pyarrow

    is_int64 = arrow.equals(pa.int64())
    enough = {pa.float64(): float, pa.bool_(): bool}.get(arrow, type(None))

    def check(value: Any) -> str | None:
        if value is None or type(value) is enough or (is_int64 and type(value) is int and -_INT64 <= value < _INT64):
            return None
        try:
            declared_array([value], arrow)
        except UNWRITABLE:
            return str(arrow)
        return None

    return check
