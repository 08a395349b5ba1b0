"""docs/calling-async-from-sync.md: its examples run, and what it promises is held by tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs/calling-async-from-sync.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SAID = [
    "six by nine? 42\n",
    "connected\n[0, 1, 4, 9, 16]\nclosed\n",
    "once\nupon\nconnection released\n",
]


def existing() -> set[str]:
    """Name every test of the runtime, as the page does."""
    return {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def section(title: str) -> list[str]:
    """Return the rows of the table under a heading."""
    table = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    return [line for line in table.splitlines() if line.startswith("| ")][1:]


def test_every_row_of_the_table_names_a_test_that_exists():
    """What happens when: no row without its test, and no test that is not there."""
    rows = section("What happens when")
    named = [re.findall(r"`(test_\w+\.py::test_\w+)` \|$", row) for row in rows]
    assert len(rows) > 30
    assert [row for row, tests_of_row in zip(rows, named, strict=True) if len(tests_of_row) != 1] == []
    assert {test for [test] in named} - existing() == set()


def test_every_promise_has_a_test_that_carries_its_number():
    """The 38 promises and the numbers in the names of the tests are the same."""
    promised = [int(row.split(" | ")[0].strip("| ")) for row in section("What it promises")]
    tested = {int(number) for test in existing() for number in re.findall(r"::test_s(\d\d)_", test)}
    assert promised == list(range(1, 39))
    assert tested == set(promised)


@pytest.mark.parametrize(("example", "said"), list(zip(EXAMPLES, SAID, strict=True)), ids=["call", "client", "stream"])
def test_examples_of_the_page_run(child, example, said):
    """Each example is a program that prints what it looks like it prints, and is silent on stderr."""
    assert child(example).out == said
