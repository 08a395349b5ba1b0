"""Python's own values in the place of numpy's and pandas': neither is imported for it."""

from __future__ import annotations

from typing import Any

from ...core.plain_data import DEEPEST

_TIMES = frozenset("mM")
_MISSING = frozenset({"NAType", "NaTType"})
_CONTAINERS = (list, tuple, dict)


def python_value(value: Any) -> Any:
    """Return a value of Python for one of numpy or pandas: a list for an array, also within lists and dicts.

    Each list and dict is visited once: where one is repeated or contains itself, so does its copy. Levels that neither
    a recipe nor a table can have stay as they are.
    """
    return _converted(value, {}, 0)


def _converted(value: Any, seen: dict[int, tuple[object, Any]], depth: int) -> Any:
    """Convert one value. `seen` has the copies of lists and dicts by id, and the originals, which keep their ids."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None and hasattr(dtype, "kind"):
        plain = _plain(value, dtype)
        same = type(plain) is type(value)  # a long double stays what it is
        return value if same else _converted(plain, seen, depth)
    if not isinstance(value, _CONTAINERS):
        return None if type(value).__name__ in _MISSING else value
    if depth > DEEPEST:
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    copy: Any = {} if isinstance(value, dict) else []
    seen[id(value)] = value, copy
    if isinstance(value, dict):
        copy.update((key, _converted(item, seen, depth + 1)) for key, item in value.items())
    else:
        copy.extend(_converted(item, seen, depth + 1) for item in value)
    return copy


def _plain(value: Any, dtype: Any) -> Any:
    """Return a value of numpy or pandas one level plainer."""
    if dtype.kind in _TIMES:
        import pandas as pd  # noqa: PLC0415 - the value is numpy's or pandas'; numpy would make numbers of nanoseconds

        if hasattr(value, "__len__"):
            return list(pd.Series(value))
        return pd.Timestamp(value) if dtype.kind == "M" else pd.Timedelta(value)
    if dtype.kind == "V" and dtype.names is not None and not value.shape:
        return {name: value[name] for name in dtype.names}
    return value.tolist() if hasattr(value, "tolist") else value
