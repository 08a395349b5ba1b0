"""What all tests share: a server to talk to, turns between processes, and how hypothesis draws its examples.

Hypothesis draws the same examples in every run, and no example has a time limit of its own: a test has one
(pytest-timeout), and machines differ. `make stress` looks for new examples.
"""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from fake_openai import FakeOpenAI
from pure import is_pure, refuse_the_outside
from rowloop.engine.models.sharing import shared_limits
from turns import Turns

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

settings.register_profile("test", deadline=None, derandomize=True)
settings.register_profile("stress", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))

TURNS = pytest.StashKey[Turns]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--pure`."""
    parser.addoption("--pure", action="store_true", help="run only tests that start no process and open no connection")


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes of pytest-xdist take turns; a process that runs all tests needs none.

    A shell that starts `make test` in the background has SIGINT ignored, by the tests and by all that they start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        config.stash[TURNS] = Turns(Path(config.option.basetemp).parent)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse names that differ between processes; with `--pure`, deselect every test that is not pure."""
    if addressed := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError("these names contain addresses in memory; use ids=by_repr:", *addressed)
    if config.option.pure:
        config.hook.pytest_deselected(items=[item for item in items if not is_pure(item)])
        items[:] = filter(is_pure, items)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a serial test alone. The wait for a turn is outside the test's time limit."""
    turns = item.config.stash.get(TURNS, None)
    with turns.turn(alone=item.get_closest_marker("serial") is not None) if turns else nullcontext():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _pure(pytestconfig: pytest.Config) -> None:
    if pytestconfig.option.pure:
        refuse_the_outside()


@pytest.fixture(autouse=True)
def _no_limits_of_other_tests() -> None:
    """Forget what other tests have learnt about an endpoint: an address may be used again."""
    shared_limits.clear()


@pytest.fixture(scope="session")
def process() -> Iterator[FakeOpenAI]:
    """Share one server process among all tests of a process, since each takes half a second to start."""
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def server(process: FakeOpenAI) -> FakeOpenAI:
    """Give the server out as if it were new, under an address that nobody has talked to."""
    process.renew()
    return process
