"""Linear members: what travels as JSON is what was fitted, and nothing else is accepted."""

import json

import numpy as np
import pytest

from churn_udf.errors import BundleIntegrityError
from churn_udf.model.linear import CLIP, LinearInputs, LinearModel

NAMES = ("amount", "other", "days", "constant")


@pytest.fixture
def model() -> LinearModel:
    """Reads three of four columns: one logged, one flagged, one constant."""
    return LinearModel(
        columns=("days", "amount", "constant"),
        inputs=LinearInputs(
            is_logged_F=np.array([False, True, False]),
            mean_F=np.array([1 / 3, np.log1p(70.0), 4.0]),
            inverse_scale_F=np.array([np.pi, 0.7, 0.0]),
            is_flagged_F=np.array([True, False, False]),
        ),
        coefficients_D=np.array([-0.3, 1 / 7, -2 / 3, 5.0, 0.9]),
    )


@pytest.fixture
def rows_BF() -> np.ndarray:
    rows = np.random.default_rng(0).normal(3.0, 40.0, (50, len(NAMES)))
    rows[np.random.default_rng(1).random(rows.shape) < 0.2] = np.nan
    return rows


def test_json_keeps_every_bit(model, rows_BF):
    again = LinearModel.from_json(model.to_json(), file="x.json")
    np.testing.assert_array_equal(again.logits(rows_BF, NAMES), model.logits(rows_BF, NAMES))
    assert again.to_json() == model.to_json()


def test_logits_by_hand(model):
    row = np.array([[-20.0, 99.0, 0.5, 8.0]])
    expected = (
        -0.3
        + (0.5 - 1 / 3) * np.pi / 7
        - 2 / 3 * np.clip((-np.log1p(20.0) - np.log1p(70.0)) * 0.7, -CLIP, CLIP)
    )
    assert model.logits(row, NAMES)[0] == pytest.approx(expected, abs=1e-12)
    unknown = np.array([[-20.0, 99.0, np.nan, 8.0]])
    change = model.logits(unknown, NAMES)[0] - expected
    assert change == pytest.approx(0.9 - (0.5 - 1 / 3) * np.pi / 7, abs=1e-12)


def test_contributions_add_up_to_the_distance_from_the_mean_row(model, rows_BF):
    mean_row = np.array([[70.0, 0.0, 1 / 3, 4.0]])
    effects = model.contributions(rows_BF, NAMES)
    distance = model.logits(rows_BF, NAMES) - model.logits(mean_row, NAMES)
    np.testing.assert_allclose(effects.sum(axis=1), distance, atol=1e-12)
    assert not effects[:, NAMES.index("other")].any()
    assert not effects[:, NAMES.index("constant")].any()
    is_unknown = np.isnan(rows_BF[:, NAMES.index("days")])
    np.testing.assert_array_equal(effects[is_unknown, NAMES.index("days")], 0.9)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities_are_unknown_and_the_absurd_is_clipped(model, rows_BF, value):
    odd, unknown = rows_BF.copy(), rows_BF.copy()
    odd[:, 2], unknown[:, 2] = value, np.nan
    np.testing.assert_array_equal(model.logits(odd, NAMES), model.logits(unknown, NAMES))
    absurd = np.tile(np.sign(value) * 1e300, (1, len(NAMES)))
    assert np.isfinite(model.logits(absurd, NAMES)).all()


def test_columns_are_found_by_name_wherever_they_are(model, rows_BF):
    order = [3, 1, 0, 2]
    moved = [NAMES[index] for index in order]
    np.testing.assert_array_equal(
        model.logits(rows_BF[:, order], moved), model.logits(rows_BF, NAMES)
    )
    np.testing.assert_array_equal(
        model.contributions(rows_BF[:, order], moved), model.contributions(rows_BF, NAMES)[:, order]
    )


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"columns": None}, id="no-list"),
        pytest.param({"columns": ["days", "amount"]}, id="column-missing"),
        pytest.param({"columns": ["days", "days", "constant"]}, id="column-twice"),
        pytest.param({"mean": [0.0, 1.0]}, id="mean-short"),
        pytest.param({"mean": [0.0, 1.0, "x"]}, id="mean-text"),
        pytest.param({"mean": [0.0, 1.0, float("nan")]}, id="mean-nan"),
        pytest.param({"mean": [0.0, 1.0, 10**400]}, id="mean-too-large"),
        pytest.param({"inverse_scale": [0.0, 1.0, float("inf")]}, id="scale-infinite"),
        pytest.param({"inverse_scale": [[0.0], [1.0], [2.0]]}, id="scale-nested"),
        pytest.param({"is_flagged": [True, True, False]}, id="flag-without-coefficient"),
        pytest.param({"is_logged": [True]}, id="logged-short"),
        pytest.param({"coefficients": [0.0] * 4}, id="coefficient-missing"),
        pytest.param({"coefficients": [0.0] * 4 + [float("inf")]}, id="coefficient-infinite"),
        pytest.param({"coefficients": 1.0}, id="coefficient-alone"),
    ],
)
def test_damaged_content_is_refused_by_file(model, change):
    document = {**json.loads(model.to_json()), **change}
    with pytest.raises(BundleIntegrityError, match=r"logistic\.json"):
        LinearModel.from_json(json.dumps(document), file="logistic.json")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "{}", '"text"'])
def test_other_text_is_refused(text):
    with pytest.raises(BundleIntegrityError, match=r"logistic\.json is damaged"):
        LinearModel.from_json(text, file="logistic.json")
