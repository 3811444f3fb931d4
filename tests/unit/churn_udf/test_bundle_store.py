"""The models directory: verified bundles, atomic writes, the champion pointer."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
from factories import model_settings, tiny_bundle

from churn_udf.bundle_store import (
    Bundle,
    list_bundle_ids,
    open_bundle,
    open_champion,
    read_champion,
    read_promotions,
    set_champion,
    write_bundle,
)
from churn_udf.contracts.bundle import MANIFEST_FILE, FeatureSpec
from churn_udf.errors import (
    BundleIntegrityError,
    BundleMismatchError,
    BundleNotFoundError,
    ChurnError,
)

FEATURES = ("recency_days", "order_count", "amount_sum")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("models"), FEATURES)


@pytest.fixture
def bundle(pristine, tmp_path) -> Bundle:
    """A copy that a test may damage."""
    target = tmp_path / "models" / "bundles" / pristine.bundle_id
    shutil.copytree(pristine.directory, target)
    return open_bundle(target)


def edit_manifest(directory: Path, change) -> None:
    path = directory / MANIFEST_FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_opens_with_everything_it_needs(pristine):
    bundle = open_bundle(
        pristine.directory, settings=model_settings(), feature_names=list(FEATURES)
    )
    assert bundle.feature_names == FEATURES
    assert bundle.calibrator.kind == "temperature"
    assert bundle.thresholds.flag_threshold == 0.5
    assert bundle.directory.name == bundle.bundle_id == bundle.manifest.bundle_id


def flip_byte(directory: Path) -> None:
    path = directory / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def link_weights(directory: Path) -> None:
    real = directory.parent / "elsewhere.safetensors"
    (directory / "model.safetensors").rename(real)
    (directory / "model.safetensors").symlink_to(real)


def link_directory(directory: Path) -> None:
    shutil.move(directory / "tokenizer", directory.parent / "elsewhere")
    (directory / "tokenizer").symlink_to(directory.parent / "elsewhere")


def add_pickle(directory: Path) -> None:
    (directory / "model.bin").write_bytes(pickle.dumps({"weights": 1}))


def list_pickle_too(directory: Path) -> None:
    """The attacker lists the pickle and recomputes the id; even so it is not a bundle file."""
    from churn_udf.contracts.bundle import BundleManifest, sha256_of_file

    add_pickle(directory)
    path = directory / MANIFEST_FILE
    document = json.loads(path.read_text())
    document["content"]["files"]["model.bin"] = sha256_of_file(directory / "model.bin")
    content = document["content"]
    manifest = BundleManifest(
        settings=model_settings(),
        features=tuple(FeatureSpec(**item) for item in content["features"]),
        training=content["training"],
        versions=content["versions"],
        files=content["files"],
    )
    path.write_text(manifest.to_json(created_at="now"))
    directory.rename(directory.parent / manifest.bundle_id)


TAMPERED = {
    "missing weights": (lambda d: (d / "model.safetensors").unlink(), "files missing"),
    "missing tokenizer": (lambda d: shutil.rmtree(d / "tokenizer"), "files missing"),
    "missing manifest": (lambda d: (d / MANIFEST_FILE).unlink(), "has no manifest.json"),
    "changed byte": (flip_byte, "sha256"),
    "truncated": (lambda d: os.truncate(d / "model.safetensors", 100), "sha256"),
    "changed threshold": (
        lambda d: (d / "thresholds.json").write_text(
            (d / "thresholds.json").read_text().replace("0.5", "0.9")
        ),
        "sha256",
    ),
    "extra file": (lambda d: (d / "notes.txt").write_text("hello"), "not in the manifest"),
    "extra pickle": (add_pickle, "not in the manifest"),
    "listed pickle": (list_pickle_too, "never loaded"),
    "link to weights": (link_weights, "link or special file"),
    "link to directory": (link_directory, "link or special file"),
    "manifest not json": (lambda d: (d / MANIFEST_FILE).write_text("{"), "not a bundle manifest"),
    "manifest not utf-8": (
        lambda d: (d / MANIFEST_FILE).write_bytes(b"\xff\xfe"),
        "not a bundle manifest",
    ),
    "changed settings": (
        lambda d: edit_manifest(
            d, lambda m: m["content"]["settings"].__setitem__("horizon_days", 7)
        ),
        "changed after packaging",
    ),
    "changed feature": (
        lambda d: edit_manifest(
            d, lambda m: m["content"]["features"][0].__setitem__("name", "other")
        ),
        "changed after packaging",
    ),
    "file left out of manifest": (
        lambda d: edit_manifest(d, lambda m: m["content"]["files"].pop("metrics.json")),
        "changed after packaging",
    ),
    "future format": (
        lambda d: edit_manifest(d, lambda m: m["content"].__setitem__("bundle_version", 99)),
        "this release reads",
    ),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_refuses_a_tampered_bundle_and_says_what_to_run(bundle, case):
    tamper, message = TAMPERED[case]
    tamper(bundle.directory)
    parent = bundle.directory.parent
    (directory,) = [path for path in parent.iterdir() if len(path.name) == 16]
    with pytest.raises(BundleIntegrityError, match=message) as caught:
        open_bundle(directory)
    assert "churn-train run" in str(caught.value)


def test_refuses_a_swapped_directory(bundle):
    other = bundle.directory.rename(bundle.directory.parent / ("0" * 16))
    with pytest.raises(BundleIntegrityError, match="renamed"):
        open_bundle(other)


def test_refuses_a_bundle_that_is_not_there(tmp_path):
    with pytest.raises(BundleNotFoundError, match="churn-train run"):
        open_bundle(tmp_path / "bundles" / ("0" * 16))


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"horizon_days": 14}, "horizon_days: bundle 30, warehouse 14"),
        ({"observation_days": 180}, "observation_days"),
        ({"qualifying_event_types": ("purchase", "view")}, "qualifying_event_types"),
        ({"max_visits": 8}, "max_visits"),
        ({"text_version": 2}, "text_version"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refuses_other_settings(pristine, change, seen):
    with pytest.raises(BundleMismatchError, match=seen) as caught:
        open_bundle(pristine.directory, settings=model_settings(**change))
    assert "churn-train run" in str(caught.value)


def test_refuses_text_of_another_version_than_the_code_writes(tmp_path):
    with pytest.raises(BundleMismatchError, match="text version 7"):
        tiny_bundle(tmp_path, FEATURES, model_settings(text_version=7))


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        (("recency_days", "order_count"), r"only in the bundle \['amount_sum'\]"),
        ((*FEATURES, "new_one"), r"only in the warehouse \['new_one'\]"),
        (("order_count", "recency_days", "amount_sum"), "another order"),
    ],
    ids=["fewer", "more", "reordered"],
)
def test_refuses_other_features(pristine, names, seen):
    with pytest.raises(BundleMismatchError, match=seen) as caught:
        open_bundle(pristine.directory, feature_names=names)
    assert "churn-train run" in str(caught.value)


def test_same_content_gives_the_same_bundle(tmp_path):
    first = tiny_bundle(tmp_path, FEATURES, seed=1)
    created = (first.directory / MANIFEST_FILE).read_text()
    again = tiny_bundle(tmp_path, FEATURES, seed=1)
    assert again.bundle_id == first.bundle_id
    assert (again.directory / MANIFEST_FILE).read_text() == created
    assert tiny_bundle(tmp_path, FEATURES, seed=2).bundle_id != first.bundle_id
    assert len(list_bundle_ids(tmp_path)) == 2


def test_writing_again_repairs_a_damaged_bundle(tmp_path):
    bundle = tiny_bundle(tmp_path, FEATURES)
    flip_byte(bundle.directory)
    assert open_bundle(tiny_bundle(tmp_path, FEATURES).directory).bundle_id == bundle.bundle_id


@pytest.mark.parametrize("name", ["../evil.json", "/etc/x.json", "a\\b.json", "manifest.json"])
def test_refuses_to_write_outside_the_bundle(tmp_path, name):
    with pytest.raises(BundleIntegrityError, match="inside it"):
        write_bundle(
            tmp_path,
            files={name: "x"},
            settings=model_settings(),
            features=[FeatureSpec(name="a", group="b")],
            training={},
            versions={},
        )
    assert list((tmp_path / "bundles").iterdir()) == []


def test_an_incomplete_bundle_is_not_written(tmp_path):
    with pytest.raises(BundleIntegrityError, match=r"model\.safetensors"):
        write_bundle(
            tmp_path,
            files={"model.json": "{}"},
            settings=model_settings(),
            features=[FeatureSpec(name="a", group="b")],
            training={},
            versions={},
        )
    assert list((tmp_path / "bundles").iterdir()) == []


def test_no_champion_before_the_first_promotion(tmp_path):
    assert read_champion(tmp_path) is None
    assert read_champion(tmp_path / "not" / "there") is None
    with pytest.raises(BundleNotFoundError, match="churn-train run"):
        open_champion(tmp_path)


def test_promote_and_roll_back(tmp_path):
    first = tiny_bundle(tmp_path, FEATURES, seed=1).bundle_id
    second = tiny_bundle(tmp_path, FEATURES, seed=2).bundle_id
    set_champion(tmp_path, first, reason="first")
    set_champion(tmp_path, second, reason="better")
    champion = set_champion(tmp_path, first, reason="rollback")
    assert open_champion(tmp_path).bundle_id == first
    assert (champion.previous_bundle_id, champion.reason) == (second, "rollback")
    assert [p.bundle_id for p in read_promotions(tmp_path)] == [first, second, first]


def test_promoting_the_champion_again_changes_nothing(tmp_path):
    bundle_id = tiny_bundle(tmp_path, FEATURES).bundle_id
    first = set_champion(tmp_path, bundle_id, reason="first")
    assert set_champion(tmp_path, bundle_id, reason="again") == first
    assert len(read_promotions(tmp_path)) == 1


@pytest.mark.parametrize("bundle_id", ["0" * 16, "../../etc", "", "XYZ"])
def test_promoting_what_is_not_there_leaves_the_pointer(tmp_path, bundle_id):
    champion = set_champion(tmp_path, tiny_bundle(tmp_path, FEATURES).bundle_id, reason="first")
    with pytest.raises(BundleNotFoundError):
        set_champion(tmp_path, bundle_id, reason="wrong")
    assert read_champion(tmp_path) == champion


def test_promoting_a_damaged_bundle_leaves_the_pointer(tmp_path):
    champion = set_champion(tmp_path, tiny_bundle(tmp_path, FEATURES).bundle_id, reason="first")
    damaged = tiny_bundle(tmp_path, FEATURES, seed=9)
    flip_byte(damaged.directory)
    with pytest.raises(BundleIntegrityError):
        set_champion(tmp_path, damaged.bundle_id, reason="wrong")
    assert read_champion(tmp_path) == champion


def test_errors_are_expected_failures():
    assert issubclass(BundleIntegrityError, ChurnError)
