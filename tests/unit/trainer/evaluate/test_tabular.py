"""Recipes: chosen once, fitted again on other rows, the same text from the same seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from churn_udf.calibration import sigmoid
from churn_udf.model.linear import LinearModel
from churn_udf.model.trees import TreeModel
from trainer.evaluate import fit_baselines
from trainer.evaluate.arrays import FloatArray
from trainer.evaluate.baselines import RfmColumns
from trainer.evaluate.tabular import BaselineRows, Recipe, choose_lightgbm, choose_linear

NAMES = ("days", "count", "amount", "noise")
RFM = RfmColumns(recency="days", frequency="count", monetary="amount")
KINDS = ("lightgbm", "linear")


def rows(num_rows: int, seed: int, effect: float = 1.5) -> BaselineRows:
    """Churn follows the first column, in the direction of `effect`."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=(num_rows, len(NAMES)))
    labels = (generator.random(num_rows) < sigmoid(effect * features[:, 0])).astype(float)
    features[generator.random(features.shape) < 0.1] = np.nan
    return BaselineRows(features_NF=features, labels_N=labels, user_ids_N=np.arange(num_rows))


def choose(kind: str, train: BaselineRows, valid: BaselineRows, seed: int = 0) -> Recipe:
    if kind == "lightgbm":
        return choose_lightgbm(train, valid, NAMES, seed)
    return choose_linear(train, valid, range(len(NAMES)), NAMES, seed)


def slope(logits: FloatArray, features: FloatArray) -> float:
    return float(np.corrcoef(logits, np.nan_to_num(features[:, 0]))[0, 1])


def test_enough_trees_even_where_validation_wants_none() -> None:
    train, valid = rows(400, 1), rows(300, 2, effect=-1.5)  # the world has turned
    fitted = choose("lightgbm", train, valid).fit(train)
    assert fitted.facts["rounds"] == 100
    assert fitted.model_text is not None
    assert fitted.model_text.count("\nTree=") == 100


@pytest.mark.parametrize("kind", KINDS)
def test_a_refit_learns_from_the_new_rows(kind: str) -> None:
    train, valid, turned = rows(400, 1), rows(300, 2), rows(900, 3, effect=-1.5)
    recipe = choose(kind, train, valid)
    probe = rows(300, 4).features_NF
    assert slope((recipe.chosen or recipe.fit(train)).logits_of(probe), probe) > 0.5
    again = recipe.fit(turned)
    assert slope(again.logits_of(probe), probe) < -0.5
    assert again.facts["num_rows"] == 900


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_text_and_other_rows_another(kind: str) -> None:
    train, valid = rows(300, 1), rows(200, 2)
    first, second = (choose(kind, train, valid).fit(train).model_text for _ in range(2))
    assert first == second
    recipe = choose(kind, train, valid)
    assert recipe.fit(rows(300, 8)).model_text != first
    assert recipe.fit(train).model_text == first


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_scores_as_the_fit_does(kind: str) -> None:
    train, valid = rows(300, 1), rows(200, 2)
    fitted = choose(kind, train, valid).fit(train)
    probe = rows(100, 5).features_NF
    probe[0, 0] = np.inf
    assert fitted.model_text is not None
    if kind == "lightgbm":
        found = TreeModel(fitted.model_text, NAMES, file="x").logits(probe)
    else:
        found = LinearModel.from_json(fitted.model_text, file="x").logits(probe, NAMES)
    np.testing.assert_array_equal(found, fitted.logits_of(probe))


def test_few_rows_and_odd_columns_make_a_model() -> None:
    train, valid = rows(40, 1), rows(30, 2)
    for odd in (train, valid):
        odd.features_NF[:, 1] = 7.0
        odd.features_NF[:, 2] = np.nan
        odd.features_NF[::2, 3] = np.inf
    for kind in KINDS:
        fitted = choose(kind, train, valid).fit(train)
        assert np.isfinite(fitted.logits_of(valid.features_NF)).all()


def test_test_labels_never_matter_and_refit_rows_do() -> None:
    train, valid, test, newer = rows(300, 1), rows(200, 2), rows(200, 3), rows(500, 4)
    flipped = dataclasses.replace(test, labels_N=1.0 - np.asarray(test.labels_N))
    wanted = ("base_rate", "recency", "rfm_logistic", "logistic", "lightgbm")

    def fit(tested: BaselineRows, refit: BaselineRows | None = newer) -> dict[str, FloatArray]:
        found = fit_baselines(
            train, valid, tested, NAMES, RFM, 0, wanted, refit=refit, base_rate="shrunk"
        )
        assert list(found) == list(wanted)
        return {
            f"{name}-{split}": getattr(result, f"{split}_probabilities")
            for name, result in found.items()
            for split in ("valid", "test")
        }

    plain, other, old = fit(test), fit(flipped), fit(test, None)
    for name, values in plain.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)
        if name.endswith("valid"):  # validation is judged by the fit that did not know it
            np.testing.assert_array_equal(values, old[name], err_msg=name)
    for name in ("rfm_logistic", "logistic", "lightgbm"):
        assert np.abs(plain[f"{name}-test"] - old[f"{name}-test"]).max() > 1e-3
