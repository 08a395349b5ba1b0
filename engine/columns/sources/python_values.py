"""Python's own values in the place of numpy's and pandas': neither is imported for it."""

from __future__ import annotations

from typing import Any

_TIMES = frozenset("mM")


def python_value(value: Any) -> Any:
    """Return a value of Python for one of numpy or pandas: a list for an array, also within lists and dicts."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None and hasattr(dtype, "kind"):
        plain = _plain(value, dtype)
        return value if type(plain) is type(value) else python_value(plain)  # a long double stays what it is
    if isinstance(value, list | tuple):
        return [python_value(item) for item in value]
    if isinstance(value, dict):
        return {key: python_value(item) for key, item in value.items()}
    return None if type(value).__name__ in {"NAType", "NaTType"} else value


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
