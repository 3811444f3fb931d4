"""Cuts what is scored into chunks of a few seconds: what a kill can lose."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pyarrow as pa

MAX_GROWTH = 4
"""A chunk has at most this many times the rows of the one before."""


class Chunks:
    """Sizes chunks by the rate of the latest one, which the caller takes while it holds it.

    A chunk takes about ``seconds``; where the rate falls at once by some factor, as many times
    that, and the next one is short again.

    Args:
        first_rows: Rows of the first chunk, and the least of any, >= 1.
        seconds: What a chunk should take; 0 keeps all at ``first_rows``.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        first_rows: int,
        seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first_rows = self._rows = first_rows
        self._seconds = seconds
        self._clock = clock

    def cut(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yield slices of a batch, in order."""
        start = 0
        while start < batch.num_rows:
            chunk = batch.slice(start, self._rows)
            began = self._clock()
            yield chunk
            start += chunk.num_rows
            self._resize(chunk.num_rows, self._clock() - began)

    def _resize(self, rows: int, taken: float) -> None:
        """Choose the next size; the short rest of a fast batch says nothing."""
        if rows < self._rows and taken <= self._seconds:
            return
        fitting = int(rows / max(taken, 1e-9) * self._seconds)
        self._rows = max(self._first_rows, min(fitting, MAX_GROWTH * self._rows))
