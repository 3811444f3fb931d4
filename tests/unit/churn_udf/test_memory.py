"""A device that runs out of memory: every text is run once, in smaller batches or on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from factories import input_batch, tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

from churn_udf.model.memory import run_within_memory
from churn_udf.model.runner import ModelRunner

CPU_BUDGET = 7


class Device:
    """Has memory for some tokens at once, until the CPU takes over."""

    def __init__(self, lengths: np.ndarray, num_tokens: float, cpu_tokens: float = np.inf) -> None:
        self.lengths = lengths
        self.num_tokens = num_tokens
        self.cpu_tokens = cpu_tokens
        self.done: list[int] = []
        self.num_freed = 0

    def run(self, indices: np.ndarray) -> None:
        if self.lengths[indices].sum() > self.num_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.done += indices.tolist()

    def free(self) -> None:
        self.num_freed += 1

    def move_to_cpu(self) -> int:
        self.num_tokens = self.cpu_tokens
        return CPU_BUDGET

    def score(self, token_budget: int) -> int:
        return run_within_memory(
            self.lengths, token_budget, self.run, free=self.free, move_to_cpu=self.move_to_cpu
        )


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    memory=st.integers(0, 200),
    budget=st.integers(1, 300),
)
def test_every_text_is_run_once_whatever_fits(lengths, memory, budget):
    device = Device(np.array(lengths), memory)
    device.score(budget)
    assert sorted(device.done) == list(range(len(lengths)))


def test_batches_shrink_until_they_fit_and_stay_small(caplog):
    device = Device(np.full(64, 10), 100)
    budget = device.score(640)
    assert budget == 80
    assert device.num_freed == 3
    assert "no memory for 64 texts at once" in caplog.text
    device.score(budget)
    assert device.num_freed == 3


def test_nothing_changes_where_memory_suffices(caplog):
    device = Device(np.full(8, 10), 1_000)
    assert device.score(40) == 40
    assert device.num_freed == 0
    assert not caplog.records


def test_a_text_that_does_not_fit_alone_goes_to_the_cpu(caplog):
    device = Device(np.array([5, 50, 5]), 20)
    assert device.score(100) == CPU_BUDGET
    assert sorted(device.done) == [0, 1, 2]
    assert "goes on on the CPU" in caplog.text


def test_a_cpu_without_memory_either_says_so():
    with pytest.raises(torch.OutOfMemoryError):
        Device(np.array([5, 50]), 0, cpu_tokens=20).score(100)


class Gpu:
    """Stands for a GPU in a runner: encodes no more than some tokens at once."""

    def __init__(self, runner: ModelRunner, num_tokens: int) -> None:
        self.encode, self.num_tokens, self.largest = runner._encode, num_tokens, 0
        runner._encode = self
        runner._to_device = torch.from_numpy
        runner.device = SimpleNamespace(type="cuda")

    def __call__(self, ids_N, segments_N, lengths):
        if len(ids_N) > self.num_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.largest = max(self.largest, len(ids_N))
        return self.encode(ids_N, segments_N, lengths)


@pytest.mark.parametrize(("num_tokens", "device"), [(60, "cuda"), (0, "cpu")])
def test_scores_of_a_gpu_without_memory_are_those_of_the_cpu(tmp_path, num_tokens, device):
    bundle = tiny_bundle(tmp_path, ["a", "b"])
    runner = ModelRunner.load(bundle.directory, device="cpu")
    batch = input_batch(40, ["a", "b"])
    features = np.column_stack(
        [batch.column(name).to_numpy(zero_copy_only=False) for name in ("a", "b")]
    )
    texts = batch.column("behavior_text"), batch.column("review_text_recent")
    expected = runner.run(*texts, features)
    gpu = Gpu(runner, num_tokens)
    found = runner.run(*texts, features)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(found.group_effects, expected.group_effects, atol=1e-5)
    assert runner.device.type == device
    assert gpu.largest <= num_tokens
