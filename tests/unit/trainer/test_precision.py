"""The packaging check: which precision ships, by which bounds, and who knows of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from training_example import Trained, tiny_config

from churn_udf.bundle_store import Bundle, bundle_directory, open_bundle
from churn_udf.contracts.bundle import PRECISION_FILE
from churn_udf.model.precision import (
    BF16,
    FP32,
    INT8,
    PRECISIONS,
    Precision,
    read_precision,
    usable_mode,
)
from churn_udf.scoring import Scorer
from trainer.config import PrecisionConfig
from trainer.errors import ConfigError
from trainer.pipeline import package_step, train_snapshot
from trainer.release.package import packaged_bundle_id
from trainer.release.parity import MAX_DIFFERENCE, allowed_difference
from trainer.release.precision import Drift
from trainer.runs import Run, open_run

WIDE = {
    "max_probability_change": 1.0,
    "max_auroc_change": 1.0,
    "max_tier_flips": 1.0,
}
NARROW = dict.fromkeys(WIDE, 0.0)


def run_with(trained: Trained, **precision: Any) -> Run:
    run = open_run(trained.workspace.runs_dir, None)
    settings = dataclasses.replace(run.config.precision, **{"modes": PRECISIONS, **precision})
    return dataclasses.replace(run, config=dataclasses.replace(run.config, precision=settings))


def package(trained: Trained, **precision: Any) -> tuple[Bundle, Precision]:
    bundle = package_step(run_with(trained, **precision), trained.snapshot, trained.workspace)
    return bundle, read_precision(bundle.directory)


def usable_here(*modes: str) -> list[str]:
    return [mode for mode in modes if usable_mode(mode, torch.device("cpu"))[1] is None]


def test_the_fastest_mode_within_the_bounds_ships(trained: Trained) -> None:
    bundle, precision = package(trained, **WIDE)
    assert precision.mode == [*usable_here(INT8, BF16), FP32][0]
    assert precision.fallback == [*usable_here(BF16), FP32][0]
    assert bool(precision.activation_ranges) == (precision.mode == INT8)
    assert precision.check["bounds"]["max_tier_flips"] == 1.0
    assert 0 < precision.check["rows"] <= precision.check["bounds"]["max_rows"]
    assert f"computes in {precision.mode} where" in (bundle.directory / "MODEL_CARD.md").read_text()


def test_a_mode_that_moves_a_score_at_all_breaks_bounds_of_zero(trained: Trained) -> None:
    bundle, precision = package(trained, **NARROW)
    assert (precision.mode, precision.fallback, precision.activation_ranges) == (FP32, FP32, {})
    for mode in usable_here(INT8, BF16):
        found = precision.check["modes"][mode]
        assert found["is_within"] is False
        assert found["max_probability_change"] > 0.0
    scorers = [Scorer.load(bundle, device="cpu", precision=mode) for mode in ("auto", FP32)]
    rows = np.arange(20)
    texts, features = trained.snapshot.texts(rows), trained.snapshot.feature_matrix[rows]
    scores = [scorer.score_arrays(*texts, features).probabilities for scorer in scorers]
    np.testing.assert_array_equal(*scores)


def test_only_named_modes_are_tried(trained: Trained) -> None:
    _, precision = package(trained, **WIDE, modes=(FP32,))
    assert precision.mode == FP32
    for mode in (INT8, BF16):
        assert precision.check["modes"][mode]["reason"] == "not among precision.modes"


def test_what_a_fast_mode_changes_is_what_was_recorded(trained: Trained) -> None:
    bundle, precision = package(trained, **WIDE)
    if precision.mode == FP32:
        pytest.skip("this machine has no faster mode")
    snapshot = trained.snapshot
    splits_rows = np.flatnonzero(snapshot.cutoff_dates == snapshot.cutoff_dates.max())
    texts, features = snapshot.texts(splits_rows), snapshot.feature_matrix[splits_rows]
    exact, fast = (
        Scorer.load(bundle, device="cpu", precision=mode).score_arrays(*texts, features)
        for mode in (FP32, "auto")
    )
    change = np.abs(exact.probabilities - fast.probabilities).max()
    recorded = precision.check["modes"][precision.mode]["max_probability_change"]
    assert 0.0 < change <= 3 * recorded


def test_no_encoder_no_precision(trained: Trained) -> None:
    config = tiny_config(ensemble__kinds="gbm", ensemble__members="bert,gbm")
    outcome = train_snapshot(trained.snapshot, config, trained.workspace)
    directory = bundle_directory(trained.workspace.models_dir, outcome.bundle_id)
    assert not (directory / PRECISION_FILE).exists()
    assert "members that read features alone" in (directory / "MODEL_CARD.md").read_text()
    assert read_precision(directory) == Precision()


def test_other_bounds_need_another_packaging(trained: Trained) -> None:
    models_dir = trained.workspace.models_dir
    run = open_run(trained.workspace.runs_dir, None)
    assert packaged_bundle_id(run, models_dir) == trained.outcome.bundle_id
    assert packaged_bundle_id(run_with(trained, **NARROW), models_dir) is None


def test_a_changed_precision_is_found_out(trained: Trained) -> None:
    from churn_udf.errors import BundleIntegrityError

    bundle, _ = package(trained)
    file = bundle.directory / PRECISION_FILE
    file.write_text(file.read_text().replace('"rows"', '"row"'))
    with pytest.raises(BundleIntegrityError, match=r"precision\.json"):
        open_bundle(bundle.directory)


def test_doors_may_differ_by_rounding_or_by_the_stated_bound() -> None:
    check = {"bounds": {"max_probability_change": 0.004}}
    assert allowed_difference(Precision(check=check)) == MAX_DIFFERENCE
    assert allowed_difference(Precision(mode=BF16, check=check)) == 0.004


@pytest.mark.parametrize(
    ("drift", "is_within"),
    [
        pytest.param((0.01, 0.001, 0.005), True, id="at-the-bounds"),
        pytest.param((0.0101, 0.0, 0.0), False, id="probability"),
        pytest.param((0.0, -0.0011, 0.0), False, id="auroc-down"),
        pytest.param((0.0, 0.0011, 0.0), False, id="auroc-up"),
        pytest.param((0.0, 0.0, 0.0051), False, id="tiers"),
        pytest.param((0.0, float("nan"), 0.0), False, id="auroc-unknown"),
    ],
)
def test_every_bound_counts(drift: tuple[float, float, float], is_within: bool) -> None:
    names = ("max_probability_change", "auroc_change", "tier_flips")
    found = Drift(**dict(zip(names, drift, strict=True)))
    assert found.is_within(PrecisionConfig()) is is_within


def test_bounds_are_shares() -> None:
    with pytest.raises(ConfigError, match=r"precision\.max_tier_flips is 2"):
        tiny_config(precision__max_tier_flips=2)
    with pytest.raises(ConfigError, match=r"precision\.modes is \['fp8'\]; allowed: .*int8"):
        tiny_config(precision__modes="fp8")
