"""Contracts: settings, snapshot schema, manifest."""

import dataclasses
import json
from pathlib import Path

import pyarrow as pa
import pytest

from churn_udf.contracts.bundle import BundleManifest, FeatureSpec
from churn_udf.contracts.settings import ModelSettings
from churn_udf.contracts.snapshot import conform_batch, feature_names_of, snapshot_schema
from churn_udf.errors import (
    BundleIntegrityError,
    BundleMismatchError,
    SettingsError,
    SnapshotSchemaError,
)

SETTINGS = {
    "observation_days": 365,
    "eligibility_days": 60,
    "gap_days": 0,
    "horizon_days": 14,
    "qualifying_event_types": ["purchase"],
    "max_visits": 16,
    "max_words_per_visit": 4,
    "max_reviews": 3,
    "max_review_chars": 400,
    "text_version": 1,
    "feature_version": 1,
}


def manifest(**changes) -> BundleManifest:
    values = {
        "settings": ModelSettings.from_mapping(SETTINGS),
        "features": (FeatureSpec(name="recency_days", group="recency"),),
        "training": {"snapshot_id": "abc", "seed": 0},
        "versions": {"torch": "2"},
        "files": {"model.json": "0" * 64},
    }
    return BundleManifest(**{**values, **changes})


def test_settings_round_trip_and_ignore_other_keys():
    settings = ModelSettings.from_mapping({**SETTINGS, "horizon_days": "14", "other": 1})
    assert settings == ModelSettings.from_mapping(settings.to_dict())


@pytest.mark.parametrize(
    ("change", "named"), [({"gap_days": "soon"}, "gap_days"), ({"gap_days": None}, "gap_days")]
)
def test_wrong_setting_is_named(change, named):
    with pytest.raises(SettingsError, match=named):
        ModelSettings.from_mapping({**SETTINGS, **change})


def test_missing_setting_is_named():
    with pytest.raises(SettingsError, match="horizon_days"):
        ModelSettings.from_mapping({k: v for k, v in SETTINGS.items() if k != "horizon_days"})


def test_mismatch_names_every_setting_with_both_values():
    mine = ModelSettings.from_mapping(SETTINGS)
    theirs = dataclasses.replace(mine, horizon_days=30, qualifying_event_types=("login",))
    with pytest.raises(BundleMismatchError) as caught:
        mine.require_same(theirs, bundle_id="b1")
    for part in ("horizon_days: bundle 14, warehouse 30", "login", "churn-train run"):
        assert part in str(caught.value)


def test_manifest_reads_back_and_its_id_is_free_of_time():
    text = manifest().to_json(created_at="2020-01-01T00:00:00Z")
    again = BundleManifest.from_json(text, path=Path("manifest.json"))
    assert again == manifest()
    assert again.bundle_id == manifest().bundle_id
    assert manifest(training={"seed": 1}).bundle_id != manifest().bundle_id


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.update(bundle_id="0" * 16),
        lambda d: d["content"]["files"].update({"model.json": "1" * 64}),
        lambda d: d["content"].pop("features"),
        lambda d: d["content"].update(bundle_version=99),
    ],
    ids=["id", "file hash", "field", "version"],
)
def test_changed_manifest_is_refused(damage):
    document = json.loads(manifest().to_json(created_at="now"))
    damage(document)
    with pytest.raises(BundleIntegrityError):
        BundleManifest.from_json(json.dumps(document), path=Path("manifest.json"))


def test_schema_keeps_feature_order():
    schema = snapshot_schema(["b_count", "a_count"])
    assert feature_names_of(schema) == ("b_count", "a_count")


@pytest.mark.parametrize("names", [[], ["a", "a"], ["user_id"]], ids=["none", "twice", "key"])
def test_bad_feature_lists_are_refused(names):
    with pytest.raises(SnapshotSchemaError):
        snapshot_schema(names)


def test_conform_casts_orders_and_refuses_missing_or_null():
    schema = snapshot_schema(["x_count"])
    columns = {
        "x_count": pa.array([1], pa.int32()),
        "user_id": ["u"],
        "cutoff_date": pa.array([0], pa.date32()),
        "behavior_text": ["t"],
        "review_text_recent": [""],
        "is_label_mature": [True],
        "is_churned": [None],
        "input_hash": ["h"],
    }
    columns["is_churned"] = pa.array([None], pa.bool_())
    assert conform_batch(pa.RecordBatch.from_pydict(columns), schema).schema == schema
    without = {name: values for name, values in columns.items() if name != "x_count"}
    with_null = {**columns, "user_id": pa.array([None], pa.string())}
    for changed, named in ((without, "x_count"), (with_null, "1 nulls")):
        batch = pa.RecordBatch.from_pydict(changed)
        with pytest.raises(SnapshotSchemaError, match=named):
            conform_batch(batch, schema)
