"""Conformance checks for plug-ins: authors call them in their own tests, with any test runner.

    from rowloop.runtime import Runtime
    from rowloop.testing import check_column, check_provider

    def test_provider():
        with Runtime() as runtime:
            check_provider(provider, Model("theirs:small"), runtime)

    def test_column():
        check_column(Shout("loud", of="text"), data=[{"text": "hello"}, {"text": "bye"}])

A check that fails raises AssertionError; its message has what was expected and what happened.

    providers    check_provider and check_embedder
    columns      check_column
"""

from __future__ import annotations

from .columns import check_column
from .providers import check_embedder, check_provider

__all__ = ["check_column", "check_embedder", "check_provider"]
