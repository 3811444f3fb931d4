"""Cutting work into batches of like length under a budget of tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


def plan_batches(lengths: IntArray, token_budget: int) -> list[IntArray]:
    """Sort texts by length and cut them into batches of at most ``token_budget`` tokens.

    Args:
        lengths: (B,) tokens of each text, >= 1.
        token_budget: Largest sum of tokens in a batch; one longer text makes its own batch.

    Returns:
        Index arrays that together hold every text once, shortest texts first; stable, so equal
        inputs give equal plans.
    """
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    ends = np.cumsum(lengths[order])
    batches = []
    start, used = 0, 0
    while start < len(order):
        stop = int(np.searchsorted(ends, used + token_budget, side="right"))
        stop = max(stop, start + 1)
        batches.append(order[start:stop])
        start, used = stop, int(ends[stop - 1])
    return batches
