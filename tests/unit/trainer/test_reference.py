"""What packaging says of the rows that a model learned from."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from training_example import Trained

from churn_udf.bundle_store import open_champion
from churn_udf.contracts.reference import BAND_FEATURES, Reference, stratum_of
from churn_udf.errors import BundleIntegrityError
from churn_udf.warehouse.drift_models import REFERENCES_SCHEMA, reference_rows
from trainer.pipeline import splits_of
from trainer.release.reference import (
    NUM_POINTS,
    base_rates_of,
    bin_bounds,
    count_tokens,
    distribution_of,
    row_words,
    spread_of,
    support_points,
)
from trainer.runs import open_run

MANY = {
    "normal": lambda random: random.normal(size=20_000),
    "half zeros": lambda random: np.maximum(random.normal(size=20_000), 0.0),
    "many ties": lambda random: np.round(random.lognormal(0, 2, 20_000), 1),
    "tiny and huge": lambda random: (
        random.choice([1e-300, 1e100, -1e100, 5.0], 5_000) * random.random(5_000)
    ),
}


@pytest.mark.parametrize("name", MANY)
def test_points_keep_counts_mean_and_distribution(name: str) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = MANY[name](np.random.default_rng(1))
    found = distribution_of(name, values, 10)
    points, counts = np.array(found.point_values), np.array(found.point_counts)
    assert np.all(np.diff(points) > 0)
    assert len(points) <= 3 * NUM_POINTS
    assert found.known_count == counts.sum() == values.size
    assert found.mean == pytest.approx(values.mean())
    assert np.average(points, weights=counts) == pytest.approx(values.mean(), rel=1e-9)
    repeated = np.repeat(points, counts)
    assert stats.ks_2samp(values, repeated, method="asymp").statistic <= 1.5 / NUM_POINTS


def test_few_values_stand_for_themselves() -> None:
    found = distribution_of("f", np.array([3.0, 1.0, np.nan, 1.0, np.inf, -np.inf, -0.0]), 4)
    assert found.point_values == (0.0, 1.0, 3.0)
    assert found.point_counts == (1, 2, 1)
    assert (found.row_count, found.known_count, found.user_count) == (7, 4, 4)
    assert found.mean == 1.25
    assert found.standard_deviation == pytest.approx(np.std([3, 1, 1, 0]))


def test_a_frequent_value_is_a_point_of_its_own() -> None:
    values = np.concatenate([np.linspace(0, 1, 3_000), np.full(200, 0.5003)])
    points, counts = support_points(*np.unique(values, return_counts=True))
    assert counts[list(points).index(0.5003)] == 200


@pytest.mark.parametrize("value", [np.nan, 7.0])
def test_unknown_and_constant_features_are_summed_up(value: float) -> None:
    found = distribution_of("f", np.full(50, value), 5)
    assert found.bin_upper_bounds == ()
    assert found.bin_counts == (0 if np.isnan(value) else 50,)
    assert found.mean == (None if np.isnan(value) else 7.0)
    assert found.spread == (None if np.isnan(value) else 0.0)


def test_numbers_too_large_to_add_up_are_left_out() -> None:
    found = distribution_of("f", np.array([1.7e308, -1.7e308, 1.7e308, 0.0]), 4)
    assert found.standard_deviation is None
    json.dumps([found.mean, found.spread, found.point_values], allow_nan=False)


@pytest.mark.parametrize("name", MANY)
def test_bins_hold_about_a_tenth_each(name: str) -> None:
    values = MANY[name](np.random.default_rng(2))
    found = distribution_of(name, values, 10)
    bounds = np.array(found.bin_upper_bounds)
    assert np.all(np.diff(bounds) > 0)
    expected = np.bincount(np.searchsorted(bounds, values, side="left"), minlength=len(bounds) + 1)
    assert list(found.bin_counts) == expected.tolist()
    assert min(found.bin_counts) >= 0.02 * values.size
    assert 2 <= len(found.bin_counts) <= 20


def test_a_heavy_value_has_its_bin_to_itself() -> None:
    values = np.array([0.0] * 5 + [1.0] * 60 + [2.0] * 3 + [3.0] * 32)
    assert bin_bounds(*np.unique(values, return_counts=True)).tolist() == [0.0, 1.0, 2.0]
    few = np.array([0.0] * 1 + [1.0] * 99)
    assert bin_bounds(*np.unique(few, return_counts=True)).tolist() == []


def test_spread_is_the_integral_of_its_definition() -> None:
    points = np.array([0.0, 1.0, 3.0])
    found = spread_of(points, np.array([1, 2, 1]))
    assert found == pytest.approx(np.sqrt(0.25 * 0.75) * 1 + np.sqrt(0.75 * 0.25) * 2)


def test_words_are_cut_at_everything_but_letters_marks_and_digits() -> None:
    behavior = pa.array(["known 4.5  caf\u00e9", "", "milk milk"])
    review = pa.array(["Great!! \u2615never", "a | b", ""])
    rows, words = row_words(behavior, review)
    assert sorted(zip(rows.tolist(), words.to_pylist(), strict=True)) == [
        *[(0, word) for word in ("4", "5", "caf\u00e9", "great", "known", "never")],
        *[(1, "a"), (1, "b"), (2, "milk"), (2, "milk")],
    ]


def test_strata_add_up_and_unknown_values_have_their_own() -> None:
    random = np.random.default_rng(3)
    matrix = random.poisson(5, (2_000, 3)).astype(float)
    matrix[:100, 0] = np.nan
    labels = (random.random(2_000) < 0.3).astype(float)
    rates = base_rates_of(list(BAND_FEATURES), matrix, labels)
    assert rates is not None
    assert sum(rates.stratum_counts) == rates.row_count == 2_000
    assert sum(rates.stratum_churned_counts) == rates.churned_count == labels.sum()
    unknown = [number for number in rates.strata if number < 100**2]
    assert (
        sum(dict(zip(rates.strata, rates.stratum_counts, strict=True))[n] for n in unknown) == 100
    )
    assert stratum_of((-1, 0, 2)) == 103
    assert base_rates_of(list(BAND_FEATURES[:2]), matrix[:, :2], labels) is None


def test_a_bundle_carries_what_its_shipped_fit_learned_from(trained: Trained) -> None:
    bundle = open_champion(trained.workspace.models_dir)
    path = bundle.directory / "reference.json"
    assert path.stat().st_size < 1_000_000
    reference = Reference.from_mapping(json.loads(path.read_text()), path="p")
    assert Reference.from_mapping(json.loads(reference.to_json()), path="p") == reference
    snapshot = trained.snapshot
    run = open_run(trained.workspace.runs_dir, None)
    rows = splits_of(snapshot, run.config).final
    assert bundle.manifest.training["fits"]["final"]["rows"] == len(rows)
    assert [one.name for one in reference.features] == list(snapshot.feature_names)
    for index, found in enumerate(reference.features):
        values = snapshot.feature_matrix[rows, index]
        assert found.row_count == len(rows)
        assert found.known_count == np.isfinite(values).sum()
        assert found.mean == pytest.approx(np.nanmean(values))
        assert found.user_count == len(set(snapshot.user_ids(rows)))
    dates = snapshot.cutoff_dates[rows]
    assert (reference.first_cutoff, reference.last_cutoff) == (str(dates.min()), str(dates.max()))
    newest = int((snapshot.cutoff_dates == snapshot.cutoff_dates.max()).sum())
    assert reference.score.row_count == newest
    texts = snapshot.texts(rows)
    places, words = row_words(*texts)
    pairs = set(zip(places.tolist(), words.to_pylist(), strict=True))
    for word, count in zip(reference.tokens.words, reference.tokens.counts, strict=True):
        assert count == sum(1 for _, one in pairs if one == word)
    listed = set(reference.tokens.words)
    assert reference.tokens.other_count == len({row for row, one in pairs if one not in listed})


def test_texts_without_a_word_are_counted(trained: Trained) -> None:
    class Silent:
        def texts(self, rows):
            return pa.array([""] * len(rows)), pa.array([""] * len(rows))

        def user_ids(self, rows):
            return ["u"] * len(rows)

    found = count_tokens(Silent(), np.arange(3))
    assert (found.row_count, found.words, found.other_count) == (3, (), 0)


def test_rows_for_the_warehouse_fit_its_schema(trained: Trained) -> None:
    bundle = open_champion(trained.workspace.models_dir)
    document = json.loads((bundle.directory / "reference.json").read_text())
    reference = Reference.from_mapping(document, path="p")
    rows = list(reference_rows(reference))
    assert {name for row in rows for name in row} < set(REFERENCES_SCHEMA.names)
    (whole,) = (row for row in rows if row["part"] == "bundle")
    assert whole["first_cutoff_date"] == datetime.date.fromisoformat(reference.first_cutoff)


@pytest.mark.parametrize(
    "change",
    [{"reference_version": 2}, {"features": [{"name": "f"}]}, {"tokens": None}, {"score": 1}],
)
def test_a_damaged_reference_is_refused(trained: Trained, change: dict[str, object]) -> None:
    bundle = open_champion(trained.workspace.models_dir)
    document = json.loads((bundle.directory / "reference.json").read_text())
    with pytest.raises(BundleIntegrityError, match="churn-train run"):
        Reference.from_mapping({**document, **change}, path=str(Path("x") / "reference.json"))
