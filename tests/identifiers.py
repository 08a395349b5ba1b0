"""Names of parametrized tests from their values, the same in each of the processes that share the tests."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def by_repr(value: object) -> str:
    """Return the value's repr without addresses in memory."""
    return _ADDRESS.sub("", repr(value))
