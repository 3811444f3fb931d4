"""Mixed bf16 on the CPU: taken where there are units for it, and as repeatable as fp32."""

import dataclasses

import numpy as np
import pytest
import torch

from churn_udf.model.runner import ModelRunner
from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.fit.config import FitConfig
from trainer.fit.loop import fit_model
from trainer.progress import Progress

SMALL = FitConfig(
    num_layers=1,
    max_tokens=48,
    max_review_tokens=12,
    min_word_count=3,
    pretrain_epochs=1,
    max_pretrain_examples=60,
    numeric_epochs=0,
    epochs=1,
    max_epoch_examples=120,
    min_examples=0,
    batch_tokens=512,
    device="cpu",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    snapshot = synthetic_snapshot(
        tmp_path_factory.mktemp("snapshots"), num_users=80, num_cutoffs=8, seed=3
    )
    return snapshot, make_splits(snapshot, SplitConfig(), seed=0)


def fit(data, directory, **changes):
    return fit_model(
        *data, dataclasses.replace(SMALL, **changes), directory, progress=Progress(quiet=True)
    )


def logits(data, result) -> np.ndarray:
    runner = ModelRunner.load(result.model_dir, device="cpu")
    snapshot, splits = data
    texts = [
        snapshot.table[name].combine_chunks().take(splits.valid)
        for name in ("behavior_text", "review_text_recent")
    ]
    return runner.run(*texts, snapshot.feature_matrix[splits.valid]).logits


@pytest.mark.parametrize(
    ("has_units", "width", "expected"),
    [(True, 128, "bf16"), (False, 128, "fp32"), (True, 64, "fp32")],
)
def test_auto_takes_bf16_where_the_processor_and_the_width_pay(
    data, tmp_path, monkeypatch, has_units, width, expected
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_units)
    settings = {"hidden_size": width, "pretrain_epochs": 0, "max_epoch_examples": 16}
    assert fit(data, tmp_path, **settings).facts["precision"] == expected


def test_a_torch_that_cannot_tell_gets_fp32(data, tmp_path, monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    result = fit(data, tmp_path, pretrain_epochs=0, max_epoch_examples=16)
    assert result.facts["precision"] == "fp32"


def test_bf16_repeats_to_the_last_digits_and_stays_near_fp32(data, tmp_path):
    first = fit(data, tmp_path / "first", precision="bf16")
    again = fit(data, tmp_path / "again", precision="bf16")
    exact = fit(data, tmp_path / "exact", precision="fp32")
    np.testing.assert_allclose(logits(data, first), logits(data, again), atol=1e-6, rtol=0)
    assert [row.get("valid_loss") for row in first.history] == pytest.approx(
        [row.get("valid_loss") for row in again.history], abs=1e-6
    )
    difference = np.abs(logits(data, first) - logits(data, exact))
    assert 0 < difference.max() < 0.1


def test_weights_stay_fp32(data, tmp_path):
    result = fit(data, tmp_path, precision="bf16", pretrain_epochs=0, max_epoch_examples=16)
    model = ModelRunner.load(result.model_dir, device="cpu").model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
