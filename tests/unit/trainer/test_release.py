"""Package, registry and offline parity of a trained run."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from champion import forget_champion
from gate_example import copy_of_bundle
from training_example import Trained

from churn_udf.bundle_store import open_bundle, open_champion
from churn_udf.errors import BundleIntegrityError
from churn_udf.registry import read_registry
from trainer.errors import ParityError, RegistryError, RunError
from trainer.pipeline import package_step
from trainer.release.promotion import promote_candidate, retire_model
from trainer.release.registry import find_bundle_id, list_models
from trainer.runs import open_run


def test_bundle_carries_real_facts(trained: Trained) -> None:
    bundle = open_champion(trained.workspace.models_dir)
    assert bundle.bundle_id == trained.outcome.bundle_id
    facts = bundle.manifest.training
    assert facts["snapshot_id"] == trained.outcome.snapshot_id
    assert facts["splits"]["test"]["rows"] == 200
    assert bundle.manifest.settings == trained.snapshot.model_settings
    assert bundle.manifest.features == trained.snapshot.features
    stored = json.loads((bundle.directory / "metrics.json").read_text())
    assert stored["test"]["bert"]["auroc"]["value"] == facts["test_auroc"]
    card = (bundle.directory / "MODEL_CARD.md").read_text()
    assert f"{facts['parameters']:,}" in card
    assert trained.outcome.snapshot_id in card
    assert "$" not in card
    assert "Input: text and" in card
    assert "What scores: `bert` (BERT 1.00), the only kind asked for" in card
    final = stored["fits"]["final"]
    assert f"fitted once more on {final['rows']:,} rows, cutoffs to {final['cutoffs'][-1]}" in card
    assert f"by {stored['shipped_calibration']['offset']:+.3f}" in card or "nothing is" in card
    shipped = json.loads((bundle.directory / "calibration.json").read_text())
    assert stored["shipped_calibration"]["offset"] == shipped["offset"]
    assert str(trained.root) not in card


def test_packaging_again_gives_the_same_bundle(trained: Trained) -> None:
    run = open_run(trained.workspace.runs_dir, None)
    bundle = package_step(run, trained.snapshot, trained.workspace)
    assert bundle.bundle_id == trained.outcome.bundle_id


def test_changed_predictions_fail_parity(trained: Trained) -> None:
    run = open_run(trained.workspace.runs_dir, None)
    sample = run.read_json("shipped.json")
    sample["probabilities"] = [value + 1e-4 for value in sample["probabilities"]]
    run.write_json("shipped.json", sample)
    with pytest.raises(ParityError, match=r"differ by up to 1\.00e-04"):
        package_step(run, trained.snapshot, trained.workspace)


def test_missing_sample_of_what_ships_is_named(trained: Trained) -> None:
    run = open_run(trained.workspace.runs_dir, None)
    (run.path / "shipped.json").unlink()
    with pytest.raises(RunError, match="churn-train evaluate"):
        package_step(run, trained.snapshot, trained.workspace)


def test_unjudged_run_is_not_packaged(trained: Trained) -> None:
    run = open_run(trained.workspace.runs_dir, None)
    (run.path / "metrics.json").unlink()
    with pytest.raises(RunError, match="churn-train evaluate"):
        package_step(run, trained.snapshot, trained.workspace)


def test_registry_lists_finds_and_promotes(trained: Trained) -> None:
    models_dir = trained.workspace.models_dir
    records = list_models(models_dir)
    assert [record.is_champion for record in records] == [True]
    bundle_id = trained.outcome.bundle_id
    for reference in (None, bundle_id, bundle_id[:4], trained.outcome.run_id):
        assert find_bundle_id(models_dir, reference) == bundle_id
    for reference in ("zzz", "", " "):
        with pytest.raises(RegistryError, match=r"is not a model.*\(champion\).*models list"):
            find_bundle_id(models_dir, reference)
    with pytest.raises(RegistryError, match="no model in"):
        find_bundle_id(models_dir / "none", None)
    forget_champion(models_dir)
    planned = promote_candidate(models_dir, bundle_id, reason="why", dry_run=True)
    assert (planned.champion_id, planned.was_moved, planned.moved_at) == (bundle_id, False, None)
    assert read_registry(models_dir).transitions == ()
    done = promote_candidate(models_dir, bundle_id, reason="why")
    assert (done.was_moved, done.from_stage, done.previous_bundle_id) == (True, "candidate", None)
    again = promote_candidate(models_dir, bundle_id, reason="again")
    assert (again.was_moved, again.from_stage, again.reason) == (False, "champion", "why")
    assert len(read_registry(models_dir).transitions) == 1


def test_no_reference_means_no_retired_model(trained: Trained) -> None:
    models_dir = trained.workspace.models_dir
    newer = copy_of_bundle(models_dir, trained.outcome.bundle_id)
    assert find_bundle_id(models_dir, None) == newer
    retire_model(models_dir, newer, reason="it misbehaves")
    assert find_bundle_id(models_dir, None) == trained.outcome.bundle_id


def test_ambiguous_reference_is_refused(trained: Trained) -> None:
    models_dir = trained.workspace.models_dir
    source = models_dir / "bundles" / trained.outcome.bundle_id
    (models_dir / "bundles" / ("0" * 16)).mkdir()
    document = json.loads((source / "manifest.json").read_text())
    other = copy.deepcopy(document)
    (models_dir / "bundles" / ("0" * 16) / "manifest.json").write_text(json.dumps(other))
    with pytest.raises(RegistryError, match="more than one"):
        find_bundle_id(models_dir, trained.outcome.run_id)


def test_damaged_bundle_is_not_promoted(trained: Trained) -> None:
    models_dir = trained.workspace.models_dir
    forget_champion(models_dir)
    bundle_id = trained.outcome.bundle_id
    card = models_dir / "bundles" / bundle_id / "MODEL_CARD.md"
    card.write_text(card.read_text() + "!")
    for dry_run in (True, False):
        with pytest.raises(BundleIntegrityError, match=r"MODEL_CARD\.md"):
            promote_candidate(models_dir, bundle_id, reason="", dry_run=dry_run)
    assert read_registry(models_dir).champion_id is None


def test_unreadable_manifest_is_listed_not_fatal(trained: Trained) -> None:
    models_dir = trained.workspace.models_dir
    manifest = models_dir / "bundles" / trained.outcome.bundle_id / "manifest.json"
    manifest.write_text("{")
    (record,) = list_models(models_dir)
    assert (record.run_id, record.model_kind, record.stage) == (None, None, "champion")
    with pytest.raises(BundleIntegrityError):
        open_bundle(manifest.parent)


def test_no_models_folder_is_an_empty_list(tmp_path: Path) -> None:
    assert list_models(tmp_path / "nothing") == []
