"""What fitting reads of a snapshot: token ids and features of chosen rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from churn_udf.batching import plan_batches
from churn_udf.tokenization import TokenBatch, Tokenizer
from trainer.data.snapshot import Snapshot
from trainer.data.splits import Splits
from trainer.fit.sampling import draw_rows

IntArray = npt.NDArray[np.int64]
STRETCHES = 10
"""Groups of like length in a supervised batch that holds so many texts."""


def text_arrays(snapshot: Snapshot, rows: IntArray) -> tuple[pa.Array, pa.Array]:
    """Return behaviour and review texts of these rows as two (K,) string arrays."""
    picked = snapshot.table.select(["behavior_text", "review_text_recent"]).take(pa.array(rows))
    behavior, reviews = (column.combine_chunks() for column in picked.columns)
    return behavior, reviews


class TokenReader:
    """Token ids of snapshot rows, encoded when asked for.

    Args:
        snapshot: The rows.
        tokenizer: Encodes their texts.
    """

    def __init__(self, snapshot: Snapshot, tokenizer: Tokenizer) -> None:
        self._snapshot = snapshot
        self._tokenizer = tokenizer

    def read(self, rows: IntArray) -> TokenBatch:
        """Return the packed token ids of these rows, in their order."""
        return self._tokenizer.encode(*text_arrays(self._snapshot, rows))


def shuffled_batches(
    lengths: IntArray, token_budget: int, generator: np.random.Generator, *, by_length: bool
) -> list[IntArray]:
    """Cut texts into batches of about ``token_budget`` tokens, in random order.

    Args:
        lengths: (B,) tokens of each text.
        token_budget: Sum of tokens in a batch.
        generator: Source of the order.
        by_length: Put texts of like length together. Length tells about the label, so supervised
            batches must not; they are made of small groups of like length, one from every
            stretch of the lengths: each batch is a picture of them all, and attention, which
            works by groups of equal length, has few.

    Returns:
        Index arrays; inside each, texts of equal length stand together.
    """
    if by_length:
        batches = plan_batches(lengths, token_budget)
        return [batches[index] for index in generator.permutation(len(batches))]
    num_batches = max(1, -(-int(lengths.sum()) // token_budget))
    num_stretches = min(STRETCHES, max(1, len(lengths) // num_batches))
    shuffled = generator.permutation(len(lengths))
    order = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    groups = np.array_split(order, num_batches * num_stretches)
    dealt: list[list[IntArray]] = [[] for _ in range(num_batches)]
    for start in range(0, len(groups), num_batches):
        stretch = groups[start : start + num_batches]
        for index, group in zip(generator.permutation(num_batches), stretch, strict=True):
            dealt[index].append(group)
    return [np.concatenate(batch) for batch in dealt if sum(map(len, batch))]


def valid_sample(splits: Splits, count: int, seed: int) -> IntArray:
    """Return the validation rows that training looks at, the same ones each time."""
    return np.sort(draw_rows(splits.valid, count, np.random.default_rng([seed, 1])))
