"""Segments: bands from training rows, profile columns, and what is refused."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pytest

from churn_udf.contracts.snapshot import PROFILE_SCHEMA, snapshot_schema
from trainer.data.export import write_snapshot
from trainer.data.snapshot import Snapshot
from trainer.data.synthetic import SETTINGS, SYNTHETIC_FEATURES, synthetic_snapshot
from trainer.errors import ConfigError, SnapshotIntegrityError
from trainer.evaluate.segments import (
    dividing_columns,
    find_segmentation,
    find_segmentations,
    quantile_bands,
)

NUM_USERS = 120


def profile_of(index):
    return {
        "town": ("north", "south", "east")[index % 3] if index % 10 else None,
        "age": str(18 + index % 50),
        "email": f"user{index}@example.com",
        "same": "yes",
    }


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory) -> Snapshot:
    """The synthetic customers with profiles; the last user has none."""
    folder = tmp_path_factory.mktemp("snapshots")
    plain = synthetic_snapshot(folder, num_users=NUM_USERS, num_cutoffs=8)
    users = [f"user_{index:06d}" for index in range(NUM_USERS - 1)]
    profiles = pa.table(
        [
            pa.array(users),
            pa.array([json.dumps(profile_of(index)) for index in range(NUM_USERS - 1)]),
        ],
        schema=PROFILE_SCHEMA,
    )
    with_profiles = write_snapshot(
        plain.table.to_batches(),
        features=SYNTHETIC_FEATURES,
        settings=SETTINGS,
        score_cutoff_date=datetime.date(2024, 4, 8),
        provenance={},
        snapshots_dir=folder,
        profiles=profiles,
    )
    assert with_profiles.snapshot_id != plain.snapshot_id
    assert plain.profile_values == {}
    return with_profiles


@pytest.fixture
def train(snapshot):
    return np.arange(3 * NUM_USERS)


def test_bands_hold_alike_many_training_rows_and_read_as_they_are_applied():
    values = np.random.default_rng(0).lognormal(3.0, 1.0, 4000)
    bands = quantile_bands("amount", values)
    shares = np.bincount(bands.groups_of(values), minlength=5) / 4000
    assert shares[:4] == pytest.approx([0.25] * 4, abs=0.02)
    assert shares[4] == 0.0
    assert all(float(f"{bound:.3g}") == bound for bound in bands.bounds)
    assert [f"{bound:,.6g}" in " ".join(bands.names) for bound in bands.bounds] == [True] * 3


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        pytest.param([0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0], (1.0,), id="yes-no"),
        pytest.param([2.0, 2.0], (), id="constant"),
        pytest.param([np.nan, np.nan], (), id="unknown"),
        pytest.param([0.0] * 50 + list(range(1, 31)), (1.0, 10.7, 20.3), id="half-zero"),
    ],
)
def test_bands_of_lumpy_values(values, bounds):
    assert quantile_bands("x", values).bounds == bounds


def test_bands_come_from_training_rows_alone(snapshot, train):
    values = snapshot.feature_matrix[:, snapshot.feature_names.index("amount_365d")]
    found = find_segmentation(snapshot, train, "value")
    assert found.bands == quantile_bands("amount_365d", values[train])
    assert found.bands != quantile_bands("amount_365d", values)
    assert found.segment_N.shape == (snapshot.num_rows,)
    assert find_segmentation(snapshot, train, "amount_365d").bands == found.bands


def test_profile_columns_become_categories_or_bands(snapshot, train):
    town = find_segmentation(snapshot, train, "profile.town")
    assert town.bands is None
    assert set(town.names[:3]) == {"north", "south", "east"}
    assert town.names[3:] == ("other", "unknown")
    users = snapshot.user_ids(np.arange(snapshot.num_rows))
    for row in (0, 1, 10, NUM_USERS - 1, 5 * NUM_USERS + 7):
        index = int(users[row].removeprefix("user_"))
        expected = profile_of(index)["town"] if index < NUM_USERS - 1 else None
        assert town.names[town.segment_N[row]] == (expected or "unknown")
    age = find_segmentation(snapshot, train, "age")
    assert age.names[-1] == "unknown"
    assert age.names[0].startswith("under ")


def test_profile_stands_for_the_columns_that_divide(snapshot, train):
    assert dividing_columns(snapshot, train) == ["town", "age"]
    found = find_segmentations(snapshot, train, ("tenure", "profile", "profile.town"))
    assert [one.name for one in found] == ["tenure", "profile.town", "profile.age"]


def test_an_unknown_slice_names_what_there_is(snapshot, train):
    with pytest.raises(ConfigError, match=r"'twon' is unknown.*amount_365d.*profile\.town"):
        find_segmentation(snapshot, train, "twon")


def test_profiles_are_verified(snapshot, tmp_path):
    import shutil

    copy = tmp_path / snapshot.snapshot_id
    shutil.copytree(snapshot.path, copy)
    file = copy / "profiles.arrow"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(SnapshotIntegrityError, match=r"profiles\.arrow is damaged"):
        Snapshot.open(copy)


def test_profiles_are_no_input_of_the_model(snapshot):
    assert snapshot.table.schema == snapshot_schema(snapshot.feature_names)
