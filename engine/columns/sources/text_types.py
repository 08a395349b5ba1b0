"""What the text of a CSV column may become: a number, bool or date where every value's text comes back unchanged.

Back means as templates write it: `02670`, `10.50`, `1e3`, `true` and `NaN` would come back as `2670`, `10.5`, `1000.0`,
`True` and `nan`, so columns that hold them stay text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable

Texts: TypeAlias = "pa.Array[Any]"
Check: TypeAlias = "Callable[[Texts], bool]"

_ZERO, _POINT_FROM, _POINT_TO = pa.scalar(0.0), pa.scalar(1e-4), pa.scalar(1e16)
"""Where Python writes a float with a point and without an exponent."""


class TextColumn:
    """The types that one column may still have, as its values are seen."""

    def __init__(self) -> None:
        """Begin with all of them."""
        self._left = dict(_CHECKS)
        self._seen = False

    def see(self, texts: Texts) -> None:
        """Strike out the types that these values are not of."""
        if not self._left:
            return
        values = texts.drop_null()
        if len(values):
            self._seen = True
            self._left = {type_: check for type_, check in self._left.items() if check(values)}

    @property
    def type(self) -> pa.DataType:
        """The type that the column has, by what has been seen."""
        return next(iter(self._left), pa.string()) if self._seen else pa.string()


def _is_int64(texts: Texts) -> bool:
    return _comes_back(texts, pa.int64())


def _is_date(texts: Texts) -> bool:
    return _comes_back(texts, pa.date32()) and pc.min(texts).as_py() >= "0001"


def _is_bool(texts: Texts) -> bool:
    return _all(pc.is_in(texts, pa.array(["True", "False"])))


def _is_float64(texts: Texts) -> bool:
    try:
        numbers = texts.cast(pa.float64())
    except pa.ArrowException:
        return False
    if not _all(pc.is_finite(numbers)):
        return False
    written: Texts = numbers.cast(pa.string())
    whole = pc.invert(pc.match_substring(written, "."))
    written = pc.if_else(whole, pc.replace_substring_regex(written, r"\z", ".0"), written)
    size = pc.abs(numbers)
    pointed = pc.and_(pc.greater_equal(size, _POINT_FROM), pc.less(size, _POINT_TO))
    same: Any = pc.and_(pc.or_(pc.equal(size, _ZERO), pointed), pc.equal(written, texts))
    rest: list[Any] = texts.filter(pc.invert(same)).to_pylist()
    return all(str(float(text)) == text for text in rest)


def _comes_back(texts: Texts, type_: pa.DataType) -> bool:
    try:
        return texts.cast(type_).cast(pa.string()).equals(texts)
    except pa.ArrowException:
        return False


def _all(mask: pa.Array[Any]) -> bool:
    return bool(pc.all(mask).as_py())


_CHECKS: Final[dict[pa.DataType, Check]] = {
    pa.int64(): _is_int64,
    pa.float64(): _is_float64,
    pa.bool_(): _is_bool,
    pa.date32(): _is_date,
}
