"""Python's own values in the place of numpy's and pandas': neither is imported for it."""

from __future__ import annotations

from typing import Any

_TIMES = frozenset("mM")


def python_value(value: Any) -> Any:
    """Return a value of Python for one of numpy or pandas: a list for an array, also within lists and dicts."""
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    if kind in _TIMES:
        import pandas as pd  # noqa: PLC0415 - the value is numpy's or pandas'; numpy would make numbers of nanoseconds

        return python_value(list(pd.Series(value))) if hasattr(value, "__len__") else python_value(pd.Timestamp(value))
    if kind is not None and hasattr(value, "tolist"):
        return python_value(value.tolist())
    if isinstance(value, list | tuple):
        return [python_value(item) for item in value]
    if isinstance(value, dict):
        return {key: python_value(item) for key, item in value.items()}
    return None if type(value).__name__ in {"NAType", "NaTType"} else value
