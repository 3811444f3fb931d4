"""Effects by table are LightGBM's own TreeSHAP, for every kind of split it makes."""

import lightgbm
import numpy as np
import pytest

from churn_udf.model import tree_effects, trees
from churn_udf.model.tree_effects import TreeEffects, UnsupportedTreeError

NAMES = ["a", "b", "c", "d", "e"]


def fitted(missing: str = "NaN", **settings) -> tuple[lightgbm.Booster, np.ndarray]:
    """A booster whose trees use every feature more than once, and rows of all kinds."""
    generator = np.random.default_rng(7)
    rows = generator.normal(size=(600, len(NAMES))).round(1)
    if missing != "None":
        rows[generator.random(rows.shape) < 0.2] = np.nan if missing == "NaN" else 0.0
    signal = np.nan_to_num(rows[:, 0]) * np.nan_to_num(rows[:, 1]) + np.isnan(rows[:, 2])
    labels = (signal + generator.normal(0, 0.5, 600) > 0.3).astype(float)
    options = {"zero_as_missing": missing == "Zero", "verbosity": -1}
    data = lightgbm.Dataset(rows, labels, feature_name=NAMES, params=options)
    fixed = {"objective": "binary", "num_threads": 1, "deterministic": True, "min_data_in_leaf": 5}
    booster = lightgbm.train({**fixed, **options, **settings}, data, num_boost_round=15)
    rows[:40][generator.random((40, len(NAMES))) < 0.3] = np.nan
    rows[40:60, 1] = 0.0
    return booster, rows


def expected_of(booster: lightgbm.Booster, rows: np.ndarray) -> np.ndarray:
    return np.asarray(booster.predict(rows, pred_contrib=True))[:, :-1]


@pytest.mark.parametrize("missing", ["NaN", "None", "Zero"])
@pytest.mark.parametrize("num_leaves", [2, 8, 15])
def test_equal_to_lightgbm(missing, num_leaves):
    booster, rows = fitted(missing, num_leaves=num_leaves)
    assert f"'missing_type': '{missing}'" in str(booster.dump_model())
    found = TreeEffects(booster.dump_model()).contributions(rows)
    np.testing.assert_allclose(found, expected_of(booster, rows), atol=1e-10)
    assert np.abs(found).max() > 0.1


def test_rows_do_not_touch_each_other():
    booster, rows = fitted(num_leaves=8)
    effects = TreeEffects(booster.dump_model())
    alone = np.concatenate([effects.contributions(row[None]) for row in rows[:50]])
    np.testing.assert_array_equal(effects.contributions(rows)[:50], alone)


def test_a_tree_that_is_too_deep_is_left_to_lightgbm(monkeypatch):
    monkeypatch.setattr(tree_effects, "MOST_SPLITS", 2)
    booster, rows = fitted(num_leaves=15)
    with pytest.raises(UnsupportedTreeError, match="splits; allowed: 2"):
        TreeEffects(booster.dump_model())
    model = trees.TreeModel(str(booster.model_to_string()), NAMES, file="gbm.txt")
    np.testing.assert_array_equal(model.contributions(rows), expected_of(booster, rows))


def test_categories_are_left_to_lightgbm():
    rows = np.random.default_rng(0).integers(0, 4, (400, 1)).astype(float)
    data = lightgbm.Dataset(rows, rows[:, 0] % 2, categorical_feature=[0], params={"verbosity": -1})
    options = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_per_group": 5}
    booster = lightgbm.train(options, data, num_boost_round=2)
    with pytest.raises(UnsupportedTreeError, match="=="):
        TreeEffects(booster.dump_model())
