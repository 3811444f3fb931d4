"""Fitting calibrators: each distortion is undone, small data is handled, users stay together."""

import numpy as np
import pytest

from churn_udf.calibration import Calibrator, sigmoid
from trainer.errors import ConfigError
from trainer.evaluate.calibration import CALIBRATION_KINDS, fit_calibrator
from trainer.evaluate.linear import fit_logistic


def draw(num_rows, seed=0, slope=1.0, shift=0.0):
    """True logits, and the distorted ones that a model gave."""
    rng = np.random.default_rng(seed)
    true_logits = 1.5 * rng.normal(size=num_rows) - 0.5
    labels = (rng.random(num_rows) < sigmoid(true_logits)).astype(int)
    return (true_logits - shift) / slope, labels, true_logits


def log_loss(labels, probabilities):
    return -np.mean(np.log(np.where(labels == 1, probabilities, 1 - probabilities)))


@pytest.mark.parametrize(
    ("slope", "shift", "kind"),
    [(1.0, 0.0, "identity"), (0.3, 0.0, "temperature"), (0.4, 1.2, "platt")],
    ids=["right", "overconfident", "shifted"],
)
def test_simplest_sufficient_kind_wins_and_undoes_the_distortion(slope, shift, kind):
    logits, labels, true_logits = draw(20_000, slope=slope, shift=shift)
    calibrator, table = fit_calibrator(logits, labels)
    assert calibrator.kind == table["chosen"] == kind
    assert np.abs(calibrator.apply(logits) - sigmoid(true_logits)).max() < 0.05


def test_platt_finds_the_coefficients():
    logits, labels, _ = draw(50_000, slope=0.5, shift=0.7)
    calibrator, _ = fit_calibrator(logits, labels, kinds=["platt"])
    assert calibrator.params["a"][0] == pytest.approx(0.5, abs=0.03)
    assert calibrator.params["b"][0] == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("kind", ["beta", "isotonic"])
def test_flexible_kinds_undo_a_bent_scale(kind):
    rng = np.random.default_rng(1)
    logits = 1.5 * rng.normal(size=30_000)
    bent = Calibrator(kind="beta", params={"a": [2.0], "b": [0.3], "c": [0.5]})
    chance = bent.apply(logits)
    labels = (rng.random(30_000) < chance).astype(int)
    calibrator, table = fit_calibrator(logits, labels, kinds=["identity", kind])
    assert calibrator.kind == kind
    losses = table["cross_fitted_log_loss"]
    assert losses[kind] < losses["identity"] - 0.01
    assert np.abs(calibrator.apply(logits) - chance).mean() < 0.02


@pytest.mark.parametrize("kind", CALIBRATION_KINDS)
@pytest.mark.parametrize("direction", [1.0, -1.0], ids=["informative", "reversed"])
def test_every_map_is_increasing(kind, direction):
    logits, labels, _ = draw(3_000)
    calibrator, _ = fit_calibrator(direction * logits, labels, kinds=[kind])
    grid = calibrator.apply(np.linspace(-8, 8, 500))
    assert np.all(np.diff(grid) >= 0.0)
    assert np.all((grid > 0.0) & (grid < 1.0))


def test_chosen_kind_has_the_lowest_cross_fitted_loss_and_survives_json():
    logits, labels, _ = draw(4_000, slope=0.4, shift=1.0)
    calibrator, table = fit_calibrator(logits, labels)
    losses = table["cross_fitted_log_loss"]
    assert list(losses) == list(CALIBRATION_KINDS)
    assert losses[table["chosen"]] <= min(losses.values()) + 1e-4
    again = Calibrator.from_json(calibrator.to_json())
    assert np.array_equal(again.apply(logits), calibrator.apply(logits))


def test_isotonic_knots_are_what_scikit_learn_pools():
    isotonic = pytest.importorskip("sklearn.isotonic")
    logits, labels, _ = draw(2_000, seed=3)
    calibrator, _ = fit_calibrator(logits, labels, kinds=["isotonic"])
    fitted = isotonic.IsotonicRegression().fit(logits, labels)
    num_blocks = np.unique(fitted.predict(logits)).size
    assert len(calibrator.params["x"]) == num_blocks
    assert log_loss(labels, calibrator.apply(logits)) < log_loss(labels, sigmoid(logits)) + 0.02


