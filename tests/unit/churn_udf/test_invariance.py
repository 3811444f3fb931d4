"""A score is a function of its row and the bundle: nothing about the call changes it."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from factories import input_batch, tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from churn_udf.scoring import Scorer

FEATURES = ["recency_days", "order_count"]
NUM_ROWS = 30
ROUNDING = 1e-5
COLUMNS = ("churn_logit", "churn_probability")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory) -> Scorer:
    bundle = tiny_bundle(tmp_path_factory.mktemp("models"), FEATURES)
    return Scorer.load(bundle, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def rows() -> pa.RecordBatch:
    return input_batch(NUM_ROWS, FEATURES, seed=5)


@pytest.fixture(scope="module")
def alone(scorer, rows) -> dict[str, dict[str, float]]:
    """What each row scores by itself, by its hash."""
    scored = [scorer.score_batch(rows.slice(row, 1)).to_pylist()[0] for row in range(NUM_ROWS)]
    return {one["input_hash"]: one for one in scored}


@pytest.fixture(autouse=True)
def threads_of_before():
    allowed = torch.get_num_threads()
    yield
    torch.set_num_threads(allowed)


@settings(max_examples=60)
@given(data=st.data())
def test_nothing_about_the_call_changes_a_score(scorer, rows, alone, data):
    """Order, neighbours, duplicates, batch sizes, dedupe, token budget and threads."""
    chosen = data.draw(st.lists(st.integers(0, NUM_ROWS - 1), min_size=1, max_size=60))
    table = rows.take(pa.array(chosen))
    torch.set_num_threads(data.draw(st.integers(1, 4), label="threads"))
    runner = scorer._runner.members["bert"]
    runner.token_budget = data.draw(st.integers(1, 400), label="token budget")
    is_distinct = data.draw(st.booleans(), label="without dedupe")
    size = data.draw(st.integers(1, 60), label="batch size")
    found = []
    for start in range(0, table.num_rows, size):
        part = table.slice(start, size)
        found += scorer.score_batch(part, is_distinct=is_distinct).to_pylist()
    assert [one["input_hash"] for one in found] == table.column("input_hash").to_pylist()
    for one in found:
        expected = alone[one["input_hash"]]
        for column in COLUMNS:
            assert one[column] == pytest.approx(expected[column], abs=ROUNDING)
        for name, effect in zip(one["reason_groups"], one["reason_effects"], strict=True):
            place = expected["reason_groups"].index(name)
            assert effect == pytest.approx(expected["reason_effects"][place], abs=ROUNDING)
        assert one["risk_tier"] == expected["risk_tier"]
