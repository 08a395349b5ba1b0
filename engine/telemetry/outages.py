"""Outages: a warning when an endpoint is found to be down, and another when it answers again.

The watch is pure, and looks at the lanes at intervals, so it costs a request nothing. An outage that begins and ends
between two looks is reported all the same, as lanes count their outages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..core.lane_queue import LaneState


@dataclass(slots=True)
class _Reported:
    """What has been reported of one lane; `down`: the seconds of the outages whose end has been reported."""

    outages: int = 0
    down: float = 0.0
    open: bool = False


class OutageWatch:
    """Compares the lanes of a run with what has been reported of them."""

    def __init__(self, lanes: int) -> None:
        """Start before anything has been reported."""
        self._reported = [_Reported() for _ in range(lanes)]

    def inspect(self, lanes: Sequence[LaneState], refusals: Mapping[int, str]) -> list[str]:
        """Return a warning for each outage that has begun or ended.

        `refusals`: what the endpoint behind each lane has answered to the last attempt that failed.
        """
        found: list[str] = []
        for i, (lane, reported) in enumerate(zip(lanes, self._reported, strict=True)):
            if reported.open != (lane.open_since is not None) or reported.outages != lane.outages:
                found += _changes(lane, reported, refusals.get(i))
        return found


def _changes(lane: LaneState, reported: _Reported, refusal: str | None) -> Iterator[str]:
    """Report what has changed about one lane, and remember it."""
    if not reported.open:
        last = "" if refusal is None else f"; its last refusal: {refusal}"
        yield f"{lane.name} is down; its rows wait, and single requests probe it{last}"
    if lane.open_since is None:
        yield f"{lane.name} answers again, after {lane.down - reported.down:.1f} s; its rows continue"
        reported.down = lane.down
    reported.outages, reported.open = lane.outages, lane.open_since is not None
