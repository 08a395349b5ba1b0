"""The heap: memory that was freed is given back."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from rowloop.engine.datasets.heap import Heap


def resident() -> int:
    """Return the resident size of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists() or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="glibc on Linux only"
)
def test_memory_between_objects_that_are_kept_is_given_back():
    """Once enough values have passed, and not for a few small ones."""
    values = [(bytes(50_000), bytes(1_000)) for _ in range(2_000)]
    kept = [small for _, small in values]
    del values
    before = resident()
    heap = Heap()
    heap.passed(1_000_000)
    assert before - resident() < 10_000_000
    heap.passed(40_000_000)
    assert before - resident() > 60_000_000
    assert len(kept) == 2_000
