"""Models of one modality: the other one changes nothing, in training or in scoring."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import torch

from churn_udf.errors import BundleIntegrityError
from churn_udf.model.config import ModelConfig
from churn_udf.model.runner import ModelRunner
from churn_udf.tokenization import Tokenizer
from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.fit.config import FitConfig
from trainer.fit.data import text_arrays
from trainer.fit.loop import fit_model
from trainer.progress import Progress

SMALL = FitConfig(
    hidden_size=16,
    num_layers=1,
    max_tokens=48,
    max_review_tokens=12,
    min_word_count=3,
    pretrain_epochs=1,
    max_pretrain_examples=150,
    numeric_epochs=3,
    epochs=2,
    min_examples=0,
    batch_tokens=512,
    device="cpu",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    snapshot = synthetic_snapshot(
        tmp_path_factory.mktemp("snapshots"), num_users=60, num_cutoffs=10, seed=3
    )
    return snapshot, make_splits(snapshot, SplitConfig(), seed=0)


@pytest.fixture(scope="module", params=["fused", "text", "numeric"])
def fitted(request, data, tmp_path_factory):
    config = dataclasses.replace(SMALL, modality=request.param)
    run_dir = tmp_path_factory.mktemp(request.param)
    return request.param, fit_model(*data, config, run_dir, progress=Progress(quiet=True))


def test_what_is_not_read_changes_nothing_at_scoring(data, fitted):
    modality, result = fitted
    snapshot, splits = data
    runner = ModelRunner.load(result.model_dir, device="cpu")
    torch.nn.init.ones_(runner.model.text_projection[1].weight)  # little text was learned
    texts, features = text_arrays(snapshot, splits.test), snapshot.feature_matrix[splits.test]
    generator = np.random.default_rng(0)
    other_texts = tuple(column.take(pa.array(np.arange(len(column))[::-1])) for column in texts)
    other_features = generator.permutation(features) * 3.0 + 1.0
    before = runner.run(*texts, features)
    by_text, by_features = runner.run(*other_texts, features), runner.run(*texts, other_features)
    assert bool(np.abs(by_text.logits - before.logits).max() < 2e-6) is (modality == "numeric")
    assert bool(np.abs(by_features.logits - before.logits).max() < 2e-6) is (modality == "text")
    assert np.ptp(before.logits) > 1e-5
    text_effects, number_effects = before.group_effects[:, -1], before.group_effects[:, :-1]
    assert bool(np.abs(text_effects).max() < 2e-6) is (modality == "numeric")
    assert bool(np.abs(number_effects).max() < 2e-6) is (modality == "text")


def test_only_the_stages_that_teach_something_run(fitted):
    modality, result = fitted
    stages = {row["stage"] for row in result.history}
    expected = {
        "fused": {"pretrain", "numeric", "fine-tune"},
        "text": {"pretrain", "fine-tune"},
        "numeric": {"numeric"},
    }
    assert stages == expected[modality]
    assert result.facts["modality"] == modality


def test_training_on_text_sees_no_number(data, tmp_path):
    """Permuted numbers with the same mean codes give the same model."""
    snapshot, splits = data
    config = dataclasses.replace(SMALL, modality="text", epochs=1)
    changed = dataclasses.replace(snapshot)
    matrix = snapshot.feature_matrix.copy()
    for rows in (splits.train, splits.valid):
        matrix[rows] = np.random.default_rng(1).permutation(matrix[rows])
    changed.__dict__["feature_matrix"] = matrix
    histories = [
        fit_model(each, splits, config, tmp_path / name, progress=Progress(quiet=True)).history
        for name, each in (("first", snapshot), ("second", changed))
    ]
    for row, other in zip(*histories, strict=True):
        assert row.keys() == other.keys()
        assert row.get("valid_loss", 0.0) == pytest.approx(other.get("valid_loss", 0.0), abs=1e-5)


def test_numeric_model_encodes_and_tokenizes_no_text(data, tmp_path, monkeypatch):
    snapshot, splits = data
    config = dataclasses.replace(SMALL, modality="numeric")
    result = fit_model(snapshot, splits, config, tmp_path, progress=Progress(quiet=True))
    runner = ModelRunner.load(result.model_dir, device="cpu")

    def refuse(*args, **kwargs):
        raise AssertionError("a text was read")

    monkeypatch.setattr(Tokenizer, "encode", refuse)
    monkeypatch.setattr(type(runner.model.encoder), "forward", refuse)
    texts, features = text_arrays(snapshot, splits.test), snapshot.feature_matrix[splits.test]
    output = runner.run(*texts, features)
    assert output.logits.shape == (len(splits.test),)
    assert np.isfinite(output.group_effects).all()
    empty = runner.run(*(column.slice(0, 0) for column in texts), features[:0])
    assert empty.logits.shape == (0,)


def test_models_of_before_read_both_and_unknown_modalities_are_refused(fitted):
    text = (fitted[1].model_dir / "model.json").read_text()
    old = text.replace(f'"modality": "{fitted[0]}",', "")
    assert old != text
    assert ModelConfig.from_json(old).modality == "fused"
    with pytest.raises(BundleIntegrityError, match="'sound'"):
        ModelConfig.from_json(text.replace(f'"modality": "{fitted[0]}"', '"modality": "sound"'))
