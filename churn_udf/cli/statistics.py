"""Counts and latencies of a service that may run for months: memory does not grow."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

SMALLEST_SECONDS = 1e-6
STEP = 1.01
NUM_BUCKETS = 2_100
"""Up to 1,000 s in steps of 1 %."""


class Latencies:
    """A histogram with buckets 1 % wide, so that percentiles are 1 % exact."""

    def __init__(self) -> None:
        self._counts = np.zeros(NUM_BUCKETS, np.int64)

    def add(self, seconds: npt.NDArray[np.float64]) -> None:
        """Count latencies (B,) in seconds."""
        steps = np.log(np.maximum(seconds, SMALLEST_SECONDS) / SMALLEST_SECONDS) / np.log(STEP)
        buckets = np.minimum(steps.astype(np.int64), NUM_BUCKETS - 1)
        self._counts += np.bincount(buckets, minlength=NUM_BUCKETS)

    def percentile(self, percent: float) -> float:
        """Return the latency in seconds that so many percent of rows do not exceed; 0 if none."""
        total = int(self._counts.sum())
        if not total:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self._counts), total * percent / 100.0))
        return float(SMALLEST_SECONDS * STEP ** (bucket + 1))


class Statistics:
    """Rows, errors and latencies since the first row arrived.

    Args:
        clock: The clock of the times given.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first_arrival: float | None = None
        self._last_answer = 0.0
        self._latencies = Latencies()
        self.num_rows = 0
        self.num_errors = 0

    def add(self, arrivals: npt.NDArray[np.float64], *, num_errors: int) -> None:
        """Count rows (B,) by their time of arrival; they are answered now."""
        now = self._clock()
        if self._first_arrival is None:
            self._first_arrival = float(arrivals[0])
        self._latencies.add(now - arrivals)
        self._last_answer = now
        self.num_rows += len(arrivals)
        self.num_errors += num_errors

    def describe(self) -> str:
        """Return one line: rows, errors, rows/s and latencies from arrival to answer written."""
        if self._first_arrival is None:
            return "0 rows, 0 errors"
        seconds = self._last_answer - self._first_arrival
        shown = ", ".join(
            f"p{percent} {self._latencies.percentile(percent) * 1e3:.2f} ms"
            for percent in (50, 95, 99)
        )
        return (
            f"{self.num_rows:,} rows, {self.num_errors:,} errors in {seconds:,.1f} s "
            f"({self.num_rows / max(seconds, 1e-9):,.0f} rows/s); latency {shown}"
        )
