"""Pseudo-labels: which rows join, what they weigh, when the second model is kept."""

import dataclasses
import json

import numpy as np
import pytest

from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.fit import self_training
from trainer.fit.config import FitConfig
from trainer.fit.loop import fit_model
from trainer.fit.self_training import PseudoLabels, choose_pseudo_labels
from trainer.progress import Progress

SMALL = FitConfig(
    hidden_size=16,
    num_layers=1,
    max_tokens=48,
    max_review_tokens=12,
    min_word_count=3,
    pretrain_epochs=0,
    numeric_epochs=60,
    numeric_learning_rate=0.01,
    epochs=1,
    max_epoch_examples=100,
    min_examples=0,
    batch_tokens=512,
    device="cpu",
    pseudo_labels=True,
    pseudo_label_confidence=0.6,
    checkpoint_seconds=0.0,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Few labels: sixty of the training rows are known, the others are the pool."""
    folder = tmp_path_factory.mktemp("snapshots")
    snapshot = synthetic_snapshot(folder, num_users=100, num_cutoffs=10, seed=3)
    splits = make_splits(snapshot, SplitConfig(), seed=0)
    few = np.sort(np.random.default_rng(0).choice(splits.train, 60, replace=False))
    return snapshot, dataclasses.replace(splits, train=few)


def choose(probabilities, confidence=0.8, most=1_000) -> PseudoLabels:
    generator = np.random.default_rng(0)
    return choose_pseudo_labels(
        np.asarray(probabilities), confidence=confidence, most=most, generator=generator
    )


def test_only_confident_rows_join_in_the_predicted_class_balance():
    probabilities = np.r_[np.full(10, 0.9), np.full(30, 0.5), np.full(160, 0.05)]
    chosen = choose(probabilities)
    said = probabilities[chosen.places_K]
    assert set(said[chosen.labels_K == 1]) == {0.9}
    assert set(said[chosen.labels_K == 0]) == {0.05}
    assert chosen.prior == pytest.approx(probabilities.mean())
    assert chosen.labels_K.mean() == pytest.approx(chosen.prior, abs=0.02)
    assert (np.diff(chosen.places_K) > 0).all()


def test_at_most_so_many_join():
    probabilities = np.tile([0.95, 0.05], 500)
    chosen = choose(probabilities, most=100)
    assert len(chosen.places_K) == 100
    assert chosen.labels_K.mean() == 0.5


@pytest.mark.parametrize(
    "probabilities",
    [np.full(50, 0.5), np.full(50, 0.01), np.empty(0)],
    ids=["nobody is sure", "one class alone is sure", "no pool"],
)
def test_nothing_joins_without_confident_rows_of_both_classes(probabilities):
    assert len(choose(probabilities).places_K) == 0


def test_pool_is_what_neither_trains_nor_is_judged_and_weighs_less(data, tmp_path, monkeypatch):
    snapshot, splits = data
    calls = []
    real = self_training._fit_once

    def spying(snapshot, splits, config, directory, progress, targets, encoders):
        calls.append((splits.train, targets, config.pseudo_labels))
        return real(snapshot, splits, config, directory, progress, targets, encoders)

    monkeypatch.setattr(self_training, "_fit_once", spying)
    result = fit_model(snapshot, splits, SMALL, tmp_path, progress=Progress(quiet=True))
    (first, none, _), (second, targets, is_on) = calls
    assert none is None
    assert not is_on
    np.testing.assert_array_equal(first, splits.train)
    joined = np.setdiff1d(second, splits.train)
    assert len(joined) > 0
    assert set(joined) <= set(splits.pretrain) - set(splits.train)
    judged = np.r_[splits.valid, splits.test]
    assert not set(joined) & set(judged)
    np.testing.assert_array_equal(targets.weights_N[joined], np.float32(0.3))
    np.testing.assert_array_equal(targets.weights_N[splits.train], 1.0)
    untouched = np.r_[splits.train, judged]
    np.testing.assert_array_equal(targets.labels_N[untouched], snapshot.labels[untouched])
    assert (targets.labels_N[joined] != snapshot.labels[joined]).any()  # guessed, not looked up
    facts = next(row for row in result.history if row["stage"] == "pseudo-labels")
    assert facts["rows"] == len(joined)
    assert facts["is_kept"] == (facts["second_loss"] <= facts["first_loss"])
    assert (tmp_path / "history.jsonl").read_text().count("\n") == len(result.history)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("is_better", [True, False])
def test_second_model_is_kept_only_if_validation_is_not_worse(
    data, tmp_path, monkeypatch, is_better
):
    real = self_training._fit_once
    models = []

    def rigged(*arguments):
        result = real(*arguments)
        models.append((result.model_dir / "model.safetensors").read_bytes())
        if len(models) == 2:
            change = -1.0 if is_better else 1.0
            for row in result.history:
                if "valid_loss" in row:
                    row["valid_loss"] += change
        return result

    monkeypatch.setattr(self_training, "_fit_once", rigged)
    result = fit_model(*data, SMALL, tmp_path, progress=Progress(quiet=True))
    kept = (result.model_dir / "model.safetensors").read_bytes()
    assert models[0] != models[1]
    assert kept == models[1 if is_better else 0]
    assert result.facts["pseudo_labels"].endswith("rows, kept" if is_better else "not kept")
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert next(r for r in lines if r["stage"] == "pseudo-labels")["is_kept"] is is_better


def test_an_interrupted_second_fit_does_not_repeat_the_first(data, tmp_path, monkeypatch):
    undisturbed = fit_model(*data, SMALL, tmp_path / "whole", progress=Progress(quiet=True))
    real, fitted = self_training.fit_model, []

    def dying(*arguments, **options):
        fitted.append(arguments[3].name)
        if fitted == ["first", "second"]:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(self_training, "fit_model", dying)
    with pytest.raises(KeyboardInterrupt):
        fit_model(*data, SMALL, tmp_path / "killed", progress=Progress(quiet=True))
    resumed = fit_model(*data, SMALL, tmp_path / "killed", progress=Progress(quiet=True))
    assert fitted == ["first", "second", "second"]
    assert (resumed.model_dir / "model.safetensors").read_bytes() == (
        undisturbed.model_dir / "model.safetensors"
    ).read_bytes()


def test_it_is_off_by_default():
    assert FitConfig().pseudo_labels is False
