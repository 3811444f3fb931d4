"""Gate, package, registry and offline parity of a trained run."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from champion import forget_champion
from training_example import Trained

from churn_udf.bundle_store import open_bundle, open_champion
from churn_udf.errors import BundleIntegrityError
from churn_udf.registry import read_registry
from trainer.config import GateConfig
from trainer.errors import ParityError, QualityGateError, RegistryError, RunError
from trainer.pipeline import package_step
from trainer.release.gate import check_gate
from trainer.release.promotion import promote_candidate
from trainer.release.registry import find_bundle_id, list_models
from trainer.runs import open_run


def metrics(
    *,
    auroc: float = 0.8,
    high: float = 0.85,
    recency: float = 0.7,
    brier: float = 0.15,
    kindness: float = 0.0,
) -> dict[str, Any]:
    def table(value: float, upper: float, score: float) -> dict[str, Any]:
        return {
            "auroc": {"value": value, "low": value - 0.05, "high": upper},
            "brier_score": {"value": score, "low": score, "high": score},
        }

    return {
        "model": "bert",
        "test": {
            "bert": table(auroc, high, brier),
            "recency": table(recency, recency, 0.2),
            "base_rate": table(0.5, 0.5, 0.2),
        },
        "differences": {
            "recency": {"auroc": {"high": auroc - recency + kindness}},
            "base_rate": {"brier_score": {"high": 0.2 - brier + kindness}},
        },
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({}, None, id="good"),
        pytest.param({"high": 0.55}, None, id="chance-at-bound"),
        pytest.param({"high": 0.549}, "at best 0.549", id="chance-below"),
        pytest.param({"recency": 0.82}, None, id="recency-at-bound"),
        pytest.param({"recency": 0.821}, "of the recency rule", id="recency-better"),
        pytest.param({"recency": 0.86, "kindness": 0.05}, None, id="recency-better-or-noise"),
        pytest.param({"brier": 0.22}, None, id="constant-at-bound"),
        pytest.param({"brier": 0.221}, "base rate for everyone", id="constant-better"),
    ],
)
def test_gate_bounds(changes: dict[str, float], message: str | None) -> None:
    found = metrics(**changes)
    if message is None:
        assert (
            check_gate(
                found, GateConfig(max_recency_deficit=0.02 + 1e-9, max_brier_excess=0.02 + 1e-9)
            )["auroc"]
            == 0.8
        )
        return
    with pytest.raises(QualityGateError, match=message) as caught:
        check_gate(found, GateConfig(max_recency_deficit=0.02 + 1e-9, max_brier_excess=0.02 + 1e-9))
    assert caught.value.facts["auroc"] == 0.8
    assert "churn-train promote" in str(caught.value)


def test_gate_asks_only_for_baselines_that_were_fitted() -> None:
    found = metrics(recency=0.99, brier=0.9)
    del found["test"]["recency"], found["test"]["base_rate"]
    check_gate(found, GateConfig())


def test_undefined_metric_breaks_no_bound() -> None:
    found = metrics()
    found["test"]["recency"]["auroc"]["value"] = None
    found["differences"]["recency"]["auroc"]["high"] = None
    check_gate(found, GateConfig())


def segment(name: str, **intervals: tuple[float, float, float]) -> dict[str, Any]:
    """A measured segment; metrics that are not given are fine."""
    fine = {
        "auroc": (0.8, 0.7, 0.9),
        "auroc_against_all": (0.0, -0.1, 0.1),
        "calibration_gap_against_all": (0.0, -0.1, 0.1),
    }
    named = {
        metric: dict(zip(("value", "low", "high"), numbers, strict=True))
        for metric, numbers in {**fine, **intervals}.items()
    }
    return {"segment": name, "users": 500, "too_small": None, "metrics": named}


def with_segments(*segments: dict[str, Any]) -> dict[str, Any]:
    small = {"segment": "few", "users": 5, "too_small": "5 users, 100 needed"}
    division = {"source": "feature x", "segments": [segment("fine"), *segments, small]}
    return {**metrics(), "slices": {"by": {"tenure": division}}}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        pytest.param({}, None, id="good"),
        pytest.param({"auroc": (0.4, 0.3, 0.5)}, None, id="slice-auroc-at-bound"),
        pytest.param({"auroc": (0.4, 0.3, 0.499)}, r"AUROC 0\.499 .* at least 0\.500", id="auroc"),
        pytest.param({"calibration_gap_against_all": (0.2, 0.1, 0.3)}, None, id="gap-at-bound"),
        pytest.param({"calibration_gap_against_all": (-0.2, -0.3, -0.1)}, None, id="gap-below"),
        pytest.param(
            {"calibration_gap_against_all": (0.2, 0.11, 0.3)}, r"by 0\.110 .* 0\.100", id="gap-high"
        ),
        pytest.param(
            {"calibration_gap_against_all": (-0.2, -0.3, -0.12)}, r"by 0\.120", id="gap-low"
        ),
        pytest.param({"auroc_against_all": (-0.6, -0.7, -0.5)}, None, id="deficit-off"),
        pytest.param({"auroc": (None, None, None)}, None, id="undefined"),
    ],
)
def test_gate_refuses_on_the_worst_segment(bad: dict[str, Any], message: str | None) -> None:
    found = with_segments(segment("bad", **bad))
    if message is None:
        check_gate(found, GateConfig())
        return
    with pytest.raises(
        QualityGateError, match=rf"segment 'bad' of tenure \(500 users\).*{message}"
    ):
        check_gate(found, GateConfig())
    check_gate(found, GateConfig(min_slice_auroc=None, max_slice_calibration_gap=None))


def test_gate_on_the_distance_from_everybody_can_be_turned_on() -> None:
    found = with_segments(segment("bad", auroc_against_all=(-0.3, -0.4, -0.21)))
    check_gate(found, GateConfig(max_slice_auroc_deficit=0.22))
    with pytest.raises(QualityGateError, match=r"AUROC below everybody's, by 0\.210"):
        check_gate(found, GateConfig(max_slice_auroc_deficit=0.2))


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
