"""The watch for outages: each is reported when it is found and when it is over, once."""

from __future__ import annotations

import pytest

from rowloop.engine.core.lane_queue import LaneState
from rowloop.engine.telemetry.outages import OutageWatch


def lane(name: str = "openai:m", outages: int = 0, down: float = 0.0, *, open: bool = False) -> LaneState:  # noqa: A002
    """Describe a lane after so many outages, of which the last may not be over."""
    return LaneState(name, 8, 0, 0, open_since=1.0 if open else None, outages=outages, down=down)


BEGUN = "openai:m is down; its rows wait, and single requests probe it; its last refusal: no route"
ENDED = "openai:m answers again, after {} s; its rows continue"


@pytest.mark.parametrize(
    ("states", "warnings"),
    [
        ([lane(), lane()], []),
        ([lane(outages=1, down=0.6, open=True), lane(outages=1, down=3.0, open=True)], [BEGUN]),
        (
            [lane(outages=1, down=0.6, open=True), lane(outages=1, down=20.3), lane(outages=1, down=20.3)],
            [BEGUN, ENDED.format(20.3)],
        ),
        (
            [lane(outages=1, down=2.0, open=True), lane(outages=1, down=4.0), lane(outages=2, down=5.0, open=True)],
            [BEGUN, ENDED.format("4.0"), BEGUN],
        ),
        ([lane(outages=1, down=0.1)], [BEGUN, ENDED.format(0.1)]),
    ],
    ids=["none", "lasts", "ends", "again", "between two looks"],
)
def test_an_outage_is_reported_when_it_begins_and_when_it_ends(states: list[LaneState], warnings: list[str]):
    """Once each, with its own seconds; one that nobody saw is reported whole."""
    watch = OutageWatch(2)
    found = [text for state in states for text in watch.inspect([lane("other"), state], {1: "no route"})]
    assert found == warnings


def test_an_endpoint_without_words_is_reported_without_them():
    """Nothing is made up."""
    assert OutageWatch(1).inspect([lane(outages=1, down=0.6, open=True)], {}) == [
        "openai:m is down; its rows wait, and single requests probe it"
    ]
