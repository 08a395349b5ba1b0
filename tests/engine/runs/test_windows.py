"""An endpoint that is open for a part of each period, and does not say when, end to end against a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import rowloop as rl

if TYPE_CHECKING:
    from fake_openai import FakeOpenAI

QUIET: Any = {"progress": False}


@pytest.mark.serial
def test_an_endpoint_that_opens_in_windows_is_used_as_soon_as_it_opens(server: FakeOpenAI):
    """0.3 s of every 1.2 s are open, which hold four round trips of 32: all rows are there after a few.

    test_adaptive_limit.py compares it with a plain loop, in virtual time.
    """
    server.configure(latency=0.05, open_seconds=0.3, period=1.2, retry_after=None)
    recipe = rl.Recipe(
        models={"m": rl.Model("openai:any", base_url=server.url, max_parallel=32)},
        columns=[rl.Uniform("n"), rl.Text("t", model="m", prompt="{{ n }}")],
        seed=1,
    )
    result = recipe.preview(400, **QUIET)
    counted = server.counters().by_status
    assert (result.status, counted[200]) == ("complete", 400)
    assert counted[429] < 800
    (changes,) = result.limits.values()
    assert {"refused throughout", "open again"} <= {change.why for change in changes}
