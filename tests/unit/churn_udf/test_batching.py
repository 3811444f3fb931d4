"""Batches under a token budget, and rows that are equal."""

import struct

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from churn_udf.batching import distinct_rows, plan_batches


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


VALUES = st.sampled_from([0.0, -0.0, 1.0, float("nan")])
ROWS = st.tuples(st.sampled_from("abc"), st.sampled_from(["", "x"]), VALUES, VALUES)


@settings(deadline=None)
@given(st.lists(ROWS, max_size=30))
def test_distinct_rows_are_those_of_python(rows):
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    features = np.column_stack([np.array(column, dtype=np.float64) for column in columns[2:]])
    texts = [pa.array(column, pa.string()) for column in columns[:2]]
    found = distinct_rows(*texts, features)
    contents = [(one, two, struct.pack("dd", *values)) for one, two, *values in rows]
    first = {content: row for row, content in reversed(list(enumerate(contents)))}
    if found is None:
        assert len(first) == len(rows)
    else:
        assert found.first.tolist() == sorted(first.values()) != list(range(len(rows)))
        assert found.first[found.inverse].tolist() == [first[content] for content in contents]
