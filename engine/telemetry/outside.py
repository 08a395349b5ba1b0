"""Outside observers: the observers that users pass to a run, timed so that a slow one does not go unnoticed.

They run on the event loop, so their time is taken from every cell. Each call is timed with two readings of a clock,
which costs less than a microsecond; a run without such observers pays nothing. What an observer raises ends the run
with an error that names it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from ...runtime.errors import CALLBACK_ERRORS
from ...runtime.logs import safe_logger
from ..core.errors import DatasetGenerationError
from .observer import METHODS, methods_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.graph import Graph
    from ..core.row_groups import Plan
    from .observer import Observer

logger = safe_logger()

_LONG: Final = 0.1
"""The shortest time of one call, and of all calls, that is warned about, in seconds."""
_SHARE: Final = 0.05
"""The share of a run's time from which an observer is slow."""


class OutsideObserver:
    """An observer of the user's, timed; has those of the methods `METHODS` that the observer has."""

    check_seconds: Final = 1.0
    """How often `check` should be called."""

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.perf_counter) -> None:
        """Wrap an observer for one run; `clock` is in seconds."""
        self.name = type(observer).__name__
        self._clock = clock
        self._began = self._seconds = 0.0
        self._slow_call_reported = self._share_reported = False
        self.on_event = self._timed(observer.on_event)
        for name in METHODS[1:]:
            method = getattr(observer, name, None)
            if method is not None:
                setattr(self, name, self._timed(method))

    def begin(self, graph: Graph, plan: Plan) -> None:
        """Start to measure, and call `on_start`."""
        self._began = self._clock()
        for start in methods_of([self], "on_start"):
            start(graph, plan)

    def check(self) -> None:
        """Warn, once, of an observer that has taken a notable share of the run's time so far."""
        elapsed = self._clock() - self._began
        if self._share_reported or self._seconds < max(_LONG, _SHARE * elapsed):
            return
        self._share_reported = True
        logger.warning(
            "observer %s has taken %.0f%% of the run's time (%.1f of %.1f s): it runs on the event loop and slows down"
            " every cell; do the slow part in a thread of its own",
            self.name,
            100 * self._seconds / elapsed,
            self._seconds,
            elapsed,
        )

    def _timed(self, method: Callable[..., object]) -> Callable[..., None]:
        clock = self._clock

        def call(*arguments: Any) -> None:
            began = clock()
            try:
                method(*arguments)
            except CALLBACK_ERRORS as error:
                raise self._failed(error) from error
            seconds = clock() - began
            self._seconds += seconds
            if seconds >= _LONG and not self._slow_call_reported:
                self._report_slow_call(seconds, arguments[0])

        return call

    def _report_slow_call(self, seconds: float, argument: object) -> None:
        self._slow_call_reported = True
        logger.warning(
            "observer %s took %.2f s for one call (%s): it runs on the event loop, and every cell waits meanwhile; do"
            " the slow part in a thread of its own",
            self.name,
            seconds,
            type(argument).__name__,
        )

    def _failed(self, error: BaseException) -> DatasetGenerationError:
        return DatasetGenerationError(f"{type(error).__name__}: {error}", stage=f"observer {self.name}")
