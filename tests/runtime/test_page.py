"""docs/calling-async-from-sync.md: the examples run, and every row of the tables names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs/calling-async-from-sync.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
OUTPUTS = [
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


@pytest.mark.parametrize("title", ["What happens when", "Promises"])
def test_every_row_of_the_tables_names_a_test_that_exists(title):
    """Each row of both tables ends with the name of one test of the runtime."""
    rows = section(title)
    named = [re.findall(r"`(test_\w+\.py::test_\w+)` \|$", row) for row in rows]
    assert len(rows) > 30
    assert [row for row, tests_of_row in zip(rows, named, strict=True) if len(tests_of_row) != 1] == []
    assert {test for [test] in named} - existing() == set()


@pytest.mark.parametrize(
    ("example", "output"), list(zip(EXAMPLES, OUTPUTS, strict=True)), ids=["call", "client", "stream"]
)
def test_examples_of_the_page_run(child, example, output):
    """Each example is a whole program with the output that its code suggests, and an empty stderr."""
    assert child(example).out == output
