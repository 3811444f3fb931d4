"""Where base rates are expected: against root finding, and on shifts that are known."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy.optimize import brentq

from churn_udf.calibration import Calibrator, sigmoid
from churn_udf.errors import BundleIntegrityError
from trainer.evaluate import fit_calibrator
from trainer.evaluate.base_rates import (
    base_rate_offset,
    best_shift,
    em_shift,
    shifted_log_loss,
)

IDENTITY = Calibrator(kind="identity")


def rows(num_rows: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that follow them with another intercept."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-0.5, 1.5, num_rows)
    labels = (generator.random(num_rows) < sigmoid(logits + shift)).astype(np.float64)
    return logits, labels


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0, 15.0])
@pytest.mark.parametrize("centre", [-6.0, 0.0, 6.0])
def test_best_shift_is_the_root_of_the_mean_error(scale: float, centre: float) -> None:
    generator = np.random.default_rng(int(scale * 10))
    logits = generator.normal(centre, scale, 200)
    labels = (generator.random(200) < 0.3).astype(np.float64)
    expected = brentq(lambda shift: np.mean(sigmoid(logits + shift) - labels), -100, 100)
    assert best_shift(logits, labels) == pytest.approx(expected, abs=1e-6)


def test_equal_logits_move_to_the_base_rate() -> None:
    labels = np.array([1.0, 0.0, 0.0, 0.0])
    assert best_shift(np.full(4, 2.0), labels) == pytest.approx(np.log(1 / 3) - 2.0)
    entropy = -0.25 * np.log(0.25) - 0.75 * np.log(0.75)
    assert shifted_log_loss(np.full(4, 2.0), labels) == pytest.approx(entropy)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_gives_a_bounded_shift(label: float) -> None:
    shift = best_shift(np.linspace(-1, 1, 9), np.full(9, label))
    assert 5.0 < abs(shift) <= 50.0
    assert np.sign(shift) == 2 * label - 1


def test_a_moved_base_rate_does_not_change_the_loss() -> None:
    logits, labels = rows(500, 1)
    loss = shifted_log_loss(logits, labels)
    assert shifted_log_loss(logits + 3.0, labels) == pytest.approx(loss, abs=1e-9)
    assert loss < shifted_log_loss(0.2 * logits, labels)


@pytest.mark.parametrize("target", [0.15, 0.55])
def test_em_finds_a_pure_label_shift(target: float) -> None:
    generator = np.random.default_rng(4)
    base_rate, num_rows = 0.3, 200_000
    churned = generator.random(num_rows) < target
    signal = generator.normal(np.where(churned, 1.0, -1.0), 1.0)  # log likelihood ratio: 2 x
    probabilities = sigmoid(2.0 * signal + np.log(base_rate / (1 - base_rate)))
    expected = np.log(target / (1 - target)) - np.log(base_rate / (1 - base_rate))
    assert em_shift(probabilities, base_rate) == pytest.approx(expected, abs=0.03)


def test_em_stays_where_nothing_moved() -> None:
    logits, _ = rows(50_000, 5)
    probabilities = sigmoid(logits)
    assert abs(em_shift(probabilities, float(probabilities.mean()))) < 1e-6


def test_em_is_its_own_fixed_point() -> None:
    logits, _ = rows(5_000, 6)
    start = 0.6
    shift = em_shift(sigmoid(logits), start)
    rate = float(sigmoid(np.log(start / (1 - start)) + shift))
    assert float(sigmoid(logits + shift).mean()) == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("kind", ["identity", "temperature", "platt", "beta", "isotonic"])
@pytest.mark.parametrize("shift", [-0.8, 0.0, 0.8])
def test_shrunk_stays_halfway_whatever_calibrates(kind: str, shift: float) -> None:
    """Raw logits know the old base rate; a temperature cannot follow the new one, Platt can."""
    logits, labels = rows(4_000, 7, shift)
    calibrator, _ = fit_calibrator(logits, labels, kinds=(kind,))
    offset = base_rate_offset("shrunk", calibrator, logits, labels, np.empty(0))
    found = dataclasses.replace(calibrator, offset=offset).apply(logits).mean()
    halfway = sigmoid(logits + 0.5 * best_shift(logits, labels)).mean()
    assert found == pytest.approx(halfway, abs=0.025)


def test_only_em_reads_the_scores_to_come() -> None:
    logits, labels = rows(2_000, 8)
    upcoming = logits + 1.0
    offsets = {
        kind: [
            base_rate_offset(kind, IDENTITY, logits, labels, values)
            for values in (upcoming, np.empty(0))
        ]
        for kind in ("newest", "shrunk", "em")
    }
    newest = pytest.approx(best_shift(logits, labels), abs=1e-6)  # identity cannot move it
    assert offsets["newest"] == [newest, newest]
    assert offsets["shrunk"][0] == offsets["shrunk"][1] != 0.0
    assert offsets["em"][0] > 0.3
    assert offsets["em"][1] == newest


CALIBRATORS = [
    Calibrator(kind="identity", offset=0.4),
    Calibrator(kind="platt", params={"a": [0.7], "b": [-0.3]}, offset=-1.3),
    Calibrator(kind="isotonic", params={"x": [-2.0, 2.0], "y": [0.0, 0.9]}, offset=2.0),
]


@pytest.mark.parametrize("calibrator", CALIBRATORS, ids=lambda item: item.kind)
def test_offset_moves_the_log_odds_and_travels(calibrator: Calibrator) -> None:
    logits = np.linspace(-1.9, 1.9, 21)
    plain = Calibrator(kind=calibrator.kind, params=calibrator.params).apply(logits)
    moved = calibrator.apply(logits)
    change = np.log(moved / (1 - moved)) - np.log(plain / (1 - plain))
    np.testing.assert_allclose(change, calibrator.offset, atol=1e-9)
    again = Calibrator.from_json(calibrator.to_json())
    assert again == calibrator
    np.testing.assert_array_equal(again.apply(logits), moved)


def test_a_calibrator_of_before_has_no_offset() -> None:
    assert Calibrator.from_json('{"kind": "identity", "params": {}}') == IDENTITY


@pytest.mark.parametrize("offset", ["NaN", "Infinity", '"x"', "null", "[]", "1" + "0" * 400])
def test_odd_offsets_are_refused(offset: str) -> None:
    with pytest.raises(BundleIntegrityError, match="calibra"):
        Calibrator.from_json(f'{{"kind": "identity", "params": {{}}, "offset": {offset}}}')


@pytest.mark.parametrize("document", [[], None, 7, "text", {"kind": "platt", "params": None}])
def test_other_documents_are_refused(document: object) -> None:
    with pytest.raises(BundleIntegrityError, match="damaged"):
        Calibrator.from_json(json.dumps(document))
