"""What all tests share: hypothesis draws the same examples in every run, and no example has a time limit of its own.

A test has one (pytest-timeout), and machines differ. `make stress` looks for new examples.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("test", deadline=None, derandomize=True)
settings.register_profile("stress", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "test"))
