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
    """Cut texts into batches of at most ``token_budget`` tokens, in random order.

    Args:
        lengths: (B,) tokens of each text.
        token_budget: Largest sum of tokens in a batch.
        generator: Source of the order.
        by_length: Put texts of like length together, which is faster. Length tells about the
            label, so supervised batches must not.

    Returns:
        Index arrays; inside each, texts of equal length stand together.
    """
    if by_length:
        batches = plan_batches(lengths, token_budget)
        return [batches[index] for index in generator.permutation(len(batches))]
    order = generator.permutation(len(lengths))
    parts = np.cumsum(lengths[order]) // token_budget
    cuts = np.flatnonzero(np.diff(parts)) + 1
    return [
        batch[np.argsort(lengths[batch], kind="stable")]
        for batch in np.split(order, cuts)
        if len(batch)
    ]


def valid_sample(splits: Splits, count: int, seed: int) -> IntArray:
    """Return the validation rows that training looks at, the same ones each time."""
    return np.sort(draw_rows(splits.valid, count, np.random.default_rng([seed, 1])))
