"""Imbalance: what is drawn, what is minimised, and that the base rate comes back."""

import dataclasses

import numpy as np
import pytest
import torch

from churn_udf.calibration import sigmoid
from churn_udf.model.runner import ModelRunner
from trainer.data.splits import SplitConfig, make_splits
from trainer.data.synthetic import synthetic_snapshot
from trainer.errors import ConfigError
from trainer.fit.config import FitConfig
from trainer.fit.data import text_arrays
from trainer.fit.loop import fit_model
from trainer.fit.objective import Objective, logit_offset, make_objective
from trainer.fit.sampling import RowSampler, draw_rows, recency_weights
from trainer.progress import Progress

ROWS = np.arange(1_000, 2_000)
LABELS = (np.arange(1_000) % 10 == 0).astype(np.float64)  # 100 churned of 1,000
NUMERIC = FitConfig(
    modality="numeric",
    hidden_size=8,
    num_layers=1,
    min_word_count=3,
    numeric_epochs=30,
    numeric_learning_rate=5e-3,
    device="cpu",
)


def drawn(sampler: RowSampler, count: int, seed: int = 0) -> np.ndarray:
    return sampler.draw(count, np.random.default_rng(seed))


def share_of(rows: np.ndarray) -> float:
    return float(LABELS[rows - 1_000].mean())


def test_no_sampling_draws_what_draw_rows_draws():
    sampler = RowSampler(ROWS, LABELS, "none", 0.5)
    expected = draw_rows(ROWS, 300, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn(sampler, 300), expected)
    assert sampler.size == 1_000


@pytest.mark.parametrize(
    ("sampling", "share", "size"),
    [("under", 0.5, 200), ("under", 0.2, 500), ("under", 0.05, 947), ("over", 0.5, 1_800)],
)
def test_sampling_reaches_the_share_with_every_row_it_can_keep(sampling, share, size):
    sampler = RowSampler(ROWS, LABELS, sampling, share)
    rows = drawn(sampler, 10_000)
    assert len(rows) == sampler.size == size
    assert share_of(rows) == pytest.approx(share, abs=0.5 / size)
    _, times = np.unique(rows, return_counts=True)
    assert times.max() == 1 if sampling == "under" else len(times) == 1_000


def test_over_sampling_repeats_rows_evenly():
    rows = drawn(RowSampler(ROWS, LABELS, "over", 0.5), 10_000)
    churned, times = np.unique(rows[LABELS[rows - 1_000] > 0.5], return_counts=True)
    assert len(churned) == 100
    assert times.min() == times.max() == 9


def test_over_sampling_also_repeats_the_stayed_when_they_are_short():
    rows = drawn(RowSampler(ROWS, 1.0 - LABELS, "over", 0.5), 10_000)
    assert len(rows) == 1_800
    assert share_of(rows) == pytest.approx(0.5)


@pytest.mark.parametrize("sampling", ["over", "under"])
def test_a_limited_pass_keeps_the_share(sampling):
    rows = drawn(RowSampler(ROWS, LABELS, sampling, 0.3), 100)
    assert len(rows) == 100
    assert share_of(rows) == pytest.approx(0.3)


@pytest.mark.parametrize("sampling", ["none", "over", "under"])
def test_draws_follow_from_the_generator_alone(sampling):
    sampler = RowSampler(ROWS, LABELS, sampling, 0.5)
    np.testing.assert_array_equal(drawn(sampler, 150, seed=1), drawn(sampler, 150, seed=1))
    assert (drawn(sampler, 150, seed=1) != drawn(sampler, 150, seed=2)).any()


def test_recency_weights_halve_with_age():
    dates = np.array(["2024-03-01", "2024-02-20", "2024-02-10"], dtype="datetime64[D]")
    np.testing.assert_allclose(recency_weights(dates, 10.0), [1.0, 0.5, 0.25])
    np.testing.assert_array_equal(recency_weights(dates, None), 1.0)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 4.0 * torch.randn(64, generator=generator, dtype=torch.float64)
    labels = (torch.rand(64, generator=generator) < 0.3).double()
    return logits, labels, torch.rand(64, generator=generator).double() + 0.1


def test_focal_loss_is_torchvisions(batch):
    """The definition of torchvision.ops.sigmoid_focal_loss without alpha, written out."""
    logits, labels, weights = batch
    p = torch.sigmoid(logits)
    entropy = -(labels * torch.log(p) + (1 - labels) * torch.log(1 - p))
    p_t = p * labels + (1 - p) * (1 - labels)
    expected = torch.sum(weights * entropy * (1 - p_t) ** 2.0) / torch.sum(weights)
    torch.testing.assert_close(Objective(focal_gamma=2.0).loss(logits, labels, weights), expected)


def test_label_smoothing_mixes_in_half_of_each_outcome(batch):
    logits, labels, weights = batch
    p = torch.sigmoid(logits)
    wrong = -(labels * torch.log(1 - p) + (1 - labels) * torch.log(p))
    right = -(labels * torch.log(p) + (1 - labels) * torch.log(1 - p))
    expected = torch.sum(weights * (0.95 * right + 0.05 * wrong)) / torch.sum(weights)
    loss = Objective(label_smoothing=0.1).loss(logits, labels, weights)
    torch.testing.assert_close(loss, expected)


