"""Shared by the tests of the runtime: a fresh runtime on either loop, and child processes that must be silent."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import uvloop

from rowloop.runtime.testing import fresh_runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rowloop.runtime import Runtime

ROOT = Path(__file__).parents[2]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
SLOW = re.compile(
    r"^Executing <.* took [\d.]+ seconds\n", re.MULTILINE
)  # -X dev reports steps over 100 ms, which is no fault


@pytest.fixture(params=list(LOOPS))
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of each kind of event loop in turn."""
    return LOOPS[request.param]


@pytest.fixture
def rt(request: pytest.FixtureRequest, loop_factory) -> Iterator[Runtime]:
    """Return a fresh runtime on either loop; the test fails if it leaves anything on it."""
    with fresh_runtime(request.node.name, grace=1.0, exit_budget=2.0, loop_factory=loop_factory) as fresh:
        yield fresh


class Ended(NamedTuple):
    """How a child process ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def child(tmp_path: Path) -> Callable[..., Ended]:
    """Return a function that runs a script in a process of its own, under -X dev and -W error."""

    def run(script: str, *, silent: bool = True, seconds: float = 50, flags: tuple[str, ...] = ()) -> Ended:
        path = tmp_path / "child.py"
        path.write_text(textwrap.dedent(script))
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", *flags, str(path)],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd=tmp_path,
            env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"},
        )
        errors = SLOW.sub("", done.stderr)
        if silent:
            assert errors == "", errors
            assert done.returncode == 0, done
        return Ended(done.returncode, done.stdout, errors)

    return run
