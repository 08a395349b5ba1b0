"""Job: what all contenders do, and the prompts they do it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

NAME = "m"
TEMPERATURE = 0.7
PROMPT = "Write a short review of product number {}. Say what it is, what is good about it and what is not."

Shape: TypeAlias = Literal["column", "diamond"]
CALLS_PER_ROW: dict[Shape, int] = {"column": 1, "diamond": 3}


@dataclass(frozen=True, slots=True)
class Job:
    """Rows to fill at an endpoint. The fate of a prompt at the fake endpoint depends on nothing but its text.

    `shape` is "column" (one text column) or "diamond" (a and b need a topic, c needs a and b; bare contenders make the
    same number of calls that need nothing). `in_flight` is the most requests at once, None where the contender is to
    find out by itself.
    """

    url: str
    rows: int
    in_flight: int | None
    shape: Shape = "column"
    first: int = 0

    @property
    def calls(self) -> int:
        """How many answers it takes."""
        return self.rows * CALLS_PER_ROW[self.shape]

    @property
    def numbers(self) -> range:
        """What the prompts are about."""
        return range(self.first, self.first + self.rows)

    @property
    def most(self) -> int:
        """The most requests at once, for contenders that need the number."""
        if self.in_flight is None:
            raise ValueError("this contender needs the number of requests in flight")
        return self.in_flight
