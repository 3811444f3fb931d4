"""Cutting work into batches of like length under a budget of tokens, equal rows but once."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa

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


@dataclasses.dataclass(frozen=True)
class DistinctRows:
    """Which of B rows to compute, and whose result each row takes.

    Attributes:
        first: (D,) the first row of each content, increasing.
        inverse: (B,) the place in ``first`` of each row's content.
    """

    first: IntArray
    inverse: IntArray


def distinct_rows(
    behavior_texts: pa.Array, review_texts: pa.Array, features: npt.NDArray[np.float64]
) -> DistinctRows | None:
    """Find rows with equal texts and bitwise equal features.

    Features are only looked at where both texts are those of another row.

    Args:
        behavior_texts: (B,) strings, no nulls.
        review_texts: (B,) strings, no nulls.
        features: (B, F) float64.

    Returns:
        None if all rows differ.
    """
    pairs = np.zeros(len(features), dtype=np.int64)
    for texts in (behavior_texts, review_texts):
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        encoded = texts.dictionary_encode()
        if len(encoded.dictionary) == len(features):
            return None
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        pairs = pairs * len(encoded.dictionary) + codes
    _, pairs, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    twins = np.flatnonzero(counts[pairs] > 1)
    if not len(twins):
        return None
    content = np.column_stack([pairs[twins].view(np.float64), features[twins]])
    rows = np.ascontiguousarray(content).view(np.dtype((np.void, content.strides[0]))).ravel()
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    if len(first) == len(twins):
        return None
    owners = np.arange(len(features))
    owners[twins] = twins[first][inverse]
    first, inverse = np.unique(owners, return_inverse=True)
    return DistinctRows(first, inverse)