@pytest.mark.parametrize("num_rows", [20, 199], ids=["20", "199"])
def test_few_rows_try_simple_kinds_only(num_rows):
    logits, labels, _ = draw(num_rows, slope=0.2)
    calibrator, table = fit_calibrator(logits, labels)
    assert calibrator.kind in ("identity", "temperature")
    assert "few rows" in table["reason"]
    assert table["cross_fitted_log_loss"]["platt"] is None


def test_200_rows_try_more_but_not_isotonic():
    logits, labels, _ = draw(200)
    _, table = fit_calibrator(logits, labels)
    assert table["cross_fitted_log_loss"]["platt"] is not None
    assert table["cross_fitted_log_loss"]["isotonic"] is None
    assert "isotonic left out" in table["reason"]


def test_few_rows_keep_the_kind_asked_for():
    logits, labels, _ = draw(60)
    calibrator, _ = fit_calibrator(logits + 5.0, labels, kinds=["platt"])
    assert calibrator.kind == "platt"
    assert calibrator.apply(logits + 5.0).mean() == pytest.approx(labels.mean(), abs=0.02)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_stays_at_the_identity(label):
    calibrator, table = fit_calibrator(np.linspace(-2, 2, 500), np.full(500, label))
    assert calibrator.kind == "identity"
    assert "one class" in table["reason"]


def test_one_user_cannot_be_cross_fitted():
    logits, labels, _ = draw(400)
    calibrator, table = fit_calibrator(logits, labels, groups=["same"] * 400)
    assert calibrator.kind == "identity"
    assert "only 1 users" in table["reason"]


def test_users_are_not_split_between_folds():
    # A user's rows share an odd logit and label: learning them by heart must not pay.
    rng = np.random.default_rng(0)
    logits = np.repeat(rng.normal(size=200), 10)
    labels = np.repeat((rng.random(200) < 0.5).astype(int), 10)
    users = np.repeat(np.arange(200), 10)
    _, together = fit_calibrator(logits, labels, users, kinds=["isotonic"])
    _, apart = fit_calibrator(logits, labels, None, kinds=["isotonic"])
    honest = together["cross_fitted_log_loss"]["isotonic"]
    leaking = apart["cross_fitted_log_loss"]["isotonic"]
    assert leaking < honest


def test_perfectly_separated_rows_give_finite_parameters():
    logits = np.concatenate([np.full(300, -1.0), np.full(300, 1.0)])
    labels = (logits > 0).astype(int)
    for kind in CALIBRATION_KINDS:
        calibrator, _ = fit_calibrator(logits, labels, kinds=[kind])
        assert np.all(np.isfinite(calibrator.apply(logits)))


def test_same_input_same_calibrator():
    logits, labels, _ = draw(2_000, slope=0.4)
    assert fit_calibrator(logits, labels) == fit_calibrator(logits, labels)


@pytest.mark.parametrize("kinds", [[], ["sigmoid"]], ids=["none", "unknown"])
def test_bad_kinds_are_refused(kinds):
    with pytest.raises(ConfigError, match="identity, temperature, platt, beta, isotonic"):
        fit_calibrator([0.0, 1.0], [0, 1], kinds=kinds)


def test_non_finite_logits_are_refused():
    with pytest.raises(ValueError, match="logits must be finite"):
        fit_calibrator([0.0, np.inf], [0, 1])


def test_logistic_equals_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    design = rng.normal(size=(500, 3))
    labels = (rng.random(500) < sigmoid(design @ np.array([1.0, -2.0, 0.5]))).astype(float)
    expected = linear_model.LogisticRegression(C=0.5, fit_intercept=False, tol=1e-10).fit(
        design, labels
    )
    found = fit_logistic(design, labels, np.full(3, 2.0))
    assert found == pytest.approx(expected.coef_[0], abs=1e-5)
