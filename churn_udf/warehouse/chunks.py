"""Cuts what is scored into chunks of a few seconds: what a kill can lose."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

MAX_GROWTH = 4
"""A chunk has at most this many times the rows of the one before."""


class Chunks:
    """Sizes chunks by the rate of the latest one.

    A chunk takes about ``seconds``; where the rate falls at once by some factor, as many times
    that, and the next one is short again. Cutting may be ahead of scoring, on another thread:
    sizes follow what has been scored.

    Args:
        first_rows: Rows of the first chunk, and the least of any, >= 1.
        seconds: What a chunk should take; 0 keeps all at ``first_rows``.
    """

    def __init__(self, first_rows: int, seconds: float) -> None:
        self._first_rows = self._rows = first_rows
        self._seconds = seconds

    def cut(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yield slices of a batch, in order."""
        start = 0
        while start < batch.num_rows:
            chunk = batch.slice(start, self._rows)
            yield chunk
            start += chunk.num_rows

    def took(self, rows: int, seconds: float) -> None:
        """Learn from a chunk that was scored and stored.

        Args:
            rows: Its rows, >= 1.
            seconds: What it took, >= 0.
        """
        if rows < self._rows and seconds <= self._seconds:
            return  # the short rest of a fast batch says nothing
        fitting = int(rows / max(seconds, 1e-9) * self._seconds)
        self._rows = max(self._first_rows, min(fitting, MAX_GROWTH * self._rows))
