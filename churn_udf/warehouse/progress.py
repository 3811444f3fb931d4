"""Tells every few seconds how far scoring is."""

from __future__ import annotations

import time
from collections.abc import Callable

PROGRESS_SECONDS = 5.0


class Progress:
    """Counts rows and reports rate and time left every few seconds.

    Args:
        total: Rows to score, >= 1.
        log: Where a line goes.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        total: int,
        log: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._log = log
        self._clock = clock
        self._started = self._reported = clock()
        self._done = 0

    @property
    def rows_per_second(self) -> float:
        """Mean rate so far."""
        return self._done / max(self._clock() - self._started, 1e-9)

    def add(self, rows: int) -> None:
        """Count rows, and report if the last report is old enough."""
        self._done += rows
        now = self._clock()
        if now - self._reported >= PROGRESS_SECONDS:
            self._reported = now
            rate = self.rows_per_second
            left = (self._total - self._done) / max(rate, 1e-9)
            self._log(
                f"scored {self._done:,} of {self._total:,} rows, {rate:,.0f} rows/s, "
                f"{_duration(left)} left"
            )

    def finish(self) -> None:
        """Report the whole."""
        self._log(
            f"scored {self._done:,} rows in {_duration(self._clock() - self._started)} "
            f"({self.rows_per_second:,.0f} rows/s)"
        )


def _duration(seconds: float) -> str:
    """Return ``12 s`` or ``3 min 05 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
