"""What all tests share: a server to talk to, and how hypothesis draws its examples.

It draws the same ones in every run, and no example has a time limit of its own: a test has one (pytest-timeout), and
machines differ. `make stress` looks for new examples.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from fake_openai import FakeOpenAI

if TYPE_CHECKING:
    from collections.abc import Iterator

settings.register_profile("test", deadline=None, derandomize=True)
settings.register_profile("stress", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))


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
