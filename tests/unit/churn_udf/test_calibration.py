"""Applying calibrators."""

import numpy as np
import pytest

from churn_udf.calibration import PROBABILITY_FLOOR, Calibrator, sigmoid
from churn_udf.errors import BundleIntegrityError

CALIBRATORS = [
    Calibrator(kind="identity"),
    Calibrator(kind="temperature", params={"temperature": [2.0]}),
    Calibrator(kind="platt", params={"a": [0.7], "b": [-0.3]}),
    Calibrator(kind="beta", params={"a": [0.8], "b": [1.2], "c": [0.1]}),
    Calibrator(kind="isotonic", params={"x": [-2.0, 0.0, 2.0], "y": [0.1, 0.4, 0.9]}),
]
by_kind = pytest.mark.parametrize("calibrator", CALIBRATORS, ids=lambda item: item.kind)


@by_kind
def test_probabilities_are_monotone_and_inside_the_open_interval(calibrator):
    probabilities = calibrator.apply(np.array([-1e6, -40.0, -1.0, 0.0, 1.0, 40.0, 1e6]))
    assert np.all(np.diff(probabilities) >= 0)
    assert np.all((probabilities >= PROBABILITY_FLOOR) & (probabilities <= 1 - PROBABILITY_FLOOR))


@by_kind
def test_json_round_trip(calibrator):
    assert Calibrator.from_json(calibrator.to_json()) == calibrator


def test_formulas():
    logits = np.array([-1.5, 0.2, 3.0])
    p = sigmoid(logits)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-logits)), rtol=1e-14)
    np.testing.assert_allclose(CALIBRATORS[1].apply(logits), sigmoid(logits / 2))
    np.testing.assert_allclose(CALIBRATORS[2].apply(logits), sigmoid(0.7 * logits - 0.3))
    expected = sigmoid(0.8 * np.log(p) - 1.2 * np.log(1 - p) + 0.1)
    np.testing.assert_allclose(CALIBRATORS[3].apply(logits), expected, rtol=1e-12)
    np.testing.assert_allclose(CALIBRATORS[4].apply(np.array([-9.0, 1.0])), [0.1, 0.65])


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("magic", {}),
        ("platt", {"a": [1.0]}),
        ("temperature", {"temperature": [float("nan")]}),
        ("isotonic", {"x": [], "y": []}),
    ],
)
def test_bad_calibrators_are_refused(kind, params):
    with pytest.raises(BundleIntegrityError):
        Calibrator(kind=kind, params=params)
