"""BG/NBD members: scores, reasons, and the file that they travel in."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from factories import bg_nbd_member

from churn_udf.errors import BundleIntegrityError
from churn_udf.model.bg_nbd import (
    CHANCE,
    SCORES,
    BgNbdColumns,
    BgNbdModel,
    purchase_chances,
)

NAMES = ("amount_sum", "days_since_active", "active_day_count_365d", "gap_mean_days")
FILE = "bundle/bg_nbd.json"
MODEL = bg_nbd_member(BgNbdColumns().among(NAMES), typical=(6.0, 10.0, 12.0))
MODELS = {
    "expected": MODEL,
    "expected, gap": dataclasses.replace(MODEL, gap_days=7.0),
    "chance": dataclasses.replace(MODEL, score=CHANCE),
    "chance, gap": dataclasses.replace(MODEL, score=CHANCE, gap_days=7.0),
    "rate": dataclasses.replace(MODEL, parameters=None),
}


def features(num_rows: int = 200) -> np.ndarray:
    generator = np.random.default_rng(1)
    rows = np.column_stack(
        [
            generator.normal(0, 1, num_rows),
            generator.integers(0, 200, num_rows),
            generator.integers(1, 30, num_rows),
            generator.uniform(1, 40, num_rows),
        ]
    )
    rows[rows[:, 2] == 1, 3] = np.nan
    return rows


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_file_gives_the_same_scores(model):
    read = BgNbdModel.from_json(model.to_json(), file=FILE)
    np.testing.assert_array_equal(read.logits(features(), NAMES), model.logits(features(), NAMES))
    np.testing.assert_array_equal(
        read.contributions(features(), NAMES), model.contributions(features(), NAMES)
    )


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_reasons_add_up_to_the_distance_from_a_typical_customer(model):
    rows = features()
    typical = np.array([[0.0, 10.0, 6.0, 12.0]])
    effects = model.contributions(rows, NAMES)
    distance = model.logits(rows, NAMES) - model.logits(typical, NAMES)
    np.testing.assert_allclose(effects.sum(axis=1), distance, atol=1e-9)
    assert (effects[:, 0] == 0.0).all()
    np.testing.assert_allclose(model.contributions(typical, NAMES), 0.0, atol=1e-12)


def test_long_silence_raises_the_risk_and_many_days_lower_it():
    silent, busy = np.array([[0.0, 60.0, 6.0, 12.0]]), np.array([[0.0, 10.0, 25.0, 12.0]])
    assert MODEL.contributions(silent, NAMES)[0, 1] > 0.1
    assert MODEL.contributions(busy, NAMES)[0, 2] < -0.1


def test_chance_of_none_is_a_log_odds():
    rows = features()
    logits = MODELS["chance"].logits(rows, NAMES)
    x, gaps = rows[:, 2] - 1, np.nan_to_num(rows[:, 3])
    t_x = np.minimum(x * gaps, 365.0 - rows[:, 1])
    chances = purchase_chances(MODEL.parameters, x, t_x, np.maximum(t_x + rows[:, 1], 1.0), 28.0)
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(logits)), np.maximum(chances, 1e-12), rtol=1e-9)


@pytest.mark.parametrize("score", SCORES)
def test_a_few_customers_more_or_less_and_the_order_of_columns_change_nothing(score):
    model, rows = dataclasses.replace(MODEL, score=score), features()
    order = [3, 1, 0, 2]
    turned = model.logits(rows[:, order], [NAMES[place] for place in order])
    np.testing.assert_array_equal(turned, model.logits(rows, NAMES))
    np.testing.assert_allclose(model.logits(rows[:3], NAMES), turned[:3], rtol=1e-12)
    assert model.logits(rows[:0], NAMES).shape == (0,)
    assert model.contributions(rows[:0], NAMES).shape == (0, len(NAMES))


def test_columns_that_are_not_there_are_not_read():
    without_gap = BgNbdColumns().among((*NAMES[:3], "tenure_days"))
    assert without_gap.used == ("active_day_count_365d", "days_since_active", "tenure_days")
    assert BgNbdColumns().among(NAMES[:3]).used == ("active_day_count_365d", "days_since_active")


DAMAGES = {
    "not JSON": lambda _: "{",
    "no object": lambda _: "[]",
    "no parameters": lambda d: json.dumps({k: v for k, v in d.items() if k != "parameters"}),
    "unknown column": lambda d: json.dumps(d | {"source": {"colour": "red"}}),
    "unknown score": lambda d: json.dumps(d | {"score": "luck"}),
    "negative alpha": lambda d: json.dumps(d | {"parameters": d["parameters"] | {"alpha": -1}}),
    "parameter missing": lambda d: json.dumps(d | {"parameters": {"r": 1.0}}),
    "no horizon": lambda d: json.dumps(d | {"horizon_days": 0}),
    "negative gap": lambda d: json.dumps(d | {"gap_days": -1}),
    "no frequency": lambda d: json.dumps(d | {"source": d["source"] | {"frequency": None}}),
    "a number for a column": lambda d: json.dumps(d | {"source": d["source"] | {"recency": 7}}),
    "a list for a column": lambda d: json.dumps(d | {"source": d["source"] | {"recency": ["a"]}}),
    "a column twice": lambda d: json.dumps(
        d | {"source": d["source"] | {"recency": d["source"]["frequency"]}}
    ),
    "a typical value without end": lambda d: json.dumps(d | {"typical": [6.0, 1e999, 12.0]}),
    "a column without its typical value": lambda d: json.dumps(d | {"typical": [1.0]}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_named(damage):
    text = damage(json.loads(MODEL.to_json()))
    with pytest.raises(BundleIntegrityError, match=FILE):
        BgNbdModel.from_json(text, file=FILE)