def test_class_and_row_weights_multiply(batch):
    logits, labels, weights = batch
    both = weights * torch.where(labels > 0.5, 7.0, 0.5)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels, both)
    expected = expected * len(both) / both.sum()
    loss = Objective(churned_weight=7.0, stayed_weight=0.5).loss(logits, labels, weights)
    torch.testing.assert_close(loss, expected)


def test_focal_loss_of_certain_logits_is_finite():
    logits = torch.tensor([200.0, -200.0], requires_grad=True)
    loss = Objective(focal_gamma=0.5).loss(logits, torch.tensor([0.0, 0.0]), torch.ones(2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    "change",
    [
        {"class_weights": "balanced"},
        {"positive_weight": 5.0},
        {"sampling": "under", "sampling_share": 0.4},
        {"sampling": "over", "positive_weight": 0.5},
        {"sampling": "under", "class_weights": "balanced", "sampling_share": 0.2},
    ],
    ids=lambda change: "+".join(change),
)
def test_offset_turns_the_best_constant_under_the_loss_into_the_base_rate(change):
    """The constant logit that minimises the loss over a pass, moved by the offset, is logit(.1)."""
    config = FitConfig(**change)
    sampler = RowSampler(ROWS, LABELS, config.sampling, config.sampling_share)
    objective = make_objective(config, sampler)
    labels = torch.from_numpy(LABELS[drawn(sampler, 10_000) - 1_000])
    grid = torch.linspace(-5.0, 5.0, 20_001, dtype=torch.float64)
    per_class = [
        objective.churned_weight * (labels > 0.5).sum(),
        objective.stayed_weight * (labels <= 0.5).sum(),
    ]
    softplus = torch.nn.functional.softplus
    losses = per_class[0] * softplus(-grid) + per_class[1] * softplus(grid)
    best = float(grid[losses.argmin()])
    assert sigmoid(np.array([best + logit_offset(objective, sampler)]))[0] == pytest.approx(
        0.1, abs=1e-3
    )


def test_defaults_weigh_nothing_and_move_nothing(batch):
    sampler = RowSampler(ROWS, LABELS, "none", 0.5)
    objective = make_objective(FitConfig(), sampler)
    logits, labels, _ = batch
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(objective.loss(logits, labels, torch.ones(64)), plain)
    assert logit_offset(objective, sampler) == 0.0


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """A snapshot whose churn is rare: most of the churned are made to stay."""
    snapshot = synthetic_snapshot(
        tmp_path_factory.mktemp("snapshots"), num_users=300, num_cutoffs=12, seed=5
    )
    generator = np.random.default_rng(0)
    kept = generator.random(snapshot.num_rows) < 0.3
    changed = dataclasses.replace(snapshot)
    labels = snapshot.labels
    changed.__dict__["labels"] = np.where(np.isnan(labels), labels, labels * kept)
    return changed, make_splits(changed, SplitConfig(), seed=0)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"class_weights": "balanced"},
        {"positive_weight": 4.0},
        {"sampling": "under"},
        {"sampling": "over"},
        {"sampling": "under", "sampling_share": 0.3, "recency_half_life_days": 60.0},
    ],
    ids=lambda change: "+".join(change) or "defaults",
)
def test_uncalibrated_probabilities_have_the_base_rate(rare, tmp_path, change):
    snapshot, splits = rare
    config = dataclasses.replace(NUMERIC, **change)
    result = fit_model(snapshot, splits, config, tmp_path, progress=Progress(quiet=True))
    runner = ModelRunner.load(result.model_dir, device="cpu")
    rows = np.concatenate([splits.train, splits.valid])
    logits = runner.run(*text_arrays(snapshot, rows), snapshot.feature_matrix[rows]).logits
    base_rate = float(snapshot.labels[rows].mean())
    assert 0.08 < base_rate < 0.2
    assert float(sigmoid(logits).mean()) == pytest.approx(base_rate, abs=0.025)
    offset = result.facts["logit_offset"]
    if change:
        assert float(sigmoid(logits - offset).mean()) > base_rate + 0.08
    else:
        assert offset == 0.0


def test_sampled_training_is_the_same_twice(rare, tmp_path):
    config = dataclasses.replace(NUMERIC, sampling="over", numeric_epochs=3)
    first, second = (
        fit_model(*rare, config, tmp_path / name, progress=Progress(quiet=True)).history
        for name in ("first", "second")
    )
    assert first == second


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": "both"}, r"fit\.sampling is 'both'"),
        ({"sampling_share": 0.3}, r"fit\.sampling_share is 0\.3"),
        ({"sampling": "over", "sampling_share": 1.0}, r"fit\.sampling_share"),
        ({"positive_weight": 0.0}, r"fit\.positive_weight"),
        ({"positive_weight": 2.0, "class_weights": "balanced"}, r"fit\.positive_weight"),
        ({"focal_gamma": -1.0}, r"fit\.focal_gamma"),
        ({"label_smoothing": 1.0}, r"fit\.label_smoothing"),
        ({"recency_half_life_days": 0.0}, r"fit\.recency_half_life_days"),
        ({"modality": "words"}, r"fit\.modality"),
        ({"modality": "numeric", "numeric_epochs": 0}, r"fit\.numeric_epochs"),
    ],
)
def test_bad_settings_are_named(change, named):
    with pytest.raises(ConfigError, match=named):
        FitConfig(**change)
