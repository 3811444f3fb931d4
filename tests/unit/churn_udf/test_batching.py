"""Batches under a token budget."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from churn_udf.batching import plan_batches


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_every_text_once_and_budget_kept(lengths, budget):
    array = np.asarray(lengths, dtype=np.int64)
    batches = plan_batches(array, budget)
    placed = np.concatenate(batches) if batches else np.array([], dtype=np.int64)
    assert sorted(placed.tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or array[batch].sum() <= budget for batch in batches)


def test_texts_stand_by_length_and_ties_keep_their_order():
    (batch,) = plan_batches(np.array([3, 1, 3, 2]), 100)
    assert batch.tolist() == [1, 3, 0, 2]
