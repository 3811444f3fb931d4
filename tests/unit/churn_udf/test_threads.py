"""Batches on several threads: all run once, errors come through, torch's setting is put back."""

import threading

import numpy as np
import pytest
import torch
from factories import input_batch, tiny_bundle

from churn_udf.model.runner import ModelRunner
from churn_udf.model.threads import run_each

NAMES = ("recency_days", "order_count", "amount_sum")


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_every_item_runs_once_on_one_core(three_threads, count):
    seen, lock = [], threading.Lock()

    def work(item: int) -> None:
        with lock:
            seen.append((item, torch.get_num_threads()))

    run_each(work, range(count))
    assert sorted(seen) == [(item, 1) for item in range(count)]
    assert torch.get_num_threads() == 3


def test_items_run_side_by_side(three_threads):
    barrier = threading.Barrier(3, timeout=20)
    run_each(lambda _: barrier.wait() and None, range(3))


@pytest.mark.parametrize("count", [1, 5])
def test_an_error_comes_through_and_the_setting_is_put_back(three_threads, count):
    def work(item: int) -> None:
        raise KeyError(f"item {item}")

    with pytest.raises(KeyError, match="item 0"):
        run_each(work, range(count))
    assert torch.get_num_threads() == 3


def test_scores_do_not_depend_on_the_number_of_threads(tmp_path, three_threads):
    runner = ModelRunner.load(tiny_bundle(tmp_path, NAMES).directory, device="cpu", token_budget=64)
    batch = input_batch(80, NAMES, seed=5)
    features = [batch.column(name).to_numpy(zero_copy_only=False) for name in NAMES]
    rows = batch.column("behavior_text"), batch.column("review_text_recent")
    on_three = runner.run(*rows, np.column_stack(features))
    torch.set_num_threads(1)
    on_one = runner.run(*rows, np.column_stack(features))
    np.testing.assert_allclose(on_three.logits, on_one.logits, atol=1e-5, rtol=0)
    np.testing.assert_allclose(on_three.group_effects, on_one.group_effects, atol=1e-5, rtol=0)
