"""Tiers and flags: bounds, round trip, refusals."""

import numpy as np
import pytest
from factories import THRESHOLDS

from churn_udf.errors import BundleIntegrityError
from churn_udf.thresholds import Thresholds, Tier


@pytest.mark.parametrize(
    ("probability", "tier", "is_flagged"),
    [
        (0.0, "low", False),
        (np.nextafter(0.4, 0), "low", False),
        (0.4, "medium", False),
        (np.nextafter(0.5, 0), "medium", False),
        (0.5, "medium", True),
        (np.nextafter(0.6, 0), "medium", True),
        (0.6, "high", True),
        (1.0, "high", True),
    ],
)
def test_a_probability_on_a_bound_belongs_above_it(probability, tier, is_flagged):
    assert THRESHOLDS.tiers_of(np.array([probability])).to_pylist() == [tier]
    assert THRESHOLDS.flags_of(np.array([probability])).tolist() == [is_flagged]


def test_round_trip():
    assert Thresholds.from_json(THRESHOLDS.to_json()) == THRESHOLDS


def tiers(*bounds: float) -> tuple[Tier, ...]:
    return tuple(Tier(name=str(i), min_probability=bound) for i, bound in enumerate(bounds))


@pytest.mark.parametrize(
    ("flag_threshold", "bands"),
    [
        (1.5, tiers(0.5, 0.0)),
        (-0.1, tiers(0.5, 0.0)),
        (float("nan"), tiers(0.5, 0.0)),
        (0.5, ()),
        (0.5, tiers(0.5, 0.1)),
        (0.5, tiers(0.1, 0.5, 0.0)),
        (0.5, tiers(0.5, 0.5, 0.0)),
        (0.5, (Tier(name="a", min_probability=0.5), Tier(name="a", min_probability=0.0))),
    ],
    ids=["above 1", "below 0", "nan", "no tier", "gap", "unsorted", "equal", "same name"],
)
def test_refuses(flag_threshold, bands):
    with pytest.raises(BundleIntegrityError):
        Thresholds(flag_threshold=flag_threshold, tiers=bands)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"flag_threshold": "x", "tiers": []}'])
def test_refuses_other_files(text):
    with pytest.raises(BundleIntegrityError):
        Thresholds.from_json(text)
