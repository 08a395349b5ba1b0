"""Evidence: how many of some answers were 429s, and what a cut of the adaptive limit has shown. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

JUDGED: Final = 24
"""The least number of answers that can show that 429s are not due to our load; two round trips where that is more."""
AS_IF: Final = 20
"""Answers without a 429 that are assumed before the first answer."""
_TOO_MANY: Final = 0.45
"""The share of 429s for which the limit is cut, however large the noise."""
_SEVERAL_TRIALS: Final = 400
_NONE: Final = 0.002
"""A share of 429s that counts as none."""


@dataclass(slots=True)
class Shares:
    """How many of some answers were 429s."""

    answers: float = 0
    refused: float = 0

    def add(self, *, refused: bool) -> None:
        """Count one answer."""
        self.answers += 1
        self.refused += refused

    def take(self, others: Shares) -> None:
        """Add newer answers. Older ones are forgotten if the share has clearly fallen, and by half if they are many."""
        expected = self.share * others.answers
        if others.refused < expected - 2.5 * math.sqrt(expected):
            self.answers, self.refused = AS_IF, 0
        elif self.answers > _SEVERAL_TRIALS:
            self.answers /= 2
            self.refused /= 2
        self.answers += others.answers
        self.refused += others.refused

    @property
    def share(self) -> float:
        """The share of 429s."""
        return self.refused / max(1, self.answers)

    def exceed(self, noise: float) -> bool:
        """Return whether there are more 429s than a share of `noise` explains."""
        if self.answers >= JUDGED and self.share > _TOO_MANY:
            return True
        expected = noise * self.answers
        return self.refused > expected + 2.5 * math.sqrt(expected) + (noise > _NONE)


@dataclass(slots=True)
class Trial:
    """A cut that is being judged: the ticket it came after, the limit and ceiling to return to, and what was seen."""

    began: int
    limit: int
    ceiling: int | None
    lowest: int
    """The lowest level at which a request was refused."""
    before: Shares
    since: Shares = field(default_factory=Shares)
    doubt: Shares = field(default_factory=Shares)
    """The answers that led to the cut, where the server had taken as many before: our load may not be the cause."""
