"""Tiers and flags: bounds, round trip, refusals."""

import dataclasses

import numpy as np
import pytest
from factories import THRESHOLDS

from churn_udf.errors import BundleIntegrityError
from churn_udf.thresholds import FeatureBands, GroupThresholds, Thresholds, Tier


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
    flags = THRESHOLDS.flags_of(np.array([probability]), np.empty((1, 0)), ())
    assert flags.tolist() == [is_flagged]


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


BANDS = FeatureBands(feature="tenure_days", bounds=(30.0, 365.0))
GROUPED = dataclasses.replace(
    THRESHOLDS,
    groups=GroupThresholds(slice="tenure", bands=BANDS, flag_thresholds=(0.2, 0.4, 0.6, 0.8)),
)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (-1.0, "under 30"),
        (np.nextafter(30.0, 0), "under 30"),
        (30.0, "30 to under 365"),
        (np.nextafter(365.0, 0), "30 to under 365"),
        (365.0, "365 and more"),
        (np.nan, "unknown"),
    ],
)
def test_a_value_on_a_bound_belongs_above_it(value, name):
    assert BANDS.names[BANDS.groups_of(np.array([value]))[0]] == name


def test_bands_without_bounds_are_everybody_and_the_unknown():
    bands = FeatureBands(feature="x", bounds=())
    assert [bands.names[group] for group in bands.groups_of(np.array([1.0, np.nan]))] == [
        "all",
        "unknown",
    ]


def test_every_group_has_its_own_flag_and_the_same_tiers():
    values = np.array([10.0, 100.0, 1000.0, np.nan])
    features = np.column_stack([np.zeros(4), values])
    names = ("other", "tenure_days")
    for probability, flags in [
        (0.2, [True, False, False, False]),
        (0.4, [True, True, False, False]),
        (0.79, [True, True, True, False]),
        (0.8, [True, True, True, True]),
    ]:
        probabilities = np.full(4, probability)
        assert GROUPED.flags_of(probabilities, features, names).tolist() == flags
        assert len(set(GROUPED.tiers_of(probabilities).to_pylist())) == 1


def test_groups_survive_the_round_trip_and_are_left_out_where_there_are_none():
    assert Thresholds.from_json(GROUPED.to_json()) == GROUPED
    assert "groups" not in THRESHOLDS.to_json()


def test_groups_of_an_absent_feature_are_refused():
    with pytest.raises(BundleIntegrityError, match="tenure_days"):
        GROUPED.flags_of(np.array([0.5]), np.zeros((1, 1)), ("other",))


@pytest.mark.parametrize(
    "change",
    [
        lambda: FeatureBands(feature="x", bounds=(2.0, 1.0)),
        lambda: FeatureBands(feature="x", bounds=(float("inf"),)),
        lambda: GroupThresholds(slice="x", bands=BANDS, flag_thresholds=(0.1, 0.2, 0.3)),
        lambda: GroupThresholds(slice="x", bands=BANDS, flag_thresholds=(0.1, 0.2, 0.3, 1.1)),
        lambda: Thresholds.from_json(GROUPED.to_json().replace('"bounds"', '"bound"')),
    ],
    ids=["falling", "infinite", "one-missing", "above-1", "damaged"],
)
def test_damaged_groups_are_refused(change):
    with pytest.raises(BundleIntegrityError):
        change()
