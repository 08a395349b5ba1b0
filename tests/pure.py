"""`pytest --pure`: only tests that start no process and open no connection, for a quick answer while one edits."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

OUTSIDE = {"process", "child", "victim"}
"""The fixtures that start a process. A test without one of them that starts one itself is marked `outside`."""
REFUSED = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "socket.connect"}


def is_pure(item: pytest.Item) -> bool:
    """Whether a test keeps to its own process, as far as its marks and fixtures show."""
    marked = any(item.get_closest_marker(mark) for mark in ("outside", "serial"))
    return not marked and OUTSIDE.isdisjoint(getattr(item, "fixturenames", ()))


def refuse_the_outside() -> None:
    """Raise in whatever starts a process or opens a connection from now on, so that no pure test can hide it."""
    sys.addaudithook(_refuse)


def _refuse(event: str, _arguments: tuple[object, ...]) -> None:
    if event in REFUSED:
        raise RuntimeError(f"{event} in a pure test: mark the test with pytest.mark.outside")
