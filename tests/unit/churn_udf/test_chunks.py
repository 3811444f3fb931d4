"""Chunks: a few seconds of work each, whatever the rate does. They are what a kill can lose."""

from __future__ import annotations

import pyarrow as pa
import pytest

from churn_udf.warehouse import dbt_model
from churn_udf.warehouse.chunks import MAX_GROWTH, Chunks
from churn_udf.warehouse.score_cache import READ_ROWS

MINUTE = 60.0


def batch_of(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"row": list(range(rows))})


def seconds_of_chunks(rates: list[tuple[int, float]]) -> list[float]:
    """Score rows at rates that change after so many rows; return what each chunk took."""
    scored = 0
    taken = []
    chunks = Chunks(dbt_model.FIRST_CHUNK_ROWS, dbt_model.CHUNK_SECONDS)
    total = sum(rows for rows, _ in rates)
    per_row = [1 / rate for rows, rate in rates for _ in range(rows)]
    for start in range(0, total, READ_ROWS):
        for chunk in chunks.cut(batch_of(min(READ_ROWS, total - start))):
            taken.append(sum(per_row[scored : scored + chunk.num_rows]))
            scored += chunk.num_rows
            chunks.took(chunk.num_rows, taken[-1])
    assert scored == total
    return taken


@pytest.mark.parametrize(
    "rates",
    [
        pytest.param([(600, 5.0)], id="slow from the start"),
        pytest.param([(30_000, 3_000.0), (3_000, 180.0)], id="falls to a sixteenth at once"),
        pytest.param([(30_000, 20_000.0), (2_000, 150.0)], id="fast, then a hundredth"),
        pytest.param([(9_000, 3_000.0), (900, 300.0), (90, 30.0), (30, 3.0)], id="falls in steps"),
        pytest.param([(3_000, 300.0), (300, 20.0)] * 4, id="goes up and down"),
    ],
)
def test_no_chunk_takes_a_minute(rates):
    assert max(seconds_of_chunks(rates)) < MINUTE


def test_after_a_fall_the_next_chunk_is_short_again():
    taken = seconds_of_chunks([(30_000, 3_000.0), (9_000, 300.0)])
    longest = max(range(len(taken)), key=taken.__getitem__)
    assert taken[longest] > 10
    # One may still be sized by a chunk that began before the fall.
    assert taken[longest + 1] < taken[longest]
    assert max(taken[longest + 2 :]) <= dbt_model.CHUNK_SECONDS + 1e-6


def test_at_a_steady_rate_chunks_grow_to_their_time_and_stay_there():
    taken = seconds_of_chunks([(24_000, 1_000.0)])
    assert taken[:4] == pytest.approx([0.032, 0.128, 0.512, 2.048])
    assert max(taken) == pytest.approx(dbt_model.CHUNK_SECONDS)
    # Nothing is chopped small: rests of read batches are the only short ones.
    assert len(taken) <= 4 + 24 / dbt_model.CHUNK_SECONDS + 24_000 / READ_ROWS + 1


def test_the_short_rest_of_a_batch_does_not_shrink_the_next_chunk():
    chunks = Chunks(10, 1.0)
    sizes = []
    for rows in (10, 40, 3, 60):
        for chunk in chunks.cut(batch_of(rows)):
            sizes.append(chunk.num_rows)
            chunks.took(chunk.num_rows, 0.01 if chunk.num_rows == 3 else chunk.num_rows / 40)
    assert sizes == [10, 10 * MAX_GROWTH, 3, 40, 20]


def test_chunks_cut_ahead_do_not_grow_before_one_was_scored():
    chunks = Chunks(10, 1.0)
    assert [chunk.num_rows for chunk in chunks.cut(batch_of(35))] == [10, 10, 10, 5]


def test_slices_are_the_batch():
    chunks = Chunks(7, 0.0)
    rows = [row for chunk in chunks.cut(batch_of(50)) for row in chunk.column("row").to_pylist()]
    assert rows == list(range(50))
